//! Groups, caches, passes, counters, and calls that are out of order.

use fp8flow_sdk::kernels::cast::{Quantized, cast_cols, cast_rows};
use fp8flow_sdk::kernels::scale::ScaleRule;
use fp8flow_sdk::kernels::{Elements, ElementsMut, Fp8, Isa, Matrix};
use fp8flow_sdk::{
    Backward, Counters, ErrorKind, Event, Forward, Group, Pass, QuantizedInput, ScaleAxis, TensorMut,
    TensorRef,
};
use fp8flow_testkit::{Activations, Gradients, Layers, Values, host, normal};

use crate::common::{RECIPES, here, layer, recipe, recipe_on};

const N: usize = 48;
const K: usize = 32;

fn x(rows: usize) -> Values {
    Values::normal(Activations::Bf16, rows, K, 1.0, 1)
}

fn dy(rows: usize) -> Values {
    Values::normal(Activations::Bf16, rows, N, 1e-3, 2)
}

fn float_bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The bits of `y`, `dx` and `dW` of one micro-batch.
fn micro_batch(layers: &mut Layers, i: usize, x: &Values, dy: &Values) -> (Vec<u8>, Vec<u8>, Vec<u32>) {
    let (y, saved) = layers.forward(Pass::Train, x).unwrap();
    let gradients = layers.gradients(i, &saved, x, dy).unwrap();
    (y[i].bytes().to_vec(), gradients.dx.unwrap().bytes().to_vec(), float_bits(&gradients.dw))
}

#[test]
fn layers_of_a_group_give_the_bits_they_give_alone() {
    let weights = [(N, 3), (16, 4), (64, 5)].map(|(n, seed)| normal(n * K, 0.02, seed));
    for name in RECIPES {
        let mut group = Layers::new(recipe(name), K, weights.to_vec()).unwrap();
        for (i, weight) in weights.iter().enumerate() {
            let dy = Values::normal(Activations::Bf16, 17, weight.len() / K, 1e-3, 9);
            let mut alone = Layers::new(recipe(name), K, vec![weight.clone()]).unwrap();
            assert_eq!(
                micro_batch(&mut group, i, &x(17), &dy),
                micro_batch(&mut alone, 0, &x(17), &dy),
                "{name}, layer {i}"
            );
        }
    }
}

#[test]
fn only_the_first_of_a_group_casts_the_input() {
    for (name, casts) in [("rowwise", 2), ("tensorwise", 1), ("rowwise_with_gw_hp", 1)] {
        let weights = vec![normal(N * K, 0.02, 3), normal(N * K, 0.02, 4)];
        let mut group = Layers::new(recipe(name), K, weights).unwrap();
        group.telemetry = true;
        group.forward(Pass::Train, &x(16)).unwrap();
        assert_eq!(
            [group.counters(0).cast[0], group.counters(1).cast[0]],
            [casts * 16 * K as u64, 0],
            "{name}"
        );
    }
}

#[test]
fn weights_are_cast_again_only_after_they_have_changed() {
    for name in RECIPES {
        let mut layers = layer(name, N, K);
        let before = micro_batch(&mut layers, 0, &x(16), &dy(16));
        let changed = normal(N * K, 0.03, 8);
        layers.weight_mut(0).copy_from_slice(&changed);
        assert_eq!(micro_batch(&mut layers, 0, &x(16), &dy(16)), before, "{name}: the casts were not kept");
        layers.on(Event::ForwardDone).unwrap();
        layers.on(Event::BackwardDone).unwrap();
        assert_eq!(micro_batch(&mut layers, 0, &x(16), &dy(16)), before, "{name}: no weight has changed yet");
        layers.on(Event::WeightsChanged).unwrap();
        let mut fresh = Layers::new(recipe(name), K, vec![changed]).unwrap();
        let expected = micro_batch(&mut fresh, 0, &x(16), &dy(16));
        assert_eq!(micro_batch(&mut layers, 0, &x(16), &dy(16)), expected, "{name}: stale casts");
        assert_ne!(expected, before);
    }
}

