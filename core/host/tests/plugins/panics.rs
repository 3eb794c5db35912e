//! A plugin that panics in any of its calls: an error that names it, and no further call.

use fp8flow_kernels::{Elements, ElementsMut, Fp8};
use fp8flow_sdk::{
    Backward, Error, ErrorKind, Event, Forward, Group, LayerFacts, Linear, Pass, Precision, Quantize, Recipe,
    Result, ScaleAxis, ScaledGemm, TensorMut, TensorRef,
};
use serde_json::json;

use crate::common::{plugin, recipe};

const LAYER: &str = "model.layers.3.mlp.up_proj";
const ROWS: usize = 6;

type RecipeCall = fn(&mut dyn Recipe) -> Result<()>;
type LinearCall = fn(&mut dyn Linear) -> Result<()>;
type SilentCall = fn(&dyn Linear);

fn facts() -> LayerFacts {
    LayerFacts {
        device: None,
        name: LAYER.into(),
        in_features: 4,
        out_features: 4,
        tokens: None,
        block: Some(3),
        group: Vec::new(),
    }
}

fn faulty(call: &str) -> Box<dyn Recipe> {
    recipe(&plugin("faulty"), "faulty", &[("call", json!(call))])
}

fn forward(linear: &mut dyn Linear) -> Result<Vec<f32>> {
    let x = [0.0; 4 * ROWS];
    let mut y = [f32::NAN; 4 * ROWS];
    linear.forward(Forward {
        pass: Pass::Train,
        x: TensorRef::new(Elements::F32(&x), &[ROWS, 4]).into(),
        weight: TensorRef::new(Elements::F32(&x[..16]), &[4, 4]),
        y: TensorMut::new(ElementsMut::F32(&mut y), &[ROWS, 4]),
        group: Group { ready: false, saved: &mut [], forward: &mut [] },
        saved: &mut [0; 64 * ROWS],
        scratch: &mut [],
        telemetry: false,
    })?;
    Ok(y.to_vec())
}

fn backward(linear: &mut dyn Linear) -> Result<()> {
    let dy = [0.0; 4 * ROWS];
    let mut dw = [f32::NAN; 16];
    linear.backward(Backward {
        dy: TensorRef::new(Elements::F32(&dy), &[ROWS, 4]),
        weight: TensorRef::new(Elements::F32(&dy[..16]), &[4, 4]),
        x: None,
        dx: None,
        accumulate_dx: false,
        dw: TensorMut::new(ElementsMut::F32(&mut dw), &[4, 4]),
        accumulate_dw: true,
        group_saved: &[],
        saved: &[0; 64 * ROWS],
        scratch: &mut [],
        telemetry: false,
    })?;
    assert_eq!(dw, [1.0; 16]);
    Ok(())
}

/// Panicked, says so in this order of plugin, layer and call, and blames the plugin.
fn is_panic(error: &Error, place: &str, call: &str) {
    assert_eq!(error.kind, ErrorKind::Panicked, "{error}");
    assert_eq!(error.message, format!("faulty: {place}{call}: panicked: told to panic in {call}"));
    assert!(error.help.as_ref().unwrap().contains("bug of the plugin"), "{error}");
}

#[test]
fn without_a_fault_everything_works() {
    let mut recipe = faulty("none");
    assert_eq!(recipe.describe(), json!({"call": "none"}));
    let decision = recipe.decide(&facts());
    assert_eq!((decision.precision, decision.reason.as_str()), (Precision::Fp8, "told so"));
    let mut linear = recipe.linear(&facts()).unwrap();
    assert_eq!(linear.memory(ROWS).saved, 64 * ROWS);
    let y = forward(&mut *linear).unwrap();
    let rows: Vec<_> = (0..ROWS).flat_map(|row| [row as f32; 4]).collect();
    assert_eq!(y, rows, "written on the threads of the host");
    backward(&mut *linear).unwrap();
    let counters = linear.counters();
    assert_eq!((counters.fprop, counters.dgrad, counters.wgrad), (1, 0, 1));
    for event in [Event::ForwardDone, Event::BackwardDone, Event::WeightsChanged] {
        recipe.on(event).unwrap();
    }
    let state = recipe.state().unwrap();
    assert_eq!(state.0["amax"].bytes, 1.5_f32.to_le_bytes());
    recipe.restore(&state).unwrap();
    let error = recipe.restore(&fp8flow_sdk::StateDict::default()).unwrap_err();
    assert_eq!(error.message, "faulty: restore: this is not the state that was given away");
    recipe.healthy().unwrap();
}

