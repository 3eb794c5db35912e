//! Walks through the protocol: legal ones, which change no bit, and illegal ones, which do no harm.

use fp8flow_sdk::kernels::philox::Philox;
use fp8flow_sdk::{ErrorKind, Event, Memory, Pass};

use super::numerics::{FP8, measure};
use super::{Found, ensure};
use crate::driver::Layers;
use crate::failure::Failure;
use crate::memory::Guarded;
use crate::step::{Gradients, Saved};
use crate::subject::{K, NS, Subject, input, output_gradients};
use crate::values::Activations::{Bf16, F32};
use crate::values::{Values, normal};

/// Walks, each with a seed of its own.
const WALKS: u64 = 3;

/// What the bits may depend on is the same in both walks of a seed; evaluations, recomputations and events that
/// concern nothing are in one of them only.
pub(crate) fn every_legal_order_gives_the_same_bits(subject: &Subject<'_>) -> Found {
    let mut calls = 0;
    for seed in 0..WALKS {
        let (plain, winding) = (walk(subject, seed, false)?, walk(subject, seed, true)?);
        ensure!(
            plain.bits == winding.bits,
            "walk {seed}: {}: after {} the results are others than without evaluations and recomputations in between",
            first_difference(&plain, &winding),
            winding.path.join(", ")
        );
        calls += winding.path.len();
    }
    Ok(format!("{WALKS} walks of {} stations", calls / WALKS as usize))
}

/// What a walk computed, and where it went.
#[derive(Default)]
struct Walk {
    bits: Vec<(String, Vec<u8>)>,
    path: Vec<String>,
}

fn first_difference<'a>(a: &'a Walk, b: &Walk) -> &'a str {
    let pair = a.bits.iter().zip(&b.bits).find(|(a, b)| a != b);
    pair.map_or("the number of results", |((name, _), _)| name)
}

fn walk(subject: &Subject<'_>, seed: u64, winding: bool) -> Result<Walk, Failure> {
    let mut layers = subject.group()?;
    let mut walk = Walk::default();
    let (dice, mut thrown) = (Philox::new(seed, "walk"), 0);
    // Both walks throw alike.
    let mut throw = |sides: u64| {
        thrown += 1;
        dice.below(0, thrown, sides)
    };
    let evaluate = |layers: &mut Layers, walk: &mut Walk, which: u64| -> Result<(), Failure> {
        if winding && which < 3 {
            // Other sizes and larger numbers than in training, so that whatever stays of them shows.
            let tokens = [3, 16, 70][which as usize];
            layers.forward(Pass::Eval, &Values::normal(Bf16, tokens, K, 10.0, seed + which))?;
            walk.path.push(format!("eval of {tokens}"));
        }
        Ok(())
    };
    if winding {
        layers.on(Event::WeightsChanged)?;
    }
    for step in 0..4 {
        for batch in 0..=throw(3) {
            let tokens = [5, 16, 19][throw(3) as usize];
            let (x, dys) =
                (input(Bf16, tokens, 40 + 10 * step + batch), output_gradients(Bf16, tokens, step));
            evaluate(&mut layers, &mut walk, throw(6))?;
            let (outputs, mut saved) = layers.forward(Pass::Train, &x)?;
            walk.path.push(format!("forward of {tokens}"));
            for (i, y) in outputs.iter().enumerate() {
                walk.bits.push((format!("y of layer {i} in step {step}.{batch}"), y.bytes().to_vec()));
            }
            evaluate(&mut layers, &mut walk, throw(6))?;
            layers.on(Event::ForwardDone)?;
            evaluate(&mut layers, &mut walk, throw(6))?;
            if throw(2) == 0 && winding {
                saved = layers.forward(Pass::Recompute, &x)?.1;
                walk.path.push("recompute".into());
            }
            for (i, dy) in dys.iter().enumerate().rev() {
                evaluate(&mut layers, &mut walk, throw(8))?;
                // A layer whose output nobody read has no backward; one whose input nobody trains, no dx.
                match throw(5) {
                    0 => continue,
                    1 => {
                        let dw = vec![0.0; layers.weight(i).len()];
                        let mut only = Gradients { dx: None, dw, accumulate_dx: false, accumulate_dw: true };
                        layers.backward(i, &saved, &x, dy, &mut only)?;
                        walk.bits.push((format!("dW of layer {i} in step {step}.{batch}"), only.bits()));
                    }
                    _ => {
                        let both = layers.gradients(i, &saved, &x, dy)?;
                        walk.bits
                            .push((format!("gradients of layer {i} in step {step}.{batch}"), both.bits()));
                    }
                }
                walk.path.push(format!("backward of layer {i}"));
            }
            layers.on(Event::BackwardDone)?;
            evaluate(&mut layers, &mut walk, throw(6))?;
        }
        for (i, n) in NS.into_iter().enumerate() {
            let change = normal(n * K, 1e-3, 10 * step + i as u64);
            layers.weight_mut(i).iter_mut().zip(change).for_each(|(w, change)| *w += change);
        }
        for _ in 0..=u64::from(winding) * throw(2) {
            layers.on(Event::WeightsChanged)?;
        }
        walk.path.push("optimizer".into());
    }
    Ok(walk)
}

