//! A backend for cards, honest in the CPU's memory, and ways to spoil it on a card: what the conformance suite is tested
//! with there. [`FAULTS`] names each way and the check that must find it.
//!
//! A test that links this crate takes [`Straying`] with the fault of its choice. The library itself has the fault that the
//! environment variable `FP8FLOW_TEST_FAULT` names, none where it is unset.

mod linear;

use fp8flow_sdk::kernels::Fp8;
use fp8flow_sdk::kernels::scale::ScaleRule;
use fp8flow_sdk::scaled::{Cast, Gemms, Generation, Granularity, ScaledLinear, Source};
use fp8flow_sdk::serde_json::{Value, json};
use fp8flow_sdk::{
    Backend, Decision, DeviceId, Error, Event, Host, LayerFacts, Linear, Options, Recipe, RecipeInfo, Result,
};

use linear::StrayingLinear;

/// What is wrong on a card. (Constant parameters cannot be enums.)
pub type Fault = u8;

/// Nothing.
pub const NONE: Fault = 0;
/// Bytes behind a region are written.
pub const WRITES_BESIDE: Fault = 1;
/// The input is overwritten.
pub const WRITES_INPUT: Fault = 2;
/// The last rows of the output are zeros.
pub const LOSES_A_TILE: Fault = 3;
/// A gradient that nobody asked for is counted.
pub const COUNTS_WHAT_DID_NOT_RUN: Fault = 4;
/// Backward reads what forward has saved where that was then.
pub const HOLDS_AN_ADDRESS: Fault = 5;
/// With one number of tokens it destroys the stream that it was lent, as if that were its own; with another, the process
/// ends.
pub const ENDS_BADLY: Fault = 6;

/// Every fault by name, with the check that must find it. Others may find it too.
pub const FAULTS: [(&str, Fault, &str); 6] = [
    ("writes_beside", WRITES_BESIDE, "bounds"),
    ("writes_input", WRITES_INPUT, "bounds"),
    ("loses_a_tile", LOSES_A_TILE, "accuracy"),
    ("counts_what_did_not_run", COUNTS_WHAT_DID_NOT_RUN, "counters"),
    ("holds_an_address", HOLDS_AN_ADDRESS, "held"),
    ("ends_badly", ENDS_BADLY, "bounds"),
];

/// The backend, spoilt by `FAULT`.
#[derive(Debug)]
pub struct Straying<const FAULT: Fault>;

impl<const FAULT: Fault> Backend for Straying<FAULT> {
    fn start(_: &Host) -> Result<Self> {
        Ok(Self)
    }

    fn recipes() -> Vec<RecipeInfo> {
        vec![RecipeInfo { name: "fp8".into(), about: "FP8 by tensor.".into(), options: Vec::new() }]
    }

    fn recipe(&self, host: &Host, name: &str, _: &Options) -> Result<Box<dyn Recipe>> {
        recipe(FAULT, host, name)
    }
}

/// The backend of the library.
#[derive(Debug)]
pub struct Told;

impl Backend for Told {
    fn start(_: &Host) -> Result<Self> {
        Ok(Self)
    }

    fn recipes() -> Vec<RecipeInfo> {
        Straying::<NONE>::recipes()
    }

    fn recipe(&self, host: &Host, name: &str, _: &Options) -> Result<Box<dyn Recipe>> {
        let told = std::env::var("FP8FLOW_TEST_FAULT").unwrap_or_default();
        let fault = FAULTS.iter().find(|(fault, ..)| *fault == told).map_or(NONE, |(_, fault, _)| *fault);
        recipe(fault, host, name)
    }
}

fn recipe(fault: Fault, host: &Host, name: &str) -> Result<Box<dyn Recipe>> {
    if name != "fp8" {
        return Err(Error::invalid(format!("no recipe `{name}`")));
    }
    Ok(Box::new(ByTensor { fault, host: host.clone(), generation: Generation::default() }))
}

struct ByTensor {
    fault: Fault,
    host: Host,
    generation: Generation,
}

fn gemms() -> Gemms {
    let source = Source::Current(ScaleRule::PowerOfTwo);
    Gemms::alike(Cast { format: Fp8::E4m3, granularity: Granularity::Tensor, source })
}

impl Recipe for ByTensor {
    fn describe(&self) -> Value {
        json!({ "recipe": "fp8" })
    }

    fn decide(&self, layer: &LayerFacts) -> Decision {
        gemms().decide("fp8", 16, layer)
    }

    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        let honest = ScaledLinear::new(self.host.clone(), layer, gemms(), self.generation.clone());
        match layer.device.filter(|device: &DeviceId| device.is_cuda()) {
            Some(device) => Ok(Box::new(StrayingLinear::new(self.fault, honest, device))),
            None => Ok(Box::new(honest)),
        }
    }

    fn on(&mut self, event: Event) -> Result<()> {
        if event == Event::WeightsChanged {
            self.generation.advance();
        }
        Ok(())
    }
}

fp8flow_sdk::export_backend!(Told, recipes = ["fp8"], devices = ["cpu", "cuda"]);
