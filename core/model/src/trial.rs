//! One layer of a recipe at work on a device: what a card makes of it is held to what the CPU does.

use fp8flow_kernels::{bf16, philox::Philox};
use fp8flow_sdk::{Counters, Event, LayerFacts, Pass, Recipe};
use fp8flow_tensor::{Arena, DType, Device, Tensor};

use crate::by_reference::device_id;
use crate::linear::LinearGroup;
use crate::{DecoderError, ParameterKind, ParameterSpec, Parameters};

/// Tokens of the micro-batches: whole tiles, and an odd number.
const TOKENS: [usize; 3] = [64, 37, 64];
/// The most of them.
const MOST: usize = 64;
/// How large a gradient is beside an activation.
const GRADIENTS: f32 = 1e-3;

/// What a layer has made of some micro-batches.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// Outputs of all micro-batches, and of an evaluation.
    pub y: Vec<f32>,
    /// Gradients of their inputs.
    pub dx: Vec<f32>,
    /// The gradient of the weight, added up over them.
    pub dw: Vec<f32>,
    /// What the layer has counted.
    pub counters: Counters,
}

/// Runs a layer of `in_features` and `out_features` under `recipe`, which must be fresh, on `device`: three steps and an
/// evaluation, always of the same numbers. An error if the device or the recipe fails.
pub fn try_layer(
    device: &dyn Device,
    mut recipe: Box<dyn Recipe>,
    [in_features, out_features]: [usize; 2],
) -> Result<Tried, DecoderError> {
    let name = "trial";
    let facts = LayerFacts {
        name: name.into(),
        in_features,
        out_features,
        tokens: Some(MOST),
        block: Some(0),
        group: vec![name.into()],
        device: device.card().map(device_id),
    };
    let shape = vec![out_features, in_features];
    let specs = [ParameterSpec { name: format!("{name}.weight"), shape, kind: ParameterKind::Matrix }];
    let mut arena = Arena::of(device);
    let mut group = LinearGroup::new(&[facts], &specs, DType::Bf16, &mut arena, |facts| {
        recipe.linear(facts).map(Some).map_err(|source| DecoderError::layer(name, source))
    })?;
    let mut kept = LinearGroup::kept(&[&group], MOST, &mut arena);
    let mut loan = group.loan(MOST).take(&mut arena);
    arena.check()?;

    let mut weights = Parameters::zeros_on(device, &specs)?;
    let mut gradients = Parameters::zeros_on(device, &specs)?;
    let mut tried = Tried { y: Vec::new(), dx: Vec::new(), dw: Vec::new(), counters: Counters::default() };
    for (step, tokens) in TOKENS.into_iter().enumerate() {
        let stream = 3 * step as u64;
        weights.tensors_mut()[0].set_f32(&numbers(stream, out_features * in_features, 0.05))?;
        recipe.on(Event::WeightsChanged)?;
        group.weights_changed(device, &weights);
        let x = activations(device, stream + 1, tokens, in_features, 1.0)?;
        let dy = activations(device, stream + 2, tokens, out_features, GRADIENTS)?;
        let mut y = activations(device, stream + 1, tokens, out_features, f32::NAN)?;
        let mut dx = activations(device, stream + 2, tokens, in_features, f32::NAN)?;
        group.forward(device, &weights, Pass::Train, false, &x, &mut [&mut y], &mut kept, &mut loan)?;
        recipe.on(Event::ForwardDone)?;
        let (input, accumulate) = (group.keeps_input(tokens).then_some(&x), step > 0);
        group.backward(
            device,
            &weights,
            false,
            input,
            &[&dy],
            &mut dx,
            &mut gradients,
            accumulate,
            &kept,
            &mut loan,
        )?;
        recipe.on(Event::BackwardDone)?;
        fetch(&y, &mut tried.y)?;
        fetch(&dx, &mut tried.dx)?;
    }
    // An evaluation is cast in another way: nothing of it is kept.
    let stream = 3 * TOKENS.len() as u64;
    let x = activations(device, stream, MOST, in_features, 1.0)?;
    let mut y = activations(device, stream, MOST, out_features, f32::NAN)?;
    group.forward(device, &weights, Pass::Eval, false, &x, &mut [&mut y], &mut kept, &mut loan)?;
    fetch(&y, &mut tried.y)?;
    fetch(&gradients.tensors()[0], &mut tried.dw)?;
    device.settle()?;
    let counters = group.counters().map(|(_, counters)| counters).next();
    tried.counters = counters.unwrap_or_default();
    recipe.healthy()?;
    Ok(tried)
}

/// Normal numbers with one in a hundred that is larger.
fn numbers(stream: u64, len: usize, scale: f32) -> Vec<f32> {
    let philox = Philox::new(1, "trial");
    let outlier = |i: usize| if i.is_multiple_of(97) { 8.0 } else { 1.0 };
    (0..len).map(|i| philox.normal_pair(stream, i as u64)[0] * scale * outlier(i)).collect()
}

fn activations(
    device: &dyn Device,
    stream: u64,
    rows: usize,
    cols: usize,
    scale: f32,
) -> Result<Tensor, DecoderError> {
    let mut tensor = Tensor::zeros(DType::Bf16, rows, cols);
    let numbers = numbers(stream, rows * cols, scale);
    tensor.bf16_mut().iter_mut().zip(numbers).for_each(|(to, x)| *to = bf16::from_f32(x));
    Ok(match device.card() {
        Some(card) => tensor.copy_to(card)?,
        None => tensor,
    })
}

fn fetch(tensor: &Tensor, into: &mut Vec<f32>) -> Result<(), DecoderError> {
    into.extend(tensor.here()?.elements().to_f32());
    Ok(())
}
