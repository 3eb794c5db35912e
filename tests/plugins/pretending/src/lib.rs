//! A backend that decides every layer as FP8 and, as its option `how` tells it, runs something else.

#![forbid(unsafe_code)]

use fp8flow_sdk::kernels::scale::ScaleRule;
use fp8flow_sdk::kernels::{Epilogue, Fp8, Operand, Store, gemm};
use fp8flow_sdk::scaled::{Cast, Gemms, Generation, Granularity, ScaledLinear, Source};
use fp8flow_sdk::serde_json::{Value, json};
use fp8flow_sdk::{
    Backend, Backward, Counters, Decision, Error, Event, Forward, Host, LayerFacts, Linear, Memory,
    OptionField, OptionKind, Options, Recipe, RecipeInfo, Result,
};

/// FP8, as it says.
const HONEST: &str = "honest";
/// No FP8 anywhere, and nothing counted.
const SILENT: &str = "silent";
/// No FP8 anywhere, but counted as if.
const LYING: &str = "lying";
/// FP8 but in one layer, which counts nothing.
const ALL_BUT_ONE: &str = "all_but_one";

/// The layer that [`ALL_BUT_ONE`] leaves out.
const LEFT_OUT: &str = "model.layers.2.mlp.down_proj";

/// The backend.
#[derive(Debug)]
pub struct Pretending;

impl Backend for Pretending {
    fn start(_: &Host) -> Result<Self> {
        Ok(Self)
    }

    fn recipes() -> Vec<RecipeInfo> {
        let values = [HONEST, SILENT, LYING, ALL_BUT_ONE].map(String::from).to_vec();
        let about = "What runs instead of FP8.".to_owned();
        let how = OptionField {
            name: "how".into(),
            kind: OptionKind::Choice { values },
            default: HONEST.into(),
            about,
        };
        let about = "FP8 by row, or what passes for it.".to_owned();
        vec![RecipeInfo { name: "fp8".into(), about, options: vec![how] }]
    }

    fn recipe(&self, host: &Host, _: &str, options: &Options) -> Result<Box<dyn Recipe>> {
        let how = options.choice("how")?.to_owned();
        Ok(Box::new(Pretence { host: host.clone(), how, generation: Generation::default() }))
    }
}

struct Pretence {
    host: Host,
    how: String,
    generation: Generation,
}

fn gemms() -> Gemms {
    let source = Source::Current(ScaleRule::PowerOfTwo);
    Gemms::alike(Cast { format: Fp8::E4m3, granularity: Granularity::Tensor, source })
}

impl Recipe for Pretence {
    fn describe(&self) -> Value {
        json!({ "how": self.how })
    }

    fn decide(&self, layer: &LayerFacts) -> Decision {
        gemms().decide("fp8", 16, layer)
    }

    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        let high = match self.how.as_str() {
            SILENT | LYING => true,
            ALL_BUT_ONE => layer.name == LEFT_OUT,
            _ => false,
        };
        let host = self.host.clone();
        if high {
            let counts = self.how == LYING;
            return Ok(Box::new(HighPrecision { host, counts, counters: Counters::default() }));
        }
        Ok(Box::new(ScaledLinear::new(host, layer, gemms(), self.generation.clone())))
    }

    fn on(&mut self, event: Event) -> Result<()> {
        if event == Event::WeightsChanged {
            self.generation.advance();
        }
        Ok(())
    }
}

/// The three GEMMs on the tensors themselves.
struct HighPrecision {
    host: Host,
    counts: bool,
    counters: Counters,
}

impl Linear for HighPrecision {
    fn memory(&self, _: usize) -> Memory {
        Memory { keep_input: true, ..Memory::default() }
    }

    fn forward(&mut self, call: Forward<'_>) -> Result<()> {
        let (x, w) = (call.x.tensor.matrix()?, call.weight.matrix()?);
        let mut y = call.y;
        multiply(&self.host, Operand::rows(x), Operand::rows(w), false, y.elements_mut()?);
        self.counters.fprop += u64::from(self.counts);
        Ok(())
    }

    fn backward(&mut self, call: Backward<'_>) -> Result<()> {
        let (dy, w) = (call.dy.matrix()?, call.weight.matrix()?);
        let x = call.x.ok_or_else(|| Error::protocol("x was asked for"))?.matrix()?;
        if let Some(mut dx) = call.dx {
            let out = dx.elements_mut()?;
            multiply(&self.host, Operand::rows(dy), Operand::transposed(w), call.accumulate_dx, out);
            self.counters.dgrad += u64::from(self.counts);
        }
        let mut dw = call.dw;
        let (dy, x) = (Operand::transposed(dy), Operand::transposed(x));
        multiply(&self.host, dy, x, call.accumulate_dw, dw.elements_mut()?);
        self.counters.wgrad += u64::from(self.counts);
        Ok(())
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

fn multiply(
    host: &Host,
    a: Operand<'_>,
    b: Operand<'_>,
    accumulate: bool,
    out: fp8flow_sdk::kernels::ElementsMut<'_>,
) {
    let store = if accumulate { Store::Accumulate } else { Store::Overwrite };
    gemm(&host.cpu(), &a, Epilogue::One, &b, Epilogue::One, store, out);
}

fp8flow_sdk::export_backend!(Pretending, recipes = ["fp8"], devices = ["cpu"]);
