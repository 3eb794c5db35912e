//! What must not come with the number of calls: a wrong bit from the thirtieth step on is found by no short check, and
//! is too small for those that measure.

use fp8flow_sdk::{Event, Pass, StateDict};

use super::protocol::TOKENS;
use super::{Found, ensure};
use crate::driver::Layers;
use crate::failure::Failure;
use crate::step::Gradients;
use crate::subject::{Subject, input, output_gradients};
use crate::values::Activations::Bf16;
use crate::values::Values;

/// Steps, each the same, of one recipe.
const ROUNDS: usize = 40;

/// What one recipe computes, step after step, is what one computes that was made at that moment, and has taken over
/// nothing but the state.
pub(crate) fn the_number_of_calls_does_not_matter(subject: &Subject<'_>) -> Found {
    let remembered = subject.remembered_steps()?;
    let mut layers = subject.group()?;
    // Where the state is as before, so is what follows from it.
    let mut known: Option<(StateDict, [Results; 4])> = None;
    for calls in 1..=ROUNDS {
        let state =
            layers.recipe().state().map_err(|error| Failure::Call { call: "Recipe::state", error })?;
        let expected = match &known {
            Some((before, results)) if *before == state => results,
            _ => {
                let results = round(&mut fresh(subject, &state)?)?;
                &known.insert((state, results)).1
            }
        };
        let found = round(&mut layers)?;
        let other = found.iter().zip(expected).find(|(found, expected)| found.bits != expected.bits);
        if let Some((Results { call, .. }, _)) = other {
            return Err(Failure::Wrong(format!(
                "round {calls} of the same calls: {call} has other bits than under a fresh recipe with the same \
                 state: let nothing depend on how often a layer or a recipe was called, unless Recipe::state tells"
            )));
        }
    }
    ensure!(
        subject.first_steps()? == remembered,
        "a fresh recipe computes other bits than one did when this process began: let nothing depend on how many \
         calls or recipes there were before"
    );
    Ok(format!("{ROUNDS} rounds"))
}

/// A recipe that has taken over `state`, and done nothing yet.
fn fresh(subject: &Subject<'_>, state: &StateDict) -> Result<Layers, Failure> {
    let mut layers = subject.group()?;
    let restored = layers.recipe_mut().restore(state);
    restored.map_err(|error| Failure::Call { call: "Recipe::restore", error })?;
    Ok(layers)
}

/// What calls have computed.
struct Results {
    call: &'static str,
    bits: Vec<u8>,
}

/// Every call of a step, and an evaluation before.
fn round(layers: &mut Layers) -> Result<[Results; 4], Failure> {
    let (x, dys) = (input(Bf16, TOKENS, 0), output_gradients(Bf16, TOKENS, 0));
    let of = |call, outputs: &[Values]| Results {
        call,
        bits: outputs.iter().flat_map(|y| y.bytes().to_vec()).collect(),
    };
    let (evaluated, _) = layers.forward(Pass::Eval, &x)?;
    let (outputs, _) = layers.forward(Pass::Train, &x)?;
    layers.on(Event::ForwardDone)?;
    let (again, saved) = layers.forward(Pass::Recompute, &x)?;
    let gradients = layers.all_gradients(&saved, &x, &dys)?;
    layers.on(Event::BackwardDone)?;
    layers.on(Event::WeightsChanged)?;
    Ok([
        of("an evaluation", &evaluated),
        of("a forward", &outputs),
        of("a recomputation", &again),
        Results { call: "a backward", bits: gradients.iter().flat_map(Gradients::bits).collect() },
    ])
}
