//! Delayed scaling over many micro-batches, against a model of the rules that shares no code with the backend.

use std::sync::{Arc, Mutex};

use fp8flow_sdk::kernels::{Fp8, Isa};
use fp8flow_sdk::{Event, Host, HostServices, Level, Pass, StateDict};
use fp8flow_testkit::{Activations, Layers, Values, host, normal};
use serde_json::{Value, json};

use crate::common::{
    amax, assert_product, cast, f32s, here, identity, layers, numbers_of, recipe_on, slot, transposed,
};

const M: usize = 24;
const K: usize = 32;
const N: usize = 16;

/// One slot as the specification has it: the window of maxima, newest last, without the place for the next.
struct Model {
    window: Vec<f32>,
    scale: f32,
    target: f32,
    length: usize,
    most_recent: bool,
}

impl Model {
    fn new(target: f32, length: usize, most_recent: bool) -> Self {
        Self { window: Vec::new(), scale: 1.0, target, length, most_recent }
    }

    /// `amax` 0: not run, or run on zeros.
    fn note(&mut self, amax: f32) {
        if amax == 0.0 {
            return;
        }
        self.window.push(amax);
        let from = self.window.len().saturating_sub(self.length);
        let seen = &self.window[from..];
        let top = if self.most_recent { amax } else { seen.iter().copied().fold(0.0, f32::max) };
        if top.is_finite() {
            self.scale = (self.target / top).min(f32::MAX);
        }
    }

    /// The history as the backend lays it out.
    fn history(&self) -> Vec<f32> {
        let mut history = vec![0.0; self.length];
        let kept = self.window.len().min(self.length - 1);
        history[self.length - kept..].copy_from_slice(&self.window[self.window.len() - kept..]);
        history
    }

    fn assert_is(&self, layers: &Layers, role: usize) {
        assert_eq!(slot(layers, 0, role), (self.scale, self.history()), "slot {role}");
    }
}

fn x(seed: u64, deviation: f32) -> Values {
    Values::normal(Activations::F32, M, K, deviation, seed)
}

fn dy(seed: u64, deviation: f32) -> Values {
    Values::normal(Activations::F32, M, N, deviation, 1000 + seed)
}

fn one_layer(options: &Value) -> Layers {
    layers("delayed", options, K, vec![normal(N * K, 0.02, 7)])
}

/// A micro-batch, all but the optimizer.
fn micro(layers: &mut Layers, x: &Values, dy: &Values) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let (y, saved) = layers.forward(Pass::Train, x).unwrap();
    layers.on(Event::ForwardDone).unwrap();
    let gradients = layers.gradients(0, &saved, x, dy).unwrap();
    layers.on(Event::BackwardDone).unwrap();
    (y[0].to_f32(), gradients.dx.unwrap().to_f32(), gradients.dw)
}

