//! Every call on a recipe and on its layers reaches those that are wrapped, and only GEMMs and events are timed.

use std::sync::Mutex;

use fp8flow_kernels::{Elements, ElementsMut};
use fp8flow_sdk::{Error, Group, Input, Pass, Precision, ScaleAxis, TensorMut, TensorRef};
use serde_json::json;

use super::*;
use crate::parts::work::Work;

/// The calls that were made, by name.
type Calls = Arc<Mutex<Vec<String>>>;

/// Notes its calls, and answers each with something that is no default.
struct Noting(Calls);

impl Noting {
    fn note(&self, call: impl Into<String>) {
        self.0.lock().expect("no test panics holding it").push(call.into());
    }
}

fn facts() -> LayerFacts {
    let (in_features, out_features, group) = (4, 2, Vec::new());
    LayerFacts {
        device: None,
        name: "a".into(),
        in_features,
        out_features,
        tokens: Some(3),
        block: Some(7),
        group,
    }
}

impl Recipe for Noting {
    fn describe(&self) -> Value {
        self.note("describe");
        json!("described")
    }
    fn decide(&self, layer: &LayerFacts) -> Decision {
        self.note(format!("decide {}", layer.name));
        Decision { precision: Precision::Fp8, reason: "because".into(), fp8_gemms: [1, 1, 0] }
    }
    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        self.note(format!("linear {}", layer.name));
        if layer.name == "a" { Ok(Box::new(Self(Arc::clone(&self.0)))) } else { Err(Error::invalid("no")) }
    }
    fn on(&mut self, event: Event) -> Result<()> {
        self.note(format!("on {event:?}"));
        if event == Event::BackwardDone { Err(Error::invalid("no")) } else { Ok(()) }
    }
    fn state(&self) -> Result<StateDict> {
        self.note("state");
        Err(Error::invalid("no state"))
    }
    fn restore(&mut self, _: &StateDict) -> Result<()> {
        self.note("restore");
        Err(Error::invalid("no restore"))
    }
    fn healthy(&self) -> Result<()> {
        self.note("healthy");
        Err(Error::invalid("ill"))
    }
}

const ASKED: Memory = Memory {
    shared_saved: 12,
    shared_forward: 0,
    saved: 5,
    forward_scratch: 0,
    backward_scratch: 0,
    own: 17,
    keep_input: false,
};

impl Linear for Noting {
    fn memory(&self, _: usize) -> Memory {
        ASKED
    }
    fn input_formats(&self) -> Vec<InputFormat> {
        self.note("input_formats");
        vec![InputFormat { format: "e4m3".into(), axis: ScaleAxis::Row, rule: "amax_pow2".into() }]
    }
    fn forward(&mut self, call: Forward<'_>) -> Result<()> {
        self.note(format!("forward {:?} {}", call.pass, call.telemetry));
        if call.telemetry { Err(Error::invalid("no")) } else { Ok(()) }
    }
    fn backward(&mut self, call: Backward<'_>) -> Result<()> {
        self.note(format!("backward {} {}", call.accumulate_dx, call.telemetry));
        if call.telemetry { Err(Error::invalid("no")) } else { Ok(()) }
    }
    fn counters(&self) -> Counters {
        self.note("counters");
        Counters { fprop: 9, ..Counters::default() }
    }
}

fn wrapped() -> (TimedRecipe, Calls, Arc<Ledger>) {
    let (calls, ledger) = (Calls::default(), Arc::new(Ledger::default()));
    (TimedRecipe::new(Box::new(Noting(Arc::clone(&calls))), Arc::clone(&ledger)), calls, ledger)
}

fn made(calls: &Calls) -> Vec<String> {
    std::mem::take(&mut calls.lock().expect("no test panics holding it"))
}

/// What a call of `part` was noted with.
fn noted(ledger: &Ledger, part: Part) -> Option<Work> {
    let parts = ledger.take();
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[&part].calls, 1);
    parts[&part].work
}