#[test]
fn an_evaluation_after_a_step_leaves_backward_a_fresh_weight() {
    for name in RECIPES {
        let mut layers = layer(name, N, K);
        micro_batch(&mut layers, 0, &x(16), &dy(16));
        let changed = normal(N * K, 0.03, 8);
        layers.weight_mut(0).copy_from_slice(&changed);
        layers.on(Event::WeightsChanged).unwrap();
        layers.forward(Pass::Eval, &x(5)).unwrap();
        let mut fresh = Layers::new(recipe(name), K, vec![changed]).unwrap();
        let expected = micro_batch(&mut fresh, 0, &x(16), &dy(16));
        assert_eq!(micro_batch(&mut layers, 0, &x(16), &dy(16)), expected, "{name}");
    }
}

#[test]
fn eval_and_recompute_give_the_bits_of_training() {
    for name in RECIPES {
        let mut layers = layer(name, N, K);
        let (trained, saved) = layers.forward(Pass::Train, &x(17)).unwrap();
        let (evaluated, nothing) = layers.forward(Pass::Eval, &x(17)).unwrap();
        let (recomputed, again) = layers.forward(Pass::Recompute, &x(17)).unwrap();
        assert_eq!(evaluated[0].bytes(), trained[0].bytes(), "{name}");
        assert_eq!(recomputed[0].bytes(), trained[0].bytes(), "{name}");
        assert!(nothing.group.bytes().is_empty() && nothing.layers[0].bytes().is_empty());
        let first = layers.gradients(0, &saved, &x(17), &dy(17)).unwrap();
        let second = layers.gradients(0, &again, &x(17), &dy(17)).unwrap();
        assert_eq!(float_bits(&first.dw), float_bits(&second.dw), "{name}");
        assert_eq!(first.dx.unwrap().bytes(), second.dx.unwrap().bytes(), "{name}");
    }
}

#[test]
fn counters_count_what_ran() {
    for name in RECIPES {
        let mut layers = layer(name, N, K);
        let (_, saved) = layers.forward(Pass::Train, &x(16)).unwrap();
        layers.forward(Pass::Eval, &x(16)).unwrap();
        layers.gradients(0, &saved, &x(16), &dy(16)).unwrap();
        let mut gradients =
            Gradients { dx: None, dw: vec![0.0; N * K], accumulate_dx: false, accumulate_dw: true };
        layers.backward(0, &saved, &x(16), &dy(16), &mut gradients).unwrap();
        let [wgrad, high_precision] = if name == "rowwise_with_gw_hp" { [0, 2] } else { [2, 0] };
        let expected = Counters { fprop: 2, dgrad: 1, wgrad, high_precision, ..Counters::default() };
        assert_eq!(layers.counters(0), expected, "{name}: without telemetry no element is counted");
        let decided = layers.decision(0).fp8_gemms;
        assert_eq!(decided, [1, 1, u8::from(wgrad > 0)], "{name}");
    }
}

#[test]
fn telemetry_counts_every_element_that_is_cast() {
    for (name, [x_casts, w_casts, dy_casts]) in
        [("rowwise", [2, 2, 2]), ("tensorwise", [1, 1, 1]), ("rowwise_with_gw_hp", [1, 2, 1])]
    {
        let mut layers = layer(name, N, K);
        layers.telemetry = true;
        for micro_batches in 1..=2 {
            micro_batch(&mut layers, 0, &x(16), &dy(16));
            let counters = layers.counters(0);
            // Weights are cast in the first micro-batch only.
            let expected = [
                micro_batches * x_casts * 16 * K as u64,
                w_casts * (N * K) as u64,
                micro_batches * dy_casts * (16 * N) as u64,
            ];
            assert_eq!(counters.cast, expected, "{name}");
            assert_eq!(counters.saturated, [0; 3], "{name}: the largest element fits by construction");
        }
    }
}

