//! What a layer says it needs, and what it does with it.

use fp8flow_sdk::{ErrorKind, Event, Memory, Pass, Precision};

use super::numerics::{FP8, measure};
use super::{Found, ensure};
use crate::driver::{GARBAGE, Layers, facts};
use crate::failure::Failure;
use crate::layout::Layout;
use crate::memory::{Fence, Guarded};
use crate::step::Step;
use crate::subject::{K, NS, Subject, here, input, output_gradients};
use crate::values::{Activations, Values};

/// More tokens never need less, and asking twice gives the same answer.
pub(crate) fn regions_grow_with_tokens(subject: &Subject<'_>) -> Found {
    let layers = subject.group()?;
    for i in 0..layers.len() {
        let mut before = memory(&layers, i, 0)?;
        for tokens in [1, 2, 15, 16, 17, 63, 64, 65, 1000] {
            let now = memory(&layers, i, tokens)?;
            ensure!(
                now == memory(&layers, i, tokens)?,
                "layer {i}, {tokens} tokens: two answers; let them depend on nothing but the shape"
            );
            let shrunk = sizes(before).iter().zip(sizes(now)).any(|(before, now)| *before > now);
            ensure!(
                !shrunk,
                "layer {i}: {tokens} tokens need less than fewer do: {before:?}, then {now:?}; ask for as much as the \
                 largest number so far may need"
            );
            ensure!(
                now.keep_input == before.keep_input,
                "layer {i}: `keep_input` depends on the tokens: ask for it always or never"
            );
            before = now;
        }
    }
    let Memory { shared_saved, saved, keep_input, .. } = layers.layer(0).memory(64);
    Ok(format!("64 tokens keep {} bytes, input {keep_input}", shared_saved + saved))
}

/// What layer `i` asks for; an error if the call failed, which its signature cannot say.
fn memory(layers: &Layers, i: usize, tokens: usize) -> Result<Memory, Failure> {
    let memory = layers.layer(i).memory(tokens);
    layers.recipe().healthy().map_err(|error| Failure::Call { call: "Linear::memory", error })?;
    Ok(memory)
}

/// Any number of tokens and features is answered, none is multiplied out unchecked.
pub(crate) fn huge_layers_are_only_numbers(subject: &Subject<'_>) -> Found {
    let layers = subject.group()?;
    let mut before = 0;
    for tokens in [0, 1 << 20, 1 << 30, 1 << 40] {
        let memory = memory(&layers, 0, tokens)?;
        let asked = sizes(memory).into_iter().try_fold(0_usize, usize::checked_add);
        let Some(asked) = asked else {
            return Err(Failure::Wrong(format!(
                "{tokens} tokens need more bytes than can be counted: {memory:?}"
            )));
        };
        ensure!(
            asked >= before,
            "{tokens} tokens need {asked} bytes, fewer did {before}: a product has overflowed"
        );
        let most = (tokens + (1 << 20)).saturating_mul(64 * (K + NS[0]));
        ensure!(asked <= most, "{tokens} tokens need {asked} bytes: more than 64 for each number of x and y");
        before = asked;
    }
    let recipe = subject.recipe(&here())?;
    for (n, k) in [(0, 0), (0, K), (NS[0], 0), (1 << 40, K), (NS[0], 1 << 40), (1 << 40, 1 << 40)] {
        let decision = recipe.decide(&facts(0, 1, k, n));
        ensure!(!decision.reason.is_empty(), "{n}×{k}: no reason is given");
        let fp8 = decision.precision == Precision::Fp8;
        ensure!(
            !fp8 || n > 0 && k > 0,
            "{n}×{k} is decided as FP8, but has no weight: decide it as high precision"
        );
    }
    recipe.healthy().map_err(|error| Failure::Call { call: "Recipe::decide", error })?;
    Ok(format!("{before} bytes for 2^40 tokens"))
}

fn sizes(m: Memory) -> [usize; 5] {
    [m.shared_saved, m.shared_forward, m.saved, m.forward_scratch, m.backward_scratch]
}

/// The regions lie between guard bytes, which the driver examines after every call.
pub(crate) fn nothing_beside_the_regions_is_touched(subject: &Subject<'_>) -> Found {
    every_size(subject, Fence::Bytes)
}

/// The regions and all tensors lie between pages that cannot be touched: whoever does ends the process.
pub(crate) fn nothing_far_from_the_regions_is_touched(subject: &Subject<'_>) -> Found {
    every_size(subject, Fence::Pages)
}

fn every_size(subject: &Subject<'_>, fence: Fence) -> Found {
    const SIZES: [usize; 9] = [0, 1, 7, 16, 17, 18, 33, 64, 130];
    let place = |values: &Values| values.copied_to(fence, Layout::Dense);
    for dtype in [Activations::Bf16, Activations::F32] {
        for tokens in SIZES {
            let mut layers = subject.group()?;
            layers.telemetry = tokens % 2 == 1;
            layers.fence = fence;
            layers.move_weights(fence, Layout::Dense);
            let x = place(&input(dtype, tokens, 0));
            let dys: Vec<_> = output_gradients(dtype, tokens, 0).iter().map(place).collect();
            layers.step(&x, &dys)?;
            layers.forward(Pass::Eval, &x)?;
            layers.forward(Pass::Recompute, &x)?;
        }
    }
    Ok(format!("{} sizes in 2 types", SIZES.len()))
}