/// Every number and every scale, for lengths, algorithms, margins and formats; weights cached over two micro-batches.
#[test]
fn scales_histories_and_products_follow_the_rules_for_many_steps() {
    for (options, length, most_recent, margin, gradient) in [
        (json!({}), 16, false, 0, Fp8::E5m2),
        (json!({ "amax_history_len": 3 }), 3, false, 0, Fp8::E5m2),
        (json!({ "amax_history_len": 31, "margin": 2 }), 31, false, 2, Fp8::E5m2),
        (json!({ "amax_history_len": 4, "amax_compute_algo": "most_recent" }), 4, true, 0, Fp8::E5m2),
        (json!({ "amax_history_len": 1, "format": "E4M3", "margin": 1 }), 1, false, 1, Fp8::E4m3),
    ] {
        let target = |format: Fp8| format.max() * 2_f32.powi(-margin);
        let model = |format| Model::new(target(format), length, most_recent);
        let (mut of_x, mut of_w, mut of_dy) = (model(Fp8::E4m3), model(Fp8::E4m3), model(gradient));
        let mut layers = one_layer(&options);
        for step in 0..8_u64 {
            let mut cached = None;
            for i in 0..2 {
                let (x, dy) = (x(2 * step + i, 1.0 + step as f32), dy(2 * step + i, 1e-3 / (1.0 + i as f32)));
                let scales = (of_x.scale, of_w.scale, of_dy.scale);
                // The cast of the weight keeps the scale of the step's first micro-batch.
                let scale_w = *cached.get_or_insert(scales.1);
                let (y, dx, dw) = micro(&mut layers, &x, &dy);
                let numbers = |values: &[f32], format, scale| -> Vec<f64> {
                    values.iter().map(|&x| cast(format, x, scale)).collect()
                };
                let qx = numbers(&x.to_f32(), Fp8::E4m3, scales.0);
                let qw = numbers(layers.weight(0), Fp8::E4m3, scale_w);
                let qdy = numbers(&dy.to_f32(), gradient, scales.2);
                assert_product(&y, &qx, &qw, [M, N, K], "y");
                assert_product(&dx, &qdy, &transposed(&qw, N, K), [M, K, N], "dx");
                assert_product(&dw, &transposed(&qdy, M, N), &transposed(&qx, M, K), [N, K, M], "dw");

                of_x.note(amax(&x.to_f32()));
                of_w.note(if i == 0 { amax(layers.weight(0)) } else { 0.0 });
                of_dy.note(amax(&dy.to_f32()));
                of_x.assert_is(&layers, 0);
                of_w.assert_is(&layers, 1);
                of_dy.assert_is(&layers, 2);
            }
            layers.weight_mut(0).iter_mut().for_each(|w| *w *= 1.25);
            layers.on(Event::WeightsChanged).unwrap();
        }
    }
}

#[test]
fn before_the_first_update_scales_are_one_and_histories_zero() {
    let layers = one_layer(&json!({}));
    for role in 0..3 {
        assert_eq!(slot(&layers, 0, role), (1.0, vec![0.0; 16]));
    }
}

#[test]
fn the_forward_scales_move_between_forward_and_backward_and_the_gradients_after_it() {
    let mut layers = one_layer(&json!({}));
    let (x, dy) = (x(1, 1.0), dy(1, 1.0));
    let (_, saved) = layers.forward(Pass::Train, &x).unwrap();
    let noted = |layers: &Layers, role| slot(layers, 0, role).1[0];
    assert_eq!(noted(&layers, 0), amax(&x.to_f32()), "noted, not yet in the history");
    assert_eq!(slot(&layers, 0, 0).0, 1.0);
    layers.on(Event::ForwardDone).unwrap();
    assert_eq!(slot(&layers, 0, 0).0, 448.0 / amax(&x.to_f32()));
    assert_eq!((noted(&layers, 0), noted(&layers, 1)), (0.0, 0.0));
    layers.gradients(0, &saved, &x, &dy).unwrap();
    assert_eq!(slot(&layers, 0, 2).0, 1.0);
    assert_eq!(noted(&layers, 2), amax(&dy.to_f32()));
    layers.on(Event::BackwardDone).unwrap();
    assert_eq!(slot(&layers, 0, 2).0, 57344.0 / amax(&dy.to_f32()));
}

/// The saved cast carries its own factor: wgrad undoes the scale that the forward used, not the one made since.
#[test]
fn what_was_cast_keeps_its_own_factor() {
    let mut layers = layers("delayed", &json!({}), 16, vec![identity(16)]);
    let (x, dy) = (f32s(16, &[64.0; 16]), f32s(16, &[1.0; 16]));
    let (_, saved) = layers.forward(Pass::Train, &x).unwrap();
    layers.on(Event::ForwardDone).unwrap();
    assert_eq!(slot(&layers, 0, 0).0, 7.0, "the scale is another one now");
    let dw = layers.gradients(0, &saved, &x, &dy).unwrap().dw;
    assert!(dw.iter().all(|&dw| dw == 64.0), "{dw:?}");
}

