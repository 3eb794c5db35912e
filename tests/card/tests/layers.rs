//! One layer on a card has the results of the CPU's: the same codes multiplied, and added in another order.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fp8flow_card_tests::{card, is_real};
use fp8flow_cuda::Card;
use fp8flow_kernels::{Element as _, Isa, bf16};
use fp8flow_model::by_reference::{device_id, tensor_mut, tensor_ref};
use fp8flow_sdk::{Backend, Backward, Counters, Event, Forward, Group, Input, LayerFacts, Options, Pass};
use fp8flow_tensor::{Bytes, DType, Tensor};
use torchao_rowwise::TorchaoRowwise;
use transformer_engine_hybrid::TransformerEngineHybrid;

/// Outputs and inputs of the layer: multiples of 16, and of 128, as blocks need.
const SHAPES: [[usize; 2]; 2] = [[144, 272], [128, 384]];

/// Tokens of the micro-batches: whole tiles, and odd numbers.
const TOKENS: [usize; 4] = [64, 1, 37, 130];

/// From a bf16 to the next, at most, by the number.
const BF16_UNIT: f32 = 1.0 / 128.0;

/// What came of some micro-batches.
struct Results {
    ys: Vec<Vec<f32>>,
    dxs: Vec<Vec<f32>>,
    dw: Vec<f32>,
    counters: Counters,
}

/// Normal enough numbers, some of them large.
fn numbers(n: usize, seed: usize, scale: f32) -> Vec<f32> {
    let noise = |i: usize| ((i * 7919 + seed * 104_729) % 10_007) as f32 / 5003.5 - 1.0;
    (0..n).map(|i| noise(i).powi(3) * scale * if i % 97 == 0 { 8.0 } else { 1.0 }).collect()
}

/// Activations, rounded to bf16.
fn activations(rows: usize, cols: usize, seed: usize, scale: f32) -> Tensor {
    let mut tensor = Tensor::zeros(DType::Bf16, rows, cols);
    let rounded = numbers(rows * cols, seed, scale).into_iter().map(bf16::narrow);
    tensor.bf16_mut().iter_mut().zip(rounded).for_each(|(to, x)| *to = x);
    tensor
}

/// A place for tensors: the CPU, or a card.
#[derive(Clone, Copy)]
struct Place<'a>(Option<&'a Card>);

impl Place<'_> {
    fn put(self, tensor: Tensor) -> Tensor {
        match self.0 {
            Some(card) => tensor.copy_to(card).unwrap(),
            None => tensor,
        }
    }

    fn bytes(self, len: usize) -> Bytes {
        self.0.map_or_else(|| Bytes::zeros(len), |card| Bytes::zeros_on(card, len).unwrap())
    }
}

fn fetched(x: &Tensor) -> Vec<f32> {
    x.here().unwrap().elements().to_f32()
}

