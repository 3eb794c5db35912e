//! Threads: those of the host, those that calls come from, and those of another recipe.

use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use fp8flow_sdk::kernels::Isa;
use fp8flow_sdk::{Event, Host, Pass};

use super::{Found, ensure};
use crate::driver::Layers;
use crate::failure::Failure;
use crate::host::{Observer, Order, host_with};
use crate::step::Step;
use crate::subject::{Subject, group_of, input, output_gradients};
use crate::values::Activations::Bf16;
use crate::watched::Watch;

const TOKENS: usize = 40;

fn steps(layers: &mut Layers, seeds: std::ops::Range<u64>) -> Result<Vec<Step>, Failure> {
    seeds.map(|i| layers.step(&input(Bf16, TOKENS, i), &output_gradients(Bf16, TOKENS, i))).collect()
}

fn difference(expected: &[Step], found: &[Step]) -> Option<String> {
    expected.iter().zip(found).find_map(|(expected, found)| expected.difference(found))
}

/// Whichever task begins first, and however long others wait, the bits are the same; loops run during calls only.
pub(crate) fn tasks_may_run_in_any_order(subject: &Subject<'_>) -> Found {
    use Order::{Ascending, Restless, Reversed, Shuffled};
    let run = |threads, order| {
        let watch = Arc::new(Watch::default());
        let host = host_with(Isa::best(), threads, order, Some(watch.clone()));
        let found = steps(&mut subject.watched(&host, &watch)?, 0..2)?;
        watch.loops()?;
        Ok::<_, Failure>(found)
    };
    let expected = run(1, Ascending)?;
    let orders = [
        (1, Reversed, "from the last to the first"),
        (2, Reversed, "from the last to the first on 2 threads"),
        (3, Shuffled(1), "in shuffled order on 3 threads"),
        (4, Shuffled(2), "in shuffled order on 4 threads"),
        (4, Restless(3), "with pauses on 4 threads"),
    ];
    for (threads, order, how) in orders {
        if let Some(what) = difference(&expected, &run(threads, order)?) {
            return Err(Failure::Wrong(format!(
                "{what} has other bits when the host runs the tasks of a loop {how}: let each task write what no \
                 other reads or writes, and add up afterwards in a fixed order"
            )));
        }
    }
    Ok(format!("{} orders alike", orders.len()))
}

/// Two hosts whose loops begin together, as far as one has as many as the other.
#[derive(Default)]
struct Meeting {
    loops: Mutex<[u64; 2]>,
    bell: Condvar,
}

/// One side of a meeting.
struct Side(Arc<Meeting>, usize);

impl Side {
    fn arrive(&self, at: impl Fn(u64) -> u64) {
        let Self(meeting, me) = self;
        let mut loops = meeting.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops[*me] = at(loops[*me]);
        meeting.bell.notify_all();
        let mine = loops[*me];
        // The other may have fewer loops, or compute for long.
        let patience = Duration::from_millis(1);
        drop(meeting.bell.wait_timeout_while(loops, patience, |loops| loops[1 - me] < mine));
    }
}

impl Observer for Side {
    fn loop_begins(&self, nested: bool) {
        if !nested {
            // A backend may keep the host it was started with: then both recipes are on one side, which may be done before.
            self.arrive(|loops| loops.saturating_add(1));
        }
    }
}

/// Calls may come from any thread, and two recipes of a backend may be at work at once: nothing changes.
pub(crate) fn recipes_share_nothing(subject: &Subject<'_>) -> Found {
    let expected = [steps(&mut subject.group()?, 0..2)?, steps(&mut subject.group()?, 10..12)?];

    let mut wandering = subject.group()?;
    for (i, expected) in (0..).zip(&expected[0]) {
        let (x, dys) = (input(Bf16, TOKENS, i), output_gradients(Bf16, TOKENS, i));
        let (outputs, saved) = elsewhere(|| {
            let forward = wandering.forward(Pass::Train, &x)?;
            wandering.on(Event::ForwardDone)?;
            Ok(forward)
        })?;
        let gradients = elsewhere(|| wandering.all_gradients(&saved, &x, &dys))?;
        elsewhere(|| wandering.on(Event::BackwardDone))?;
        elsewhere(|| wandering.on(Event::WeightsChanged))?;
        if let Some(what) = expected.difference(&Step { outputs, gradients }) {
            return Err(Failure::Wrong(format!(
                "{what} has other bits when every call comes from another thread: keep nothing in thread-local \
                 variables"
            )));
        }
    }

    let meeting = Arc::new(Meeting::default());
    let host = |me| -> Host {
        let side = Arc::new(Side(meeting.clone(), me));
        host_with(Isa::best(), 2, Order::Ascending, Some(side))
    };
    let mut recipes = subject.recipes(&[host(0), host(1)])?;
    ensure!(recipes.len() == 2, "a backend that was started once makes {} recipes of 2", recipes.len());
    let found = std::thread::scope(|scope| {
        let sides = [(1, 10..12), (0, 0..2)].map(|(me, seeds)| {
            let (recipe, meeting) = (recipes.pop(), meeting.clone());
            scope.spawn(move || {
                let found = recipe
                    .ok_or_else(|| Failure::Wrong("no recipe was made".into()))
                    .and_then(group_of)
                    .and_then(|mut layers| steps(&mut layers, seeds));
                Side(meeting, me).arrive(|_| u64::MAX);
                found
            })
        });
        sides.map(|side| side.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    for (found, expected) in found.into_iter().rev().zip(&expected) {
        if let Some(what) = difference(expected, &found?) {
            return Err(Failure::Wrong(format!(
                "{what} has other bits while another recipe of the same backend is at work on another thread: keep \
                 nothing in static variables, and give every recipe and layer memory of its own"
            )));
        }
    }
    Ok("2 recipes at once".into())
}

fn elsewhere<R: Send>(body: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| scope.spawn(body).join().unwrap_or_else(|panic| resume_unwind(panic)))
}
