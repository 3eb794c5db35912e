//! Passes, groups, events, state and counters.

use fp8flow_sdk::kernels::Isa;
use fp8flow_sdk::{Counters, Pass};

use super::{Found, ensure};
use crate::driver::Layers;
use crate::failure::Failure;
use crate::host::host;
use crate::step::{Gradients, Step};
use crate::subject::{Subject, input, output_gradients};
use crate::values::Activations::Bf16;

/// Tokens of a micro-batch, not a multiple of anything.
pub(crate) const TOKENS: usize = 19;

/// Step number `i`, on data of its own.
pub(crate) fn step(layers: &mut Layers, i: u64) -> Result<Step, Failure> {
    layers.step(&input(Bf16, TOKENS, i), &output_gradients(Bf16, TOKENS, i))
}

/// Any number of threads, any instruction set, again and again: the same bits, over two steps.
pub(crate) fn bits_depend_on_nothing_else(subject: &Subject<'_>) -> Found {
    let run = |isa, threads| -> Result<[Step; 2], Failure> {
        let mut layers = subject.group_on(&host(isa, threads))?;
        Ok([step(&mut layers, 0)?, step(&mut layers, 1)?])
    };
    let expected = run(Isa::best(), 1)?;
    let mut runs = 1;
    for isa in Isa::available() {
        for threads in [1, 2, 3] {
            let found = run(isa, threads)?;
            if let Some(what) = expected.iter().zip(&found).find_map(|(a, b)| a.difference(b)) {
                return Err(Failure::Wrong(format!(
                    "{what} has other bits on {} with {threads} threads than on {} with one: fix the order of every \
                     sum by shapes alone",
                    isa.name(),
                    Isa::best().name()
                )));
            }
            runs += 1;
        }
    }
    Ok(format!("{runs} runs alike"))
}

/// Layers that share an input give the bits they give alone.
pub(crate) fn a_shared_input_changes_no_bit(subject: &Subject<'_>) -> Found {
    let shared = step(&mut subject.group()?, 0)?;
    let x = input(Bf16, TOKENS, 0);
    for (i, dy) in output_gradients(Bf16, TOKENS, 0).into_iter().enumerate() {
        let alone = subject.alone(i)?.step(&x, &[dy])?;
        let of_group =
            Step { outputs: vec![shared.outputs[i].clone()], gradients: vec![shared.gradients[i].clone()] };
        ensure!(
            of_group.bits() == alone.bits(),
            "layer {i} of the group gives other bits than the same layer alone: where `Group::ready` is set, read the shared \
             regions and leave them as they are"
        );
    }
    Ok(format!("{} layers", shared.outputs.len()))
}

/// A recomputed forward gives the bits of the first, and leaves the steps after it as they were.
pub(crate) fn recompute_repeats_the_forward(subject: &Subject<'_>) -> Found {
    let (mut plain, mut repeated) = (subject.group()?, subject.group()?);
    for i in 0..3 {
        let (x, dys) = (input(Bf16, TOKENS, i), output_gradients(Bf16, TOKENS, i));
        let expected = plain.step(&x, &dys)?;
        let (outputs, _) = repeated.forward(Pass::Train, &x)?;
        repeated.on(fp8flow_sdk::Event::ForwardDone)?;
        let (again, saved) = repeated.forward(Pass::Recompute, &x)?;
        let same = outputs.iter().zip(&again).all(|(first, second)| first.bytes() == second.bytes());
        ensure!(
            same,
            "step {i}: the recomputed outputs are others than the first: use the scales that the training pass has used"
        );
        let gradients = repeated.all_gradients(&saved, &x, &dys)?;
        repeated.on(fp8flow_sdk::Event::BackwardDone)?;
        repeated.on(fp8flow_sdk::Event::WeightsChanged)?;
        let found = Step { outputs: again, gradients };
        ensure!(
            found.bits() == expected.bits(),
            "step {i}: with recomputation the results are others: record nothing in Pass::Recompute"
        );
    }
    same_state(&plain, &repeated, "recomputation")?;
    Ok("3 steps".into())
}