#[test]
fn an_error_is_named_and_does_not_end_the_backend() {
    let mut linear = faulty("error").linear(&facts()).unwrap();
    for _ in 0..2 {
        let error = forward(&mut *linear).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert_eq!(error.to_string(), format!("faulty: {LAYER}: forward: told to fail; tell it otherwise"));
    }
    backward(&mut *linear).unwrap();
}

#[test]
fn a_panic_in_making_a_recipe_poisons_the_backend() {
    let plugin = plugin("faulty");
    let options = |call: &str| fp8flow_sdk::Options([("call".to_owned(), json!(call))].into_iter().collect());
    let call = |call: &str| plugin.recipe("faulty", &options(call)).map(|_| ());
    let error = |result: std::result::Result<(), fp8flow_host::HostError>| match result.unwrap_err() {
        fp8flow_host::HostError::Call(error) => error,
        other => panic!("{other}"),
    };
    call("none").unwrap();
    is_panic(&error(call("recipe")), "", "recipe");
    let again = error(call("none"));
    is_panic(&again, "", "recipe");
    let kernels = error(plugin.kernels().map(|_| ()));
    assert_eq!(kernels, again, "the first panic is what is reported");
    crate::common::plugin("faulty").recipe("faulty", &options("none")).unwrap();
}

#[test]
fn a_panic_in_a_call_of_the_recipe_is_the_last_call_of_all_its_layers() {
    let calls: [(&str, &str, RecipeCall); 4] = [
        ("linear", LAYER, |recipe| recipe.linear(&facts()).map(|_| ())),
        ("on", "", |recipe| recipe.on(Event::ForwardDone)),
        ("state", "", |recipe| recipe.state().map(|_| ())),
        ("restore", "", |recipe| recipe.restore(&fp8flow_sdk::StateDict::default())),
    ];
    for (call, layer, run) in calls {
        let mut recipe = faulty(call);
        let mut layer_made_before = (call != "linear").then(|| recipe.linear(&facts()).unwrap());
        let place = if layer.is_empty() { String::new() } else { format!("{layer}: ") };
        is_panic(&run(&mut *recipe).unwrap_err(), &place, call);
        for (_, _, other) in calls {
            is_panic(&other(&mut *recipe).unwrap_err(), &place, call);
        }
        if let Some(linear) = &mut layer_made_before {
            is_panic(&forward(&mut **linear).unwrap_err(), &place, call);
            assert_eq!(linear.counters(), fp8flow_sdk::Counters::default());
        }
        is_panic(&recipe.healthy().unwrap_err(), &place, call);
    }
}

#[test]
fn a_panic_in_a_call_that_cannot_fail_shows_at_the_next_that_can() {
    let mut recipe = faulty("describe");
    assert_eq!(recipe.describe(), serde_json::Value::Null);
    is_panic(&recipe.healthy().unwrap_err(), "", "describe");
    is_panic(&recipe.on(Event::ForwardDone).unwrap_err(), "", "describe");

    let mut recipe = faulty("decide");
    let decision = recipe.decide(&facts());
    assert_eq!((decision.precision, decision.fp8_gemms), (Precision::High, [0; 3]));
    assert!(decision.reason.contains("told to panic in decide"), "{decision:?}");
    is_panic(&recipe.healthy().unwrap_err(), &format!("{LAYER}: "), "decide");
    assert!(recipe.linear(&facts()).is_err());

    let calls: [(&str, SilentCall); 3] = [
        ("memory", |linear| assert_eq!(linear.memory(1), fp8flow_sdk::Memory::default())),
        ("input_formats", |linear| assert!(linear.input_formats().is_empty())),
        ("counters", |linear| assert_eq!(linear.counters(), fp8flow_sdk::Counters::default())),
    ];
    for (call, run) in calls {
        let mut recipe = faulty(call);
        let mut linear = recipe.linear(&facts()).unwrap();
        recipe.healthy().unwrap();
        run(&*linear);
        is_panic(&forward(&mut *linear).unwrap_err(), &format!("{LAYER}: "), call);
        is_panic(&recipe.healthy().unwrap_err(), &format!("{LAYER}: "), call);
    }
}