#[test]
fn an_evaluation_leaves_no_trace_whenever_it_comes() {
    let run = |with: bool| {
        let mut layers = one_layer(&json!({}));
        let mut bits = Vec::new();
        let evaluate = |layers: &mut Layers| {
            if with {
                layers.forward(Pass::Eval, &x(99, 50.0)).unwrap();
            }
        };
        for step in 0..4 {
            evaluate(&mut layers);
            for i in 0..2 {
                let (y, dx, dw) = micro(&mut layers, &x(step * 2 + i, 1.0), &dy(i, 1e-3));
                bits.extend([y, dx, dw].concat());
                evaluate(&mut layers);
            }
            layers.weight_mut(0).iter_mut().for_each(|w| *w *= 0.5);
            layers.on(Event::WeightsChanged).unwrap();
        }
        (bits, layers.recipe().state().unwrap())
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn a_recomputed_forward_uses_the_scales_of_the_first_and_leaves_no_trace() {
    let run = |recompute: bool| {
        let mut layers = one_layer(&json!({}));
        let mut bits = Vec::new();
        for step in 0..5 {
            let (x, dy) = (x(step, 1.0 + 10.0 * step as f32), dy(step, 1.0));
            let (mut y, mut saved) = layers.forward(Pass::Train, &x).unwrap();
            layers.on(Event::ForwardDone).unwrap();
            if recompute {
                let first = y;
                (y, saved) = layers.forward(Pass::Recompute, &x).unwrap();
                assert_eq!(first[0].bytes(), y[0].bytes(), "step {step}");
            }
            let gradients = layers.gradients(0, &saved, &x, &dy).unwrap();
            layers.on(Event::BackwardDone).unwrap();
            layers.on(Event::WeightsChanged).unwrap();
            bits.extend([y[0].to_f32(), gradients.dx.unwrap().to_f32(), gradients.dw].concat());
        }
        (bits, layers.recipe().state().unwrap())
    };
    assert_eq!(run(true), run(false));
}

/// Histories move once a micro-batch; a weight's, whose cast is reused, once an optimizer step.
#[test]
fn input_histories_move_with_every_micro_batch_and_weight_histories_with_every_step() {
    let mut layers = one_layer(&json!({ "amax_history_len": 8 }));
    for step in 0..2 {
        for i in 0..3 {
            micro(&mut layers, &x(step * 3 + i, 1.0), &dy(i, 1.0));
        }
        layers.on(Event::WeightsChanged).unwrap();
    }
    let entries = |role| slot(&layers, 0, role).1.iter().filter(|&&amax| amax != 0.0).count();
    assert_eq!([entries(0), entries(1), entries(2)], [6, 2, 6]);
    assert_eq!(layers.counters(0).scale_age, [0, 2, 0]);
}

/// A cached weight multiplied with a scale that was made after its cast gave errors of 1.7 in an early version of
/// Transformer Engine.
#[test]
fn a_cached_weight_is_undone_by_the_scale_it_was_cast_with() {
    let mut layers = layers("delayed", &json!({}), 16, vec![identity(16)]);
    let ones = f32s(16, &[1.0; 16]);
    for i in 0..3 {
        let (y, _) = layers.forward(Pass::Train, &ones).unwrap();
        layers.on(Event::ForwardDone).unwrap();
        assert!(y[0].to_f32().iter().all(|&y| y == 1.0), "micro-batch {i}: {:?}", y[0].to_f32());
    }
    assert_eq!(slot(&layers, 0, 1).0, 448.0);
}

#[test]
fn an_infinity_freezes_the_scale_for_the_length_of_the_history_and_then_passes() {
    let mut layers = one_layer(&json!({ "amax_history_len": 4 }));
    let step = |layers: &mut Layers, x: &Values| {
        layers.forward(Pass::Train, x).unwrap();
        layers.on(Event::ForwardDone).unwrap();
        slot(layers, 0, 0).0
    };
    let before = step(&mut layers, &x(1, 1.0));
    let mut poisoned = x(2, 1.0).to_f32();
    poisoned[5] = f32::INFINITY;
    let poisoned = Values::new(Activations::F32, M, K, &poisoned);
    assert_eq!(step(&mut layers, &poisoned), before);
    assert_eq!(layers.counters(0).non_finite, [1, 0, 0]);
    for _ in 0..3 {
        assert_eq!(step(&mut layers, &x(3, 0.25)), before);
    }
    assert_ne!(step(&mut layers, &x(3, 0.25)), before);
}

#[test]
fn a_nan_is_passed_over_by_the_maximum_and_stays_in_the_codes() {
    let mut layers = one_layer(&json!({}));
    let mut numbers = x(1, 1.0).to_f32();
    numbers[3] = f32::NAN;
    let expected = amax(&x(1, 1.0).to_f32());
    let (y, _) = layers.forward(Pass::Train, &Values::new(Activations::F32, M, K, &numbers)).unwrap();
    assert!(y[0].to_f32()[..N].iter().all(|y| y.is_nan()), "the row of the NaN");
    assert!(y[0].to_f32()[N..].iter().all(|y| y.is_finite()));
    layers.on(Event::ForwardDone).unwrap();
    assert_eq!(slot(&layers, 0, 0).0, 448.0 / expected);
}

#[test]
fn a_layer_that_did_not_run_keeps_its_history() {
    let mut layers = one_layer(&json!({}));
    micro(&mut layers, &x(1, 1.0), &dy(1, 1.0));
    layers.on(Event::WeightsChanged).unwrap();
    let before = layers.recipe().state().unwrap();
    layers.on(Event::ForwardDone).unwrap();
    layers.on(Event::BackwardDone).unwrap();
    let after = layers.recipe().state().unwrap();
    for name in ["scale", "amax_history"] {
        let name = format!("block.proj_0.{name}");
        assert_eq!(numbers_of(&before, &name), numbers_of(&after, &name));
    }
    assert_eq!(layers.counters(0).scale_age, [1, 1, 1]);
}

/// Three layers of one input cast it once; their histories and bits are those of three layers alone.
#[test]
fn a_shared_input_gives_each_layer_the_history_and_the_bits_it_has_alone() {
    let weights: Vec<Vec<f32>> = (0..3).map(|i| normal(N * K, 0.02 + 0.1 * i as f32, i)).collect();
    let mut together = layers("delayed", &json!({}), K, weights.clone());
    let mut alone: Vec<Layers> =
        weights.into_iter().map(|weight| layers("delayed", &json!({}), K, vec![weight])).collect();
    for step in 0..4 {
        let x = x(step, 1.0 + step as f32);
        let dys: Vec<Values> = (0..3).map(|i| dy(step * 3 + i, 1.0)).collect();
        let group = together.step(&x, &dys).unwrap();
        for (i, layer) in alone.iter_mut().enumerate() {
            let single = layer.step(&x, &dys[i..=i]).unwrap();
            assert_eq!(single.outputs[0].bytes(), group.outputs[i].bytes());
            assert_eq!(single.gradients[0].dw, group.gradients[i].dw);
            let dx = |step: &fp8flow_testkit::Step, i: usize| step.gradients[i].dx.as_ref().unwrap().to_f32();
            assert_eq!(dx(&single, 0), dx(&group, i));
            for role in 0..3 {
                assert_eq!(slot(layer, 0, role), slot(&together, i, role));
            }
        }
    }
}

/// Stops after every step, goes on in a new recipe from the state: the bits of the run that was not stopped.
#[test]
fn a_run_that_is_restored_after_any_step_has_the_same_bits() {
    let mut straight = one_layer(&json!({}));
    let mut restored = one_layer(&json!({}));
    for step in 0..20 {
        let (x, dy) = (x(step, 1.0 + (step % 5) as f32), dy(step, 1e-4));
        assert_eq!(micro(&mut straight, &x, &dy), micro(&mut restored, &x, &dy), "step {step}");
        for layers in [&mut straight, &mut restored] {
            layers.weight_mut(0).iter_mut().for_each(|w| *w *= 1.01);
            layers.on(Event::WeightsChanged).unwrap();
        }
        let state = restored.recipe().state().unwrap();
        assert_eq!(state, straight.recipe().state().unwrap());
        let bytes = state.to_safetensors().unwrap();
        restored = layers("delayed", &json!({}), K, vec![restored.weight(0).to_vec()]);
        restored.recipe_mut().restore(&StateDict::from_safetensors(&bytes).unwrap()).unwrap();
    }
}

#[test]
fn another_history_length_keeps_the_newest_maxima() {
    let mut long = one_layer(&json!({ "amax_history_len": 8 }));
    let maxima: Vec<f32> = (0..6)
        .map(|step| {
            let x = x(step, 1.0);
            micro(&mut long, &x, &dy(step, 1.0));
            amax(&x.to_f32())
        })
        .collect();
    let state = long.recipe().state().unwrap();
    let history = |length: usize| {
        let mut other = one_layer(&json!({ "amax_history_len": length }));
        other.recipe_mut().restore(&state).unwrap();
        let (scale, history) = slot(&other, 0, 0);
        assert_eq!(scale, slot(&long, 0, 0).0);
        history
    };
    assert_eq!(history(4), [0.0, maxima[3], maxima[4], maxima[5]]);
    assert_eq!(history(1), [0.0]);
    assert_eq!(history(12)[12 - 6..], maxima);
    assert_eq!(history(12)[..6], [0.0; 6]);
}

#[test]
fn state_that_is_not_of_this_recipe_is_refused() {
    let mut layers = one_layer(&json!({}));
    let good = layers.recipe().state().unwrap();
    assert_eq!(good.0.len(), 3);
    let mut refused = |change: &dyn Fn(&mut StateDict), expected: &str| {
        let mut state = good.clone();
        change(&mut state);
        let error = layers.recipe_mut().restore(&state).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&|state| state.0.clear(), "`block.proj_0.scale` is missing");
    let rename = |state: &mut StateDict| {
        let tensor = state.0["block.proj_0.scale"].clone();
        state.0.insert("elsewhere.scale".into(), tensor);
    };
    refused(&rename, "`elsewhere.scale` is of no layer");
    let write = |name: &'static str, value: f32| {
        move |state: &mut StateDict| {
            state.0.get_mut(name).unwrap().bytes[4..8].copy_from_slice(&value.to_le_bytes());
        }
    };
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        refused(&write("block.proj_0.scale", bad), "`block.proj_0.scale`");
    }
    for bad in [-1.0, f32::NAN] {
        refused(&write("block.proj_0.amax_history", bad), "`block.proj_0.amax_history`");
    }
    let cut = |state: &mut StateDict| {
        let tensor = state.0.get_mut("block.proj_0.amax_history").unwrap();
        (tensor.shape, tensor.bytes) = (vec![16], tensor.bytes[..64].to_vec());
    };
    refused(&cut, "f32 [16] is not what delayed scaling keeps");
}