/// Evaluations between, and within, the steps change neither state nor any later bit.
pub(crate) fn evaluation_leaves_no_trace(subject: &Subject<'_>) -> Found {
    let (mut plain, mut evaluated) = (subject.group()?, subject.group()?);
    for i in 0..3 {
        // Ten times larger, so that an amax taken from it would show.
        let mut other = input(Bf16, 16, 50 + i).to_f32();
        for x in &mut other {
            *x *= 10.0;
        }
        let other = crate::values::Values::new(Bf16, 16, crate::subject::K, &other);
        let expected = step(&mut plain, i)?;
        evaluated.forward(Pass::Eval, &other)?;
        let found = step(&mut evaluated, i)?;
        evaluated.forward(Pass::Eval, &other)?;
        ensure!(
            found.bits() == expected.bits(),
            "step {i}: after an evaluation the results are others: record nothing in Pass::Eval"
        );
        same_state(&plain, &evaluated, "an evaluation")?;
    }
    Ok("3 steps".into())
}

fn same_state(a: &Layers, b: &Layers, what: &str) -> Result<(), Failure> {
    let state = |layers: &Layers| {
        layers.recipe().state().map_err(|error| Failure::Call { call: "Recipe::state", error })
    };
    ensure!(
        state(a)? == state(b)?,
        "{what} changed the recipe's state: only Pass::Train and events may, and they the same"
    );
    Ok(())
}

/// Whether calls ask for telemetry changes no bit, and no state.
pub(crate) fn telemetry_changes_no_bit(subject: &Subject<'_>) -> Found {
    let (mut plain, mut watched) = (subject.group()?, subject.group()?);
    for i in 0..3 {
        // Now and then, as the engine does.
        watched.telemetry = i != 1;
        let (expected, found) = (step(&mut plain, i)?, step(&mut watched, i)?);
        if let Some(what) = expected.difference(&found) {
            return Err(Failure::Wrong(format!(
                "step {i}: {what} has other bits where calls ask for telemetry: count, and compute the same"
            )));
        }
    }
    same_state(&plain, &watched, "telemetry")?;
    Ok("3 steps".into())
}

/// FP8 GEMMs are counted when they run and only then; elements only with telemetry.
pub(crate) fn counters_tell_what_ran(subject: &Subject<'_>) -> Found {
    let mut layers = subject.group()?;
    let (x, dys) = (input(Bf16, TOKENS, 0), output_gradients(Bf16, TOKENS, 0));
    let gemms = |layers: &Layers, i| {
        let Counters { fprop, dgrad, wgrad, .. } = layers.counters(i);
        [fprop, dgrad, wgrad]
    };
    // Without tokens nothing is multiplied.
    layers.step(&input(Bf16, 0, 0), &output_gradients(Bf16, 0, 0))?;
    layers.step(&x, &dys)?;
    layers.forward(Pass::Eval, &x)?;
    layers.forward(Pass::Recompute, &x)?;
    let (_, saved) = layers.forward(Pass::Train, &x)?;
    for (i, dy) in dys.iter().enumerate() {
        let mut only_dw = Gradients {
            dx: None,
            dw: vec![0.0; layers.weight(i).len()],
            accumulate_dx: false,
            accumulate_dw: true,
        };
        layers.backward(i, &saved, &x, dy, &mut only_dw)?;
        let [fprop, dgrad, wgrad] = layers.decision(i).fp8_gemms.map(u64::from);
        // Four forwards; two backwards, of which one needed no gradient of the input.
        let (expected, found) = ([4 * fprop, dgrad, 2 * wgrad], gemms(&layers, i));
        ensure!(
            found == expected,
            "layer {i}: counted {found:?} FP8 GEMMs (fprop, dgrad, wgrad), {expected:?} should have run: count each GEMM \
             where it runs (recomputed and evaluated ones too, none without tokens), and decide what runs"
        );
        let again = gemms(&layers, i);
        ensure!(
            again == found,
            "layer {i}: counted {found:?} FP8 GEMMs, and {again:?} when asked again: counters are totals since the \
             layer was made"
        );
        let cast = layers.counters(i).cast;
        ensure!(
            cast == [0; 3],
            "layer {i}: counted {cast:?} elements without telemetry: look at `telemetry` of the call"
        );
    }
    layers.telemetry = true;
    layers.step(&x, &dys)?;
    layers.step(&x, &dys)?;
    let cast = layers.counters(0).cast;
    ensure!(
        cast.iter().any(|&elements| elements > 0),
        "no element was counted with telemetry: add to Counters::cast"
    );
    Ok(format!("{:?} a micro-batch", layers.decision(0).fp8_gemms))
}
