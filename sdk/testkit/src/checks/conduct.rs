//! How a backend behaves as a guest: it leaves arithmetic and memory as they were, and goes when asked to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fp8flow_sdk::kernels::Isa;
use fp8flow_sdk::{ErrorKind, Pass};

use super::{Found, ensure};
use crate::arithmetic::deviation;
use crate::driver::{Layers, facts};
use crate::elsewhere::Elsewhere;
use crate::failure::Failure;
use crate::host::{Observer, Order, host, host_with};
use crate::subject::{K, NS, Subject, input, output_gradients, weight};
use crate::usage::{self, USES};
use crate::values::Activations::{Bf16, F32};
use crate::values::Values;
use crate::watched::Watch;

/// Rounding and subnormal numbers are after every call, and after every task, what they were before.
pub(crate) fn arithmetic_is_left_as_it_was(subject: &Subject<'_>) -> Found {
    if let Some(before) = deviation() {
        return Err(Failure::Wrong(format!(
            "{before} before any call: something loaded into this process has set it"
        )));
    }
    let watch = Arc::new(Watch::default());
    let host = host_with(Isa::best(), 2, Order::Ascending, Some(watch.clone()));
    for dtype in [Bf16, F32] {
        let mut layers = subject.watched(&host, &watch)?;
        // Many calls of one size, and some of others.
        for (i, tokens) in (0..64).zip([16, 0, 1, 130].into_iter().chain(std::iter::repeat(4))) {
            layers.telemetry = i % 2 == 0;
            let x = input(dtype, tokens, 0);
            layers.step(&x, &output_gradients(dtype, tokens, 0))?;
            layers.forward(Pass::Eval, &x)?;
            layers.forward(Pass::Recompute, &x)?;
            watch.arithmetic()?;
        }
        let _ = (layers.counters(0), layers.recipe().describe());
        let state =
            layers.recipe().state().map_err(|error| Failure::Call { call: "Recipe::state", error })?;
        let restored = layers.recipe_mut().restore(&state);
        restored.map_err(|error| Failure::Call { call: "Recipe::restore", error })?;
        watch.arithmetic()?;
    }
    Ok("as it was".into())
}

/// Says that the run is cancelled from the `patience`-th question on.
struct Impatient {
    patience: usize,
    asked: AtomicUsize,
}

impl Observer for Impatient {
    fn cancelled(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) >= self.patience
    }
}

/// When the run is cancelled, a call ends with its result or with that error: never with neither.
pub(crate) fn a_cancelled_call_says_so(subject: &Subject<'_>) -> Found {
    let (x, dys) = (input(Bf16, 16, 0), output_gradients(Bf16, 16, 0));
    let expected = subject.group()?.step(&x, &dys)?;
    let mut obeyed = 0;
    for patience in [0, 1, 2, 5, 20] {
        let observer = Arc::new(Impatient { patience, asked: AtomicUsize::new(0) });
        let host = host_with(Isa::best(), 2, Order::Ascending, Some(observer));
        match subject.group_on(&host).and_then(|mut layers| layers.step(&x, &dys)) {
            Ok(found) => {
                if let Some(what) = expected.difference(&found) {
                    return Err(Failure::Wrong(format!(
                        "{what} is another when the host says that the run is cancelled, and no error says why: \
                         finish the call, or return ErrorKind::Cancelled"
                    )));
                }
            }
            Err(Failure::Call { error, .. }) if error.kind == ErrorKind::Cancelled => obeyed += 1,
            Err(failure) => {
                return Err(Failure::Wrong(format!("cancelled, but {failure}: return ErrorKind::Cancelled")));
            }
        }
    }
    Ok(if obeyed == 0 { "finishes its calls".into() } else { "stops".into() })
}

/// Windows in each of which memory must grow before it counts as a leak: what grows once is a cache.
const WINDOWS: usize = 4;
/// Rounds of a window, each of every call there is.
const ROUNDS: usize = 300;
/// Recipes of a window.
const RECIPES: usize = 64;
/// On a card there are fewer of both, by this factor: each call is copied there and back.
const FEWER: usize = 5;
/// The least that an allocator gives out for what is never given back.
const BYTES: i64 = 16;

/// Thousands of calls of every kind, and some hundred recipes with their layers, leave no more memory in use.
pub(crate) fn memory_does_not_grow(subject: &Subject<'_>) -> Found {
    // Other checks of other tests may run beside this one, but not this one itself: all of them measure one process.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let host = host(Isa::best(), 1);
    let (x, dys) = (input(Bf16, 16, 0), output_gradients(Bf16, 16, 0));
    let make = || Layers::new(subject.recipe(&host)?, K, vec![weight(0)]);

    let mut layers = make()?;
    let (wide_x, wide_dys) = (input(F32, 16, 0), output_gradients(F32, 16, 0));
    let unfit = Values::normal(Bf16, 16, K + 16, 1.0, 1);
    let fewer = if subject.on_card() { FEWER } else { 1 };
    let (rounds, recipes_made) = (ROUNDS / fewer, RECIPES / fewer);
    let uses = || usage::now(subject.elsewhere.map(Elsewhere::bytes_in_use));
    let calls = steady(rounds, &uses, &mut || {
        layers.telemetry = !layers.telemetry;
        layers.step(&x, &dys[..1])?;
        layers.telemetry = !layers.telemetry;
        layers.step(&wide_x, &wide_dys[..1])?;
        layers.forward(Pass::Eval, &x)?;
        layers.forward(Pass::Recompute, &x)?;
        // Refused: that must cost nothing either.
        let _ = layers.forward(Pass::Eval, &unfit);
        let _ = (layers.counters(0), layers.recipe().describe(), layers.recipe().state());
        let _ = layers.recipe().decide(&facts(0, 1, K, NS[0]));
        Ok(())
    })?;
    ensure!(
        calls < BYTES,
        "every round of calls leaves {calls} bytes behind (a forward in each pass, a backward, a refused forward, and \
         what tells of a recipe): free what a call has allocated"
    );
    let recipes = steady(recipes_made, &uses, &mut || make()?.step(&x, &dys[..1]).map(drop))?;
    ensure!(
        recipes < BYTES,
        "every recipe leaves {recipes} bytes behind when it and its layers are dropped: free what they own"
    );
    Ok(format!("{} calls, {} recipes", 6 * WINDOWS * rounds, WINDOWS * recipes_made))
}

/// The bytes that each of `repeats` adds to what is in use in the window where it adds least. Other threads may
/// allocate meanwhile: three measurements must agree.
fn steady(
    repeats: usize,
    uses: &dyn Fn() -> [u64; USES],
    repeat: &mut dyn FnMut() -> Result<(), Failure>,
) -> Result<i64, Failure> {
    let mut least = i64::MAX;
    for _ in 0..3 {
        let mut window = |repeats| (0..repeats).try_for_each(|_| repeat());
        window(repeats / 4)?;
        let mut grew = [i64::MAX; USES];
        for _ in 0..WINDOWS {
            let before = uses();
            window(repeats)?;
            for ((grew, before), after) in grew.iter_mut().zip(before).zip(uses()) {
                *grew = (*grew).min((after as i64 - before as i64) / repeats as i64);
            }
        }
        least = least.min(grew.into_iter().max().unwrap_or(0));
        if least < BYTES {
            break;
        }
    }
    Ok(least)
}