#[test]
fn gradients_are_added_or_overwritten_as_asked() {
    for name in RECIPES {
        let mut layers = layer(name, N, K);
        let (_, saved) = layers.forward(Pass::Train, &x(16)).unwrap();
        let alone = layers.gradients(0, &saved, &x(16), &dy(16)).unwrap();
        let old_dx = normal(16 * K, 1e-3, 5);
        let mut sum = Gradients {
            dx: Some(Values::new(Activations::F32, 16, K, &old_dx)),
            dw: normal(N * K, 1e-2, 6),
            accumulate_dx: true,
            accumulate_dw: true,
        };
        let expected: Vec<_> = sum.dw.iter().zip(&alone.dw).map(|(old, new)| old + new).collect();
        let dy = Values::new(Activations::F32, 16, N, &dy(16).to_f32());
        let x = Values::new(Activations::F32, 16, K, &x(16).to_f32());
        layers.backward(0, &saved, &x, &dy, &mut sum).unwrap();
        assert_eq!(float_bits(&sum.dw), float_bits(&expected), "{name}");
        let unrounded = layers.gradients(0, &saved, &x, &dy).unwrap().dx.unwrap().to_f32();
        let expected: Vec<_> = old_dx.iter().zip(&unrounded).map(|(old, new)| old + new).collect();
        assert_eq!(float_bits(&sum.dx.unwrap().to_f32()), float_bits(&expected), "{name}");
    }
}