#[test]
fn with_a_warm_start_the_first_micro_batch_is_scaled_by_its_own_maxima() {
    let mut warm = one_layer(&json!({ "warm_start": true, "margin": 1 }));
    let mut current = layers("current", &json!({}), K, vec![warm.weight(0).to_vec()]);
    let (x, dy) = (x(1, 1e-3), dy(1, 1e-9));
    let (y, dx, dw) = micro(&mut warm, &x, &dy);
    let scale = |values: &[f32], max: f32| max / 2.0 / amax(values);
    let qx: Vec<f64> = x.to_f32().iter().map(|&v| cast(Fp8::E4m3, v, scale(&x.to_f32(), 448.0))).collect();
    let w = warm.weight(0).to_vec();
    let qw: Vec<f64> = w.iter().map(|&v| cast(Fp8::E4m3, v, scale(&w, 448.0))).collect();
    assert_product(&y, &qx, &qw, [M, N, K], "y");
    // Gradients of 1e-9 are nothing under a scale of 1.
    assert!(dx.iter().chain(&dw).any(|&x| x != 0.0));
    let cold = micro(&mut one_layer(&json!({})), &x, &dy);
    assert!(cold.1.iter().all(|&dx| dx == 0.0), "underflow is what the plain recipe does there");

    // From the second micro-batch on it is the plain recipe, and it is all the same on recompute and evaluation.
    let (again, _) = warm.forward(Pass::Eval, &x).unwrap();
    assert_eq!(slot(&warm, 0, 0).0, scale(&x.to_f32(), 448.0));
    assert_eq!(again[0].to_f32(), y);
    assert!(current.forward(Pass::Eval, &x).is_ok());
}

