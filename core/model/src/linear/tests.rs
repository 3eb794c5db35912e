//! Layers of one input under several recipes: each computes as if the others were not there.

use std::sync::Arc;

use fp8flow_kernels::{Isa, Serial};
use fp8flow_sdk::{Backend as _, Options};
use fp8flow_tensor::CpuDevice;
use torchao_rowwise::TorchaoRowwise;

use super::*;
use crate::{ModelConfig, initialise, linear_layers, parameter_specs};

const TOKENS: usize = 37;
const RECIPES: [&str; 3] = ["rowwise", "tensorwise", "rowwise_with_gw_hp"];

fn config() -> ModelConfig {
    let text = r#"{"model_type": "llama", "vocab_size": 48, "hidden_size": 64, "intermediate_size": 48,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu"}"#;
    ModelConfig::from_json(text, "config.json".as_ref()).unwrap()
}

/// Numbers that differ much in size, so that no two recipes round alike.
fn tensor(rows: usize, cols: usize, seed: usize) -> Tensor {
    let mut tensor = Tensor::zeros(DType::Bf16, rows, cols);
    let element = |i: usize| {
        let noise = ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0;
        half::bf16::from_f32(noise * ((i + seed) % 11) as f32)
    };
    tensor.bf16_mut().iter_mut().enumerate().for_each(|(i, x)| *x = element(i));
    tensor
}

/// Outputs and weight gradients of q, k and v, and the input's gradient.
#[derive(Debug, PartialEq)]
struct Step {
    y: Vec<Vec<u32>>,
    dw: Vec<Vec<f32>>,
    dx: Vec<u32>,
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let elements = tensor.elements();
    (0..elements.len()).map(|i| elements.get(i).to_bits()).collect()
}

/// One step in which q, k and v run under the recipes of these numbers, or in high precision; the output's gradient is
/// zero for all but those in `live`.
fn step(assigned: [Option<usize>; 3], live: [bool; 3], pass: Pass) -> Step {
    let config = config();
    let specs = parameter_specs(&config);
    let parameters = initialise(&config, 5, &Serial);
    let mut gradients = Parameters::zeros(&specs);
    let device = CpuDevice::new(Isa::best(), Arc::new(Serial));
    let host = fp8flow_testkit::host(Isa::best(), 1);
    let mut recipes = RECIPES.map(|name| {
        let info = TorchaoRowwise::recipes().into_iter().find(|info| info.name == name).unwrap();
        let options = info.options.iter().map(|option| (option.name.clone(), option.default.clone()));
        TorchaoRowwise.recipe(&host, name, &Options(options.collect())).unwrap()
    });
    let mut facts = linear_layers(&config, Some(TOKENS));
    facts.truncate(3);
    let names: Vec<String> = facts.iter().map(|layer| layer.name.clone()).collect();
    for (i, layer) in facts.iter_mut().enumerate() {
        let same = |j: &usize| assigned[i].is_some() && assigned[*j] == assigned[i];
        layer.group = (0..3).filter(same).map(|j| names[j].clone()).collect();
    }
    let of = |layer: &LayerFacts| names.iter().position(|name| *name == layer.name).and_then(|i| assigned[i]);
    let mut arena = Arena::allocate();
    let mut group = LinearGroup::new(&facts, &specs, DType::Bf16, &mut arena, |layer| {
        of(layer)
            .map(|recipe| {
                recipes[recipe].linear(layer).map_err(|source| DecoderError::layer(&layer.name, source))
            })
            .transpose()
    })
    .unwrap();
    group.weights_changed(&device, &parameters);
    for recipe in &mut recipes {
        recipe.on(fp8flow_sdk::Event::WeightsChanged).unwrap();
    }

    let (mut kept, mut loan) =
        (LinearGroup::kept(&[&group], TOKENS, &mut arena), group.loan(TOKENS).take(&mut arena));
    let x = tensor(TOKENS, 64, 1);
    let mut y = [64, 32, 32].map(|n| Tensor::zeros(DType::Bf16, TOKENS, n));
    let passes = if pass == Pass::Train { vec![Pass::Train] } else { vec![Pass::Train, pass] };
    for pass in passes {
        let mut outputs: Vec<&mut Tensor> = y.iter_mut().collect();
        group.forward(&device, &parameters, pass, false, &x, &mut outputs, &mut kept, &mut loan).unwrap();
    }
    let mut dys = [64, 32, 32].map(|n| tensor(TOKENS, n, n));
    dys.iter_mut().zip(live).filter(|(_, live)| !live).for_each(|(dy, _)| device.fill(dy, 0.0));
    let mut dx = Tensor::zeros(DType::Bf16, TOKENS, 64);
    let input = group.keeps_input(TOKENS).then_some(&x);
    let dys: Vec<&Tensor> = dys.iter().collect();
    group
        .backward(&device, &parameters, false, input, &dys, &mut dx, &mut gradients, false, &kept, &mut loan)
        .unwrap();
    let weight = |name: &String| position(&specs, &format!("{name}.weight")).unwrap();
    Step {
        y: y.iter().map(bits).collect(),
        dw: names.iter().map(|name| gradients.tensors()[weight(name)].f32().to_vec()).collect(),
        dx: bits(&dx),
    }
}