#[test]
fn a_panic_in_a_call_of_a_layer_stops_the_recipe() {
    let calls: [(&str, LinearCall); 3] = [
        ("forward", |linear| forward(linear).map(|_| ())),
        ("backward", backward),
        // A task on one of the engine's threads: the panic belongs to the call that it is part of.
        ("task", |linear| forward(linear).map(|_| ())),
    ];
    for (call, run) in calls {
        let mut recipe = faulty(call);
        let (mut first, mut second) = (recipe.linear(&facts()).unwrap(), recipe.linear(&facts()).unwrap());
        let error = run(&mut *first).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Panicked);
        assert!(error.message.starts_with(&format!("faulty: {LAYER}: ")), "{error}");
        assert!(error.message.ends_with(&format!("panicked: told to panic in {call}")), "{error}");
        assert_eq!(forward(&mut *second).unwrap_err(), error);
        assert_eq!(recipe.on(Event::ForwardDone).unwrap_err(), error);
    }
}

#[test]
fn a_panic_whose_payload_panics_is_contained() {
    let mut linear = faulty("payload").linear(&facts()).unwrap();
    let error = forward(&mut *linear).unwrap_err();
    assert_eq!(error.message, format!("faulty: {LAYER}: forward: panicked: without a message"));
}

#[test]
fn a_panic_in_a_destructor_ends_nothing() {
    drop(faulty("drop_recipe"));
    let mut recipe = faulty("drop_linear");
    drop(recipe.linear(&facts()).unwrap());
    let error = recipe.on(Event::ForwardDone).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Panicked);
    assert!(error.message.contains("`drop` panicked before: told to panic in drop_linear"), "{error}");
}

#[test]
fn panics_of_the_primitives_are_errors() {
    let plugin = plugin("faulty");
    recipe(&plugin, "faulty", &[("call", json!("kernels"))]);
    let error = plugin.kernels().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("faulty: kernels: panicked: told to panic in kernels"), "{error}");

    let x = [0.0; 16];
    let codes = [0; 16];
    let a = TensorRef::new(Elements::E4m3(&codes), &[4, 4]);
    let scale = TensorRef::new(Elements::F32(&x[..1]), &[1]);
    let (mut out, mut scales) = ([0; 16], [0.0; 1]);
    let kernels = crate::common::plugin("faulty").kernels().unwrap().unwrap();
    let error = kernels
        .quantize(Quantize {
            x: TensorRef::new(Elements::F32(&x), &[4, 4]),
            format: Fp8::E5m2,
            axis: ScaleAxis::Tensor,
            power_of_two: false,
            codes: TensorMut::codes(&mut out, Fp8::E5m2, &[4, 4]),
            scales: TensorMut::new(ElementsMut::F32(&mut scales), &[1]),
        })
        .unwrap_err();
    is_panic(&error, "", "quantize");
    let kernels = crate::common::plugin("faulty").kernels().unwrap().unwrap();
    let mut out = [0.0; 16];
    let error = kernels
        .scaled_gemm(ScaledGemm {
            a,
            transpose_a: false,
            scale_a: scale,
            b: a,
            transpose_b: false,
            scale_b: scale,
            out: TensorMut::new(ElementsMut::F32(&mut out), &[4, 4]),
            accumulate: false,
        })
        .unwrap_err();
    is_panic(&error, "", "scaled_gemm");
}