#[test]
fn a_recompute_after_a_warm_start_repeats_the_first_forward() {
    let mut layers = one_layer(&json!({ "warm_start": true, "amax_compute_algo": "most_recent" }));
    let x = x(1, 3.0);
    let (first, _) = layers.forward(Pass::Train, &x).unwrap();
    layers.on(Event::ForwardDone).unwrap();
    let (again, _) = layers.forward(Pass::Recompute, &x).unwrap();
    assert_eq!(first[0].bytes(), again[0].bytes());
}

#[test]
fn no_tokens_leave_no_trace_and_clear_the_gradient() {
    let mut layers = one_layer(&json!({}));
    let nothing = |cols| Values::new(Activations::F32, 0, cols, &[]);
    let (_, _, dw) = micro(&mut layers, &nothing(K), &nothing(N));
    assert!(dw.iter().all(|&dw| dw == 0.0));
    assert_eq!(slot(&layers, 0, 0), (1.0, vec![0.0; 16]));
}

/// A host of two ranks: the other one has maxima of its own.
struct TwoRanks {
    this: Host,
    other: f32,
    calls: Mutex<Vec<usize>>,
}

impl HostServices for TwoRanks {
    fn isa(&self) -> Isa {
        self.this.isa()
    }
    fn threads(&self) -> usize {
        1
    }
    fn parallel_for(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(body);
    }
    fn log_enabled(&self, _: Level, _: &str) -> bool {
        false
    }
    fn log(&self, _: Level, _: &str, _: &str) {}
    fn reduce_amax(&self, values: &mut [f32]) {
        self.calls.lock().unwrap().push(values.len());
        for value in values {
            *value = value.max(self.other);
        }
    }
    fn cancelled(&self) -> bool {
        false
    }
}