#[test]
fn a_recipes_answers_and_errors_pass() {
    let (mut recipe, calls, ledger) = wrapped();
    assert_eq!(recipe.describe(), "described");
    assert_eq!(recipe.decide(&facts()).reason, "because");
    assert!(recipe.linear(&facts()).is_ok());
    assert!(recipe.linear(&LayerFacts { name: "b".into(), ..facts() }).is_err());
    assert!(recipe.state().is_err() && recipe.restore(&StateDict::default()).is_err());
    assert!(recipe.healthy().is_err());
    assert_eq!(made(&calls), ["describe", "decide a", "linear a", "linear b", "state", "restore", "healthy"]);
    assert!(ledger.take().is_empty());

    for (event, fine) in
        [(Event::ForwardDone, true), (Event::BackwardDone, false), (Event::WeightsChanged, true)]
    {
        assert_eq!(recipe.on(event).is_ok(), fine);
        assert_eq!(made(&calls), [format!("on {event:?}")]);
        assert_eq!(noted(&ledger, Part::Recipe), None);
    }
}

/// `x: [3, 4]` in f32, `W: [2, 4]`, as the first layer of its group or a later one.
fn forward(linear: &mut dyn Linear, pass: Pass, ready: bool, telemetry: bool) -> Result<()> {
    let mut y = [0.0; 6];
    linear.forward(Forward {
        pass,
        x: Input::from(TensorRef::new(Elements::F32(&[1.0; 12]), &[3, 4])),
        weight: TensorRef::new(Elements::F32(&[1.0; 8]), &[2, 4]),
        y: TensorMut::new(ElementsMut::F32(&mut y), &[3, 2]),
        group: Group { ready, saved: &mut [0; 12], forward: &mut [] },
        saved: &mut [0; 5],
        scratch: &mut [],
        telemetry,
    })
}

fn backward(linear: &mut dyn Linear, accumulate_dx: bool, telemetry: bool) -> Result<()> {
    let (mut dx, mut dw) = ([0.0; 12], [0.0; 8]);
    linear.backward(Backward {
        dy: TensorRef::new(Elements::F32(&[1.0; 6]), &[3, 2]),
        weight: TensorRef::new(Elements::F32(&[1.0; 8]), &[2, 4]),
        x: None,
        dx: Some(TensorMut::new(ElementsMut::F32(&mut dx), &[3, 4])),
        accumulate_dx,
        dw: TensorMut::new(ElementsMut::F32(&mut dw), &[2, 4]),
        accumulate_dw: false,
        group_saved: &[],
        saved: &[],
        scratch: &mut [],
        telemetry,
    })
}

#[test]
fn a_layers_calls_are_delegated_and_its_work_is_counted() {
    let (mut recipe, calls, ledger) = wrapped();
    let mut linear = recipe.linear(&facts()).expect("a layer");
    made(&calls);
    assert_eq!((linear.memory(3), linear.input_formats().len(), linear.counters().fprop), (ASKED, 1, 9));
    assert_eq!(made(&calls), ["input_formats", "counters"]);

    let flops = 2 * 3 * 2 * 4;
    // x, its kept codes, what the layer keeps, the master and the bytes it is kept as, y.
    forward(&mut *linear, Pass::Train, false, false).expect("it is fine");
    let bytes = 48 + 12 + 5 + (32 + 17) + 24;
    assert_eq!(noted(&ledger, Part::LinearFp8Forward), Some(Work { flops, bytes }));
    // Codes of x, what the layer keeps, codes of W, y.
    forward(&mut *linear, Pass::Recompute, true, false).expect("it is fine");
    assert_eq!(noted(&ledger, Part::LinearFp8Forward), Some(Work { flops, bytes: 12 + 5 + 8 + 24 }));
    recipe.on(Event::WeightsChanged).expect("it is fine");
    ledger.take();
    assert!(forward(&mut *linear, Pass::Train, true, true).is_err());
    let bytes = 12 + 5 + (32 + 17) + 24;
    assert_eq!(noted(&ledger, Part::LinearFp8Forward), Some(Work { flops, bytes }), "the weight is stale");

    // dy, codes of x and W, dx and dW.
    backward(&mut *linear, false, false).expect("it is fine");
    let bytes = 24 + 12 + 8 + 48 + 32;
    assert_eq!(noted(&ledger, Part::LinearFp8Backward), Some(Work { flops: 2 * flops, bytes }));
    assert!(backward(&mut *linear, true, true).is_err());
    let bytes = bytes + 48;
    assert_eq!(noted(&ledger, Part::LinearFp8Backward), Some(Work { flops: 2 * flops, bytes }));
    assert_eq!(
        made(&calls),
        [
            "forward Train false",
            "forward Recompute false",
            "on WeightsChanged",
            "forward Train true",
            "backward false false",
            "backward true true"
        ]
    );
}