fn state_is_empty(layers: &Layers) -> Result<bool, Failure> {
    let state = layers.recipe().state();
    Ok(state.map_err(|error| Failure::Call { call: "Recipe::state", error })?.0.is_empty())
}

/// Something to do with layers.
type Play<'a> = Box<dyn Fn(&mut Layers) -> Result<(), Failure> + 'a>;

/// Calls that the engine never makes: errors, or nothing; and afterwards the recipe works.
pub(crate) fn calls_out_of_order_do_no_harm(subject: &Subject<'_>) -> Found {
    use Event::{BackwardDone, ForwardDone, WeightsChanged};
    let (x, dys) = (input(F32, 16, 0), output_gradients(F32, 16, 0));
    let train = |layers: &mut Layers| layers.forward(Pass::Train, &x);
    let events = |events: &'static [Event]| -> Play<'_> {
        Box::new(|layers| events.iter().try_for_each(|&event| layers.on(event)))
    };
    let plays: [(&str, Play<'_>); 8] = [
        ("events before any forward", events(&[BackwardDone, ForwardDone, WeightsChanged, BackwardDone])),
        (
            "every event twice",
            events(&[ForwardDone, ForwardDone, BackwardDone, BackwardDone, WeightsChanged]),
        ),
        (
            "a backward before any forward",
            Box::new(|layers| {
                let Memory { shared_saved, saved, .. } = layers.layer(0).memory(16);
                let nothing =
                    Saved { group: Guarded::new(shared_saved, 0), layers: vec![Guarded::new(saved, 0)] };
                layers.gradients(0, &nothing, &x, &dys[0]).map(drop)
            }),
        ),
        (
            "a recomputation before any forward",
            Box::new(|layers| layers.forward(Pass::Recompute, &x).map(drop)),
        ),
        (
            "two forwards in a row",
            Box::new(|layers| {
                train(layers)?;
                train(layers).map(drop)
            }),
        ),
        (
            "two backwards of one forward",
            Box::new(|layers| {
                let (_, saved) = train(layers)?;
                layers.on(ForwardDone)?;
                layers.gradients(0, &saved, &x, &dys[0])?;
                layers.gradients(0, &saved, &x, &dys[0]).map(drop)
            }),
        ),
        (
            "a backward after its end",
            Box::new(|layers| {
                let (_, saved) = train(layers)?;
                layers.on(BackwardDone)?;
                layers.on(WeightsChanged)?;
                layers.gradients(1, &saved, &x, &dys[1]).map(drop)
            }),
        ),
        (
            "an optimizer step within a backward",
            Box::new(|layers| {
                let (_, saved) = train(layers)?;
                layers.gradients(1, &saved, &x, &dys[1])?;
                layers.on(WeightsChanged)?;
                layers.gradients(0, &saved, &x, &dys[0]).map(drop)
            }),
        ),
    ];
    let mut refused = 0;
    for (name, play) in &plays {
        let mut layers = subject.group()?;
        match play(&mut layers) {
            Ok(()) => {}
            Err(Failure::Call { error, .. }) if error.kind != ErrorKind::Panicked => refused += 1,
            Err(failure) => return Err(Failure::Wrong(format!("{name}: {failure}"))),
        }
        let stateless = state_is_empty(&layers)?;
        let (first, of_fresh) = (layers.step(&x, &dys)?, subject.group()?.step(&x, &dys)?);
        if let Some(what) = of_fresh.difference(&first).filter(|_| stateless) {
            return Err(Failure::Wrong(format!(
                "after {name}, {what} is another than that of a fresh recipe, although the recipe has no state: \
                 keep nothing of a call but what Recipe::state gives away"
            )));
        }
        layers.step(&x, &dys)?;
        let step = layers.step(&x, &dys)?;
        for (i, dy) in dys.iter().enumerate() {
            let worst = measure(&layers, i, &step, &x, dy).into_iter().fold(f64::INFINITY, f64::min);
            ensure!(
                worst >= FP8.0,
                "three steps after {name}, layer {i} is {worst:.1} dB from the exact products: return \
                 ErrorKind::Protocol and leave the recipe as it was"
            );
        }
    }
    Ok(format!("{} of {} refused", refused, plays.len()))
}