#[test]
fn maxima_are_reduced_over_the_ranks_once_forward_and_once_backward() {
    for reduce in [true, false] {
        let ranks = Arc::new(TwoRanks { this: host(Isa::best(), 1), other: 1000.0, calls: Mutex::default() });
        let recipe = recipe_on(&Host::new(ranks.clone()), "delayed", &json!({ "reduce_amax": reduce }));
        let mut layers =
            Layers::new(recipe, K, vec![normal(N * K, 0.02, 1), normal(N * K, 0.02, 2)]).unwrap();
        layers.step(&x(1, 1.0), &[dy(1, 1.0), dy(2, 1.0)]).unwrap();
        let (scale, history) = slot(&layers, 1, 0);
        if reduce {
            assert_eq!(
                *ranks.calls.lock().unwrap(),
                [4, 2],
                "inputs and weights of two layers, then gradients"
            );
            assert_eq!((scale, history[15]), (0.448, 1000.0));
        } else {
            assert!(ranks.calls.lock().unwrap().is_empty());
            assert_eq!(scale, 448.0 / amax(&x(1, 1.0).to_f32()));
        }
    }
}

#[test]
fn a_layer_of_the_same_name_is_refused() {
    let mut recipe = recipe_on(&here(), "delayed", &json!({}));
    let facts = fp8flow_sdk::LayerFacts {
        device: None,
        name: "q_proj".into(),
        in_features: 16,
        out_features: 16,
        tokens: None,
        block: None,
        group: Vec::new(),
    };
    assert!(recipe.linear(&facts).is_ok());
    assert!(recipe.linear(&facts).is_err());
}
