//! What a layer says it needs, and what it does with it.

use fp8flow_sdk::{Memory, Pass};

use super::{Found, ensure};
use crate::driver::Failure;
use crate::memory::Guarded;
use crate::subject::{K, NS, Subject, input, output_gradients};
use crate::values::{Activations, Values};

/// More tokens never need less, and asking twice gives the same answer.
pub(crate) fn regions_grow_with_tokens(subject: &Subject<'_>) -> Found {
    let layers = subject.group()?;
    let sizes =
        |m: Memory| [m.shared_saved, m.shared_forward, m.saved, m.forward_scratch, m.backward_scratch];
    for i in 0..layers.len() {
        let layer = layers.layer(i);
        let mut before = layer.memory(0);
        for tokens in [1, 2, 15, 16, 17, 63, 64, 65, 1000] {
            let now = layer.memory(tokens);
            ensure!(now == layer.memory(tokens), "layer {i}, {tokens} tokens: two answers");
            let shrunk = sizes(before).iter().zip(sizes(now)).any(|(before, now)| *before > now);
            ensure!(!shrunk, "layer {i}: {tokens} tokens need less than fewer do: {before:?}, then {now:?}");
            ensure!(now.keep_input == before.keep_input, "layer {i}: `keep_input` depends on the tokens");
            before = now;
        }
    }
    let Memory { shared_saved, saved, keep_input, .. } = layers.layer(0).memory(64);
    Ok(format!("64 tokens keep {} bytes, input {keep_input}", shared_saved + saved))
}

/// The regions lie between guards, which the driver examines after every call.
pub(crate) fn nothing_beside_the_regions_is_touched(subject: &Subject<'_>) -> Found {
    for dtype in [Activations::Bf16, Activations::F32] {
        for tokens in [0, 1, 7, 16, 17, 64] {
            let mut layers = subject.group()?;
            layers.telemetry = tokens % 2 == 1;
            let x = input(dtype, tokens, 0);
            layers.step(&x, &output_gradients(dtype, tokens, 0))?;
            layers.forward(Pass::Eval, &x)?;
            layers.forward(Pass::Recompute, &x)?;
        }
    }
    Ok("6 sizes in 2 types".into())
}

/// Results do not depend on what was in the memory before.
pub(crate) fn what_is_lent_may_hold_anything(subject: &Subject<'_>) -> Found {
    let run = |fill| {
        let mut layers = subject.group()?;
        layers.fill = fill;
        let x = input(Activations::Bf16, 17, 0);
        Ok(layers.step(&x, &output_gradients(Activations::Bf16, 17, 0))?.bits())
    };
    ensure!(run(0x00)? == run(0xff)?, "a step over zeroed memory and over memory full of ones differ");
    Ok("zeros and ones alike".into())
}

/// Tensors that do not fit, and regions that are gone, are errors: neither panics nor results.
pub(crate) fn misuse_is_an_error(subject: &Subject<'_>) -> Found {
    let mut layers = subject.group()?;
    let refused = |what: &str, result: Result<(), Failure>| match result {
        Err(Failure::Call { .. }) => Ok(()),
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
