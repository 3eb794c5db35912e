//! A backend that panics in the call it is told to, and otherwise does something that can be seen from outside.
//!
//! Its only recipe takes the name of a call as its option. `forward` writes the number of each row into it, row by row
//! on the host's threads; every event reduces one maximum; what is made and asked is logged.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

use fp8flow_sdk::kernels::{ElementsMut, Parallel as _};
use fp8flow_sdk::serde_json::{Value, json};
use fp8flow_sdk::{
    Backend, Backward, Counters, DType, Decision, Error, ErrorKind, Event, Forward, Host, InputFormat,
    Kernels, LayerFacts, Linear, Memory, OptionField, OptionKind, Options, Precision, Quantize, Recipe,
    RecipeInfo, Result, ScaledGemm, StateDict, StateTensor, tracing,
};

const CALLS: [&str; 19] = [
    "none",
    "recipe",
    "kernels",
    "describe",
    "decide",
    "linear",
    "on",
    "state",
    "restore",
    "memory",
    "input_formats",
    "forward",
    "task",
    "backward",
    "counters",
    "drop_recipe",
    "drop_linear",
    "payload",
    "error",
];

/// The backend.
#[derive(Debug)]
pub struct Faulty {
    kernels_panic: AtomicBool,
}

impl Backend for Faulty {
    fn start(host: &Host) -> Result<Self> {
        tracing::info!(threads = host.threads(), "started");
        Ok(Self { kernels_panic: AtomicBool::new(false) })
    }

    fn recipes() -> Vec<RecipeInfo> {
        let kind = OptionKind::Choice { values: CALLS.map(String::from).to_vec() };
        let about = "The call that panics.".to_owned();
        let call = OptionField { name: "call".into(), kind, default: "none".into(), about };
        vec![RecipeInfo { name: "faulty".into(), about: "Panics where told.".into(), options: vec![call] }]
    }

    fn recipe(&self, host: &Host, _: &str, options: &Options) -> Result<Box<dyn Recipe>> {
        let call = options.choice("call")?.to_owned();
        tracing::info!(call, "recipe made");
        tracing::debug!(target: "elsewhere", "for developers");
        tracing::trace!("for nobody");
        self.kernels_panic.store(call == "kernels", Ordering::Relaxed);
        let fault = Fault { host: host.clone(), call };
        fault.panic_in("recipe");
        Ok(Box::new(FaultyRecipe(fault)))
    }

    fn kernels(&self, _: &Host) -> Option<Box<dyn Kernels>> {
        assert!(!self.kernels_panic.load(Ordering::Relaxed), "told to panic in kernels");
        Some(Box::new(FaultyKernels))
    }
}

#[derive(Clone)]
struct Fault {
    host: Host,
    call: String,
}

impl Fault {
    fn panic_in(&self, call: &str) {
        assert!(self.call != call, "told to panic in {call}");
    }
}

struct FaultyRecipe(Fault);

impl Recipe for FaultyRecipe {
    fn describe(&self) -> Value {
        self.0.panic_in("describe");
        json!({ "call": self.0.call })
    }

    fn decide(&self, _: &LayerFacts) -> Decision {
        self.0.panic_in("decide");
        Decision { precision: Precision::Fp8, reason: "told so".into(), fp8_gemms: [1, 1, 1] }
    }

    fn linear(&mut self, _: &LayerFacts) -> Result<Box<dyn Linear>> {
        self.0.panic_in("linear");
        Ok(Box::new(FaultyLinear { fault: self.0.clone(), counters: Counters::default() }))
    }

    fn on(&mut self, _: Event) -> Result<()> {
        self.0.panic_in("on");
        self.0.host.reduce_amax(&mut [1.0]);
        Ok(())
    }

    fn state(&self) -> Result<StateDict> {
        self.0.panic_in("state");
        let tensor = StateTensor { dtype: DType::F32, shape: vec![1], bytes: 1.5_f32.to_le_bytes().to_vec() };
        Ok(StateDict([("amax".to_owned(), tensor)].into()))
    }

    fn restore(&mut self, state: &StateDict) -> Result<()> {
        self.0.panic_in("restore");
        if *state == self.state()? {
            return Ok(());
        }
        Err(Error::invalid("this is not the state that was given away"))
    }
}

impl Drop for FaultyRecipe {
    fn drop(&mut self) {
        self.0.panic_in("drop_recipe");
    }
}

struct FaultyLinear {
    fault: Fault,
    counters: Counters,
}

impl Linear for FaultyLinear {
    fn memory(&self, tokens: usize) -> Memory {
        self.fault.panic_in("memory");
        Memory { saved: 64 * tokens, ..Memory::default() }
    }

    fn input_formats(&self) -> Vec<InputFormat> {
        self.fault.panic_in("input_formats");
        Vec::new()
    }

    fn forward(&mut self, call: Forward<'_>) -> Result<()> {
        self.fault.panic_in("forward");
        if self.fault.call == "error" {
            return Err(Error::new(ErrorKind::Unsupported, "told to fail").with_help("tell it otherwise"));
        }
        if self.fault.call == "payload" {
            std::panic::panic_any(Explosive);
        }
        if self.fault.host.cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "cancelled"));
        }
        let mut y = call.y;
        let columns = y.shape()[1] as usize;
        let ElementsMut::F32(y) = y.elements_mut()? else { return Err(Error::invalid("y: expected f32")) };
        let rows: Vec<_> = y.chunks_mut(columns).map(std::sync::Mutex::new).collect();
        self.fault.host.run(rows.len(), &|row| {
            if row == rows.len() / 2 {
                self.fault.panic_in("task");
            }
            rows[row].lock().expect("no task panics while it writes").fill(row as f32);
        });
        self.counters.fprop += 1;
        Ok(())
    }

    fn backward(&mut self, call: Backward<'_>) -> Result<()> {
        self.fault.panic_in("backward");
        if let ElementsMut::F32(dw) = { call.dw }.elements_mut()? {
            dw.fill(if call.accumulate_dw { 1.0 } else { 0.0 });
        }
        self.counters.wgrad += 1;
        Ok(())
    }

    fn counters(&self) -> Counters {
        self.fault.panic_in("counters");
        self.counters
    }
}

impl Drop for FaultyLinear {
    fn drop(&mut self) {
        self.fault.panic_in("drop_linear");
    }
}

/// Panics again when it is thrown away.
struct Explosive;

impl Drop for Explosive {
    fn drop(&mut self) {
        panic!("the payload of a panic panicked");
    }
}

struct FaultyKernels;

impl Kernels for FaultyKernels {
    fn quantize(&self, _: Quantize<'_>) -> Result<()> {
        panic!("told to panic in quantize");
    }

    fn scaled_gemm(&self, _: ScaledGemm<'_>) -> Result<()> {
        panic!("told to panic in scaled_gemm");
    }
}

fp8flow_sdk::export_backend!(Faulty, recipes = ["faulty"], devices = ["cpu"], requires = ["cancellation"]);