/// Whatever was lent to forward has moved elsewhere when backward comes, and what was there is garbage.
pub(crate) fn nothing_is_held_beyond_a_call(subject: &Subject<'_>) -> Found {
    const TOKENS: usize = 23;
    let (mut plain, mut moved) = (subject.group()?, subject.group()?);
    moved.retired = Some(Vec::new());
    // On a card nothing ever stays where it was: then only exact results tell, once scales have had time to fit.
    let steps = if subject.on_card() { 3 } else { 2 };
    for i in 0..steps {
        let (mut x, dys) =
            (input(Activations::F32, TOKENS, i), output_gradients(Activations::F32, TOKENS, i));
        let expected = plain.step(&x, &dys)?;
        let (mut outputs, mut saved) = moved.forward(Pass::Train, &x)?;
        moved.on(Event::ForwardDone)?;
        moved.move_weights(Fence::Bytes, Layout::Dense);
        let (x_now, saved_now, outputs_now) = (x.clone(), saved.clone(), outputs.clone());
        let left = saved.layers.iter_mut().chain([&mut saved.group]).map(Guarded::bytes_mut);
        left.for_each(|bytes| bytes.fill(GARBAGE));
        outputs.iter_mut().chain([&mut x]).for_each(|values| values.bytes_mut().fill(GARBAGE));
        let gradients = moved.all_gradients(&saved_now, &x_now, &dys)?;
        moved.on(Event::BackwardDone)?;
        moved.on(Event::WeightsChanged)?;
        let found = Step { outputs: outputs_now, gradients };
        let what = expected.difference(&found).or_else(|| {
            let last = subject.on_card() && i + 1 == steps;
            dys.iter().enumerate().filter(|_| last).find_map(|(layer, dy)| {
                let db = measure(&moved, layer, &found, &x_now, dy);
                let wrong =
                    db.into_iter().zip(["y", "dx", "dW"]).find(|(db, _)| db.is_nan() || *db < FP8.0)?;
                Some(format!("{} of layer {layer}", wrong.1))
            })
        });
        if let Some(what) = what {
            return Err(Failure::Wrong(format!(
                "step {i}: {what} is another when the tensors have moved between forward and backward: keep no \
                 address beyond a call, but what is needed later in `saved`, or ask for `Memory::keep_input`"
            )));
        }
    }
    Ok(format!("{steps} steps"))
}

/// Results do not depend on what was in the memory before.
pub(crate) fn what_is_lent_may_hold_anything(subject: &Subject<'_>) -> Found {
    let run = |fill| {
        let mut layers = subject.group()?;
        layers.fill = fill;
        let x = input(Activations::Bf16, 21, 0);
        layers.step(&x, &output_gradients(Activations::Bf16, 21, 0))
    };
    if let Some(what) = run(0x00)?.difference(&run(0xff)?) {
        return Err(Failure::Wrong(format!(
            "{what} is another over memory full of ones than over zeroed memory: write every byte that is read later"
        )));
    }
    Ok("zeros and ones alike".into())
}

/// Tensors that do not fit, and regions that are gone, are errors: neither panics nor results.
pub(crate) fn misuse_is_an_error(subject: &Subject<'_>) -> Found {
    let mut layers = subject.group()?;
    let refused = |what: &str, result: Result<(), Failure>| match result {
        Err(Failure::Call { error, .. }) if error.kind != ErrorKind::Panicked => Ok(()),
        other => Err(Failure::Wrong(format!("{what} should be an error, but gave {other:?}"))),
    };
    let wide = Values::normal(Activations::Bf16, 16, K + 16, 1.0, 1);
    refused("an input with too many columns", layers.forward(Pass::Train, &wide).map(|_| ()))?;

    let (x, dys) = (input(Activations::Bf16, 16, 0), output_gradients(Activations::Bf16, 16, 0));
    let (_, saved) = layers.forward(Pass::Train, &x)?;
    let narrow = Values::normal(Activations::Bf16, 16, NS[0] - 16, 1.0, 1);
    let result = layers.gradients(0, &saved, &x, &narrow).map(|_| ());
    refused("a gradient with too few columns", result)?;
    let result = layers.gradients(0, &saved, &input(Activations::F32, 16, 0), &dys[0]).map(|_| ());
    refused("a gradient of another type than the input's", result)?;

    let Memory { shared_saved, saved: own, .. } = layers.layer(0).memory(16);
    if shared_saved + own > 0 {
        let mut lost = saved;
        lost.group = Guarded::new(0, 0);
        lost.layers[0] = Guarded::new(0, 0);
        refused("a backward without what forward kept", layers.gradients(0, &lost, &x, &dys[0]).map(|_| ()))?;
    }
    Ok("refused".into())
}