#[test]
fn any_number_of_tokens_equals_padding_with_zeros() {
    for name in RECIPES {
        for tokens in [1_usize, 7, 16, 17, 31] {
            let padded = |values: &Values| {
                let mut numbers = values.to_f32();
                let rows = tokens.next_multiple_of(16) + 16;
                numbers.resize(rows * values.cols(), 0.0);
                Values::new(Activations::Bf16, rows, values.cols(), &numbers)
            };
            let (x, dy) = (x(tokens), dy(tokens));
            let mut layers = layer(name, N, K);
            let (y, dx, dw) = micro_batch(&mut layers, 0, &x, &dy);
            let (padded_y, padded_dx, padded_dw) = micro_batch(&mut layers, 0, &padded(&x), &padded(&dy));
            assert_eq!(y, padded_y[..y.len()], "{name}, {tokens}: y");
            assert_eq!(dx, padded_dx[..dx.len()], "{name}, {tokens}: dx");
            assert_eq!(dw, padded_dw, "{name}, {tokens}: dW");
            let mut rest =
                padded_y[y.len()..].chunks(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
            assert!(rest.all(|bits| matches!(bits, 0 | 0x8000)), "{name}: zeros in, zeros out");
        }
    }
}

#[test]
fn no_tokens_are_no_work_and_no_gradient() {
    for name in RECIPES {
        let mut layers = layer(name, N, K);
        let (y, saved) = layers.forward(Pass::Train, &x(0)).unwrap();
        assert!(y[0].bytes().is_empty());
        let gradients = layers.gradients(0, &saved, &x(0), &dy(0)).unwrap();
        assert_eq!(gradients.dw, vec![0.0; N * K], "{name}");
        let mut sum = Gradients { dw: vec![1.5; N * K], accumulate_dw: true, ..gradients };
        layers.backward(0, &saved, &x(0), &dy(0), &mut sum).unwrap();
        assert_eq!(sum.dw, vec![1.5; N * K], "{name}");
        assert_eq!(layers.counters(0), Counters::default(), "{name}: nothing ran");
    }
}

#[test]
fn threads_and_instruction_sets_change_no_bit() {
    for name in RECIPES {
        let mut reference = None;
        for isa in Isa::available() {
            for threads in 1..=3 {
                let recipe = recipe_on(&host(isa, threads), name, None);
                let mut layers = Layers::new(recipe, K, vec![normal(N * K, 0.02, 7)]).unwrap();
                let bits = micro_batch(&mut layers, 0, &x(67), &dy(67));
                assert_eq!(
                    &bits,
                    reference.get_or_insert(bits.clone()),
                    "{name}, {isa:?}, {threads} threads"
                );
            }
        }
    }
}

/// A cast as a producer makes it: codes and scales.
fn producer(x: &Values, axis: ScaleAxis) -> (Vec<u8>, Vec<f32>) {
    let numbers = x.to_f32();
    let matrix = Matrix::new(Elements::F32(&numbers), x.rows(), x.cols());
    let mut codes = vec![0; numbers.len()];
    let mut scales = vec![0.0; if axis == ScaleAxis::Row { x.rows() } else { x.cols() }];
    let host = here();
    let out = Quantized { codes: &mut codes, scales: &mut scales };
    match axis {
        ScaleAxis::Row => cast_rows(&host.cpu(), matrix, Fp8::E4m3, ScaleRule::PowerOfTwo, out, None),
        _ => cast_cols(&host.cpu(), matrix, Fp8::E4m3, ScaleRule::PowerOfTwo, out, None),
    }
    (codes, scales)
}

#[test]
fn an_input_cast_by_its_producer_gives_the_same_bits_without_a_cast() {
    let x = x(17);
    let (row_codes, row_scales) = producer(&x, ScaleAxis::Row);
    let (col_codes, col_scales) = producer(&x, ScaleAxis::Col);
    let codes = |codes| TensorRef::new(Elements::E4m3(codes), &[17, K]);
    let by_row = Some((codes(&row_codes), TensorRef::new(Elements::F32(&row_scales), &[17])));
    let by_col = Some((codes(&col_codes), TensorRef::new(Elements::F32(&col_scales), &[K])));
    for (name, needed) in [("rowwise", 2), ("rowwise_with_gw_hp", 1), ("tensorwise", 0)] {
        let formats = layer(name, N, K).layer(0).input_formats();
        assert_eq!(formats.len(), needed, "{name}");
        assert!(formats.iter().all(|format| format.format == "e4m3" && format.rule == "amax_pow2"));
        for (by_row, by_col, own_casts) in
            [(by_row, by_col, 0), (by_row, None, 1), (None, by_col, 1), (None, None, 2)]
        {
            let mut own = layer(name, N, K);
            let mut given = layer(name, N, K);
            given.telemetry = true;
            let expected = own.forward(Pass::Train, &x).unwrap();
            let found =
                given.forward_given(Pass::Train, &x, Some(QuantizedInput { by_row, by_col })).unwrap();
            assert_eq!(found.0[0].bytes(), expected.0[0].bytes(), "{name}");
            assert_eq!(found.1.group.bytes(), expected.1.group.bytes(), "{name}");
            if name == "rowwise" {
                assert_eq!(given.counters(0).cast[0], own_casts * 17 * K as u64);
            }
        }
    }
}

#[test]
fn a_producers_cast_of_another_format_is_refused() {
    let x = x(17);
    let (codes, scales) = producer(&x, ScaleAxis::Row);
    let mut layers = layer("rowwise", N, K);
    let scales_of = |n| TensorRef::new(Elements::F32(&scales[..n]), &[n]);
    for by_row in [
        (TensorRef::new(Elements::E5m2(&codes), &[17, K]), scales_of(17)),
        (TensorRef::new(Elements::E4m3(&codes[..16 * K]), &[16, K]), scales_of(17)),
        (TensorRef::new(Elements::E4m3(&codes), &[17, K]), scales_of(16)),
    ] {
        let given = QuantizedInput { by_row: Some(by_row), by_col: None };
        let error = layers.forward_given(Pass::Train, &x, Some(given)).unwrap_err().to_string();
        assert!(error.contains("of x: expected"), "{error}");
    }
}

#[test]
fn memory_that_is_too_small_is_a_protocol_error() {
    for name in RECIPES {
        let memory = layer(name, N, K).layer(0).memory(16);
        for (pass, group_saved, group_forward) in [
            (Pass::Train, 0, memory.shared_forward),
            (Pass::Recompute, memory.shared_saved.saturating_sub(64), memory.shared_forward),
            (Pass::Train, memory.shared_saved, memory.shared_forward - 64),
            (Pass::Eval, 0, memory.shared_forward - 64),
        ] {
            let fits = group_forward == memory.shared_forward || (name == "tensorwise" && pass != Pass::Eval);
            if fits && group_saved == memory.shared_saved {
                continue;
            }
            let error = forward_with(name, pass, group_saved, group_forward).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Protocol, "{name}, {pass:?}: {error}");
        }
    }
}