#[test]
fn every_layer_computes_as_if_its_recipe_were_alone() {
    let alone: Vec<Step> = (0..3).map(|recipe| step([Some(recipe); 3], [true; 3], Pass::Train)).collect();
    let high = step([None; 3], [true; 3], Pass::Train);
    assert_ne!(alone[0].y, alone[1].y, "the recipes differ");
    assert_ne!(alone[0].y, high.y);
    for assigned in [
        [Some(0), Some(1), Some(1)],
        [Some(0), Some(1), Some(0)],
        [Some(1), Some(0), Some(2)],
        [Some(2), Some(2), Some(1)],
        [Some(0), None, Some(0)],
        [None, Some(1), Some(0)],
    ] {
        for pass in [Pass::Train, Pass::Recompute, Pass::Eval] {
            let found = step(assigned, [true; 3], pass);
            for i in 0..3 {
                let expected = assigned[i].map_or(&high, |recipe| &alone[recipe]);
                assert!(found.y[i] == expected.y[i], "{assigned:?}: output of layer {i}, {pass:?}");
                assert!(found.dw[i] == expected.dw[i], "{assigned:?}: gradient of weight {i}, {pass:?}");
            }
        }
        // The input's gradient is a sum over the layers: one layer's part at a time.
        for i in 0..3 {
            let live = std::array::from_fn(|j| i == j);
            let part = step([assigned[i]; 3], live, Pass::Train);
            assert!(step(assigned, live, Pass::Train).dx == part.dx, "{assigned:?}: gradient through {i}");
        }
    }
}

/// Asks for memory and does nothing.
struct Asks;

impl Linear for Asks {
    fn memory(&self, tokens: usize) -> Memory {
        Memory { shared_saved: 2 * tokens, shared_forward: tokens, saved: 1, ..Memory::default() }
    }
    fn forward(&mut self, _: Forward<'_>) -> fp8flow_sdk::Result<()> {
        Ok(())
    }
    fn backward(&mut self, _: Backward<'_>) -> fp8flow_sdk::Result<()> {
        Ok(())
    }
    fn counters(&self) -> Counters {
        Counters::default()
    }
}

#[test]
fn memory_is_shared_within_a_recipe_and_not_across() {
    let facts = |groups: [&[&str]; 3]| -> Vec<LayerFacts> {
        let layers = linear_layers(&config(), Some(TOKENS)).into_iter().take(3).zip(groups);
        layers
            .map(|(layer, group)| LayerFacts {
                group: group.iter().map(ToString::to_string).collect(),
                ..layer
            })
            .collect()
    };
    let bytes = |groups: [&[&str]; 3]| {
        let mut arena = Arena::measure();
        let specs = parameter_specs(&config());
        let group = LinearGroup::new(&facts(groups), &specs, DType::Bf16, &mut arena, |_| {
            Ok(Some(Box::new(Asks) as _))
        });
        let group = group.unwrap();
        drop(LinearGroup::kept(&[&group], 10, &mut arena));
        drop(group.loan(10).take(&mut arena));
        arena.bytes()
    };
    assert_eq!(bytes([&["q", "k", "v"]; 3]), 20 + 10 + 3);
    assert_eq!(bytes([&["q", "v"], &["k"], &["q", "v"]]), 2 * (20 + 10) + 3);
    assert_eq!(bytes([&["q"], &["k"], &["v"]]), 3 * (20 + 10) + 3);
}