/// Micro-batches of a layer under `recipe`, gradients added up and added to `dx`.
fn run<B: Backend>(place: Place<'_>, recipe: &str, [n, k]: [usize; 2]) -> Results {
    let host = fp8flow_testkit::host(Isa::best(), 1);
    let info = B::recipes().into_iter().find(|info| info.name == recipe).unwrap();
    let options = Options(info.options.into_iter().map(|field| (field.name, field.default)).collect());
    let mut recipe = B::start(&host).unwrap().recipe(&host, recipe, &options).unwrap();
    let facts = LayerFacts {
        device: place.0.map(device_id),
        name: "layer".into(),
        in_features: k,
        out_features: n,
        tokens: None,
        block: Some(0),
        group: vec!["layer".into()],
    };
    let mut linear = recipe.linear(&facts).unwrap();
    let weight = place.put(Tensor::from_f32(numbers(n * k, 5, 0.05), n, k));
    let mut dw = place.put(Tensor::from_f32(vec![f32::NAN; n * k], n, k));
    let (mut ys, mut dxs) = (Vec::new(), Vec::new());
    for (step, tokens) in TOKENS.into_iter().enumerate() {
        let memory = linear.memory(tokens);
        let x = place.put(activations(tokens, k, step, 2.0));
        let dy = place.put(activations(tokens, n, step + 50, 1e-3));
        let mut y = place.put(activations(tokens, n, 0, f32::NAN));
        let mut dx = place.put(activations(tokens, k, step + 90, 1e-3));
        let [mut saved, mut forward, mut own] =
            [memory.shared_saved, memory.shared_forward, memory.saved].map(|len| place.bytes(len));
        let mut scratch = place.bytes(memory.forward_scratch.max(memory.backward_scratch));
        linear
            .forward(Forward {
                pass: Pass::Train,
                x: Input::from(tensor_ref(&x)),
                weight: tensor_ref(&weight),
                y: tensor_mut(&mut y),
                group: Group { ready: false, saved: saved.get_mut(), forward: forward.get_mut() },
                saved: own.get_mut(),
                scratch: &mut scratch.get_mut()[..memory.forward_scratch],
                telemetry: true,
            })
            .unwrap();
        recipe.on(Event::ForwardDone).unwrap();
        linear
            .backward(Backward {
                dy: tensor_ref(&dy),
                weight: tensor_ref(&weight),
                x: memory.keep_input.then(|| tensor_ref(&x)),
                dx: Some(tensor_mut(&mut dx)),
                accumulate_dx: step % 2 == 1,
                dw: tensor_mut(&mut dw),
                accumulate_dw: step > 0,
                group_saved: saved.get(),
                saved: own.get(),
                scratch: &mut scratch.get_mut()[..memory.backward_scratch],
                telemetry: true,
            })
            .unwrap();
        recipe.on(Event::BackwardDone).unwrap();
        ys.push(fetched(&y));
        dxs.push(fetched(&dx));
    }
    Results { ys, dxs, dw: fetched(&dw), counters: linear.counters() }
}

/// Fails where an element is further off than `unit` of the largest of its row.
fn close(what: &str, found: &[f32], expected: &[f32], width: usize, unit: f32) {
    for (row, (found, expected)) in found.chunks(width).zip(expected.chunks(width)).enumerate() {
        let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let off = found.iter().zip(expected).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(off <= unit * largest, "{what}, row {row}: off by {off} beside {largest}");
        assert!(largest > 0.0, "{what}, row {row}");
    }
}

fn holds<B: Backend>(card: &Card, recipe: &str, shape: [usize; 2]) {
    let [n, k] = shape;
    let expected = run::<B>(Place(None), recipe, shape);
    let found = run::<B>(Place(Some(card)), recipe, shape);
    for (i, (y, expected)) in found.ys.iter().zip(&expected.ys).enumerate() {
        close(&format!("{recipe}: y {i}"), y, expected, n, BF16_UNIT);
    }
    for (i, (dx, expected)) in found.dxs.iter().zip(&expected.dxs).enumerate() {
        close(&format!("{recipe}: dx {i}"), dx, expected, k, BF16_UNIT);
    }
    // The gradient is f32; what tensor cores keep of a sum of FP8 products is less.
    let unit = if is_real() { BF16_UNIT } else { 1e-5 };
    close(&format!("{recipe}: dW"), &found.dw, &expected.dw, k, unit);
    assert_eq!(found.counters, expected.counters, "{recipe}");
    let again = run::<B>(Place(Some(card)), recipe, shape);
    assert_eq!((found.ys, found.dxs, found.dw), (again.ys, again.dxs, again.dw), "{recipe}: again");
}

#[test]
fn a_layer_of_every_recipe_has_the_results_and_the_counters_of_the_cpus() {
    let Some(card) = card() else { return };
    let [any, blocks] = SHAPES;
    for recipe in ["rowwise", "tensorwise", "rowwise_with_gw_hp"] {
        holds::<TorchaoRowwise>(&card, recipe, any);
    }
    for (recipe, shape) in [("delayed", any), ("current", any), ("blockwise", blocks)] {
        holds::<TransformerEngineHybrid>(&card, recipe, shape);
    }
}