fn forward_with(name: &str, pass: Pass, group_saved: usize, group_forward: usize) -> fp8flow_sdk::Result<()> {
    let facts = fp8flow_sdk::LayerFacts {
        device: None,
        name: "q_proj".into(),
        in_features: K,
        out_features: N,
        tokens: None,
        block: None,
        group: Vec::new(),
    };
    let mut linear = recipe(name).linear(&facts)?;
    let weight = normal(N * K, 0.02, 7);
    let mut y = Values::unwritten(Activations::Bf16, 16, N);
    let x = x(16);
    linear.forward(Forward {
        pass,
        x: x.tensor().into(),
        weight: TensorRef::new(Elements::F32(&weight), &[N, K]),
        y: y.tensor_mut(),
        group: Group {
            ready: false,
            saved: fp8flow_testkit::Guarded::new(group_saved, 0).bytes_mut(),
            forward: fp8flow_testkit::Guarded::new(group_forward, 0).bytes_mut(),
        },
        saved: &mut [],
        scratch: &mut [],
        telemetry: false,
    })
}

#[test]
fn a_backward_without_what_forward_left_is_a_protocol_error() {
    let weight = normal(N * K, 0.02, 7);
    for name in RECIPES {
        let mut layers = layer(name, N, K);
        let (_, mut saved) = layers.forward(Pass::Train, &x(16)).unwrap();
        if name != "rowwise_with_gw_hp" {
            saved.group = fp8flow_testkit::Guarded::new(0, 0);
            let error = layers.gradients(0, &saved, &x(16), &dy(16)).unwrap_err().to_string();
            assert!(error.contains("shared saved region"), "{name}: {error}");
        }
        let mut linear = recipe(name)
            .linear(&fp8flow_sdk::LayerFacts {
                device: None,
                name: "q_proj".into(),
                in_features: K,
                out_features: N,
                tokens: None,
                block: None,
                group: Vec::new(),
            })
            .unwrap();
        let mut dw = vec![0.0; N * K];
        let error = linear
            .backward(Backward {
                dy: dy(16).tensor(),
                weight: TensorRef::new(Elements::F32(&weight), &[N, K]),
                x: None,
                dx: None,
                accumulate_dx: false,
                dw: TensorMut::new(ElementsMut::F32(&mut dw), &[N, K]),
                accumulate_dw: false,
                group_saved: &[],
                saved: &[],
                scratch: &mut [],
                telemetry: false,
            })
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Protocol, "{name}: {error}");
    }
}

#[test]
fn wrong_shapes_and_types_are_errors_that_name_the_tensor() {
    let mut layers = layer("rowwise", N, K);
    let wide = Values::normal(Activations::Bf16, 16, K + 16, 1.0, 1);
    let error = layers.forward(Pass::Train, &wide).unwrap_err().to_string();
    assert!(error.contains("x: expected [M, 32], found [16, 48]"), "{error}");

    let (_, saved) = layers.forward(Pass::Train, &x(16)).unwrap();
    let error = layers.gradients(0, &saved, &x(16), &dy(15)).unwrap_err().to_string();
    assert!(error.contains("dx: expected bf16 [15, 32], found bf16 [16, 32]"), "{error}");
    let narrow = Values::normal(Activations::Bf16, 16, N - 16, 1.0, 1);
    let error = layers.gradients(0, &saved, &x(16), &narrow).unwrap_err().to_string();
    assert!(error.contains("dy: expected [M, 48], found [16, 32]"), "{error}");
    let mixed = Values::normal(Activations::F32, 16, N, 1.0, 1);
    let error = layers.gradients(0, &saved, &x(16), &mixed).unwrap_err().to_string();
    assert!(error.contains("dx: expected f32 [16, 32], found bf16 [16, 32]"), "{error}");
}
