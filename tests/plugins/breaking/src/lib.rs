//! A backend that computes as it should, and takes its process with it in the middle of a run: in the call that the
//! environment variable `FP8FLOW_TEST_BREAK` says, as `CALL:LAYER:COUNT:HOW`, once so many backward calls of the layer are
//! done. `task` is a task of a loop, on a thread of the engine's that has not made the call.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fp8flow_sdk::kernels::scale::ScaleRule;
use fp8flow_sdk::kernels::{Fp8, Parallel as _};
use fp8flow_sdk::scaled::{Cast, Gemms, Generation, Granularity, ScaledLinear, Source};
use fp8flow_sdk::serde_json::{Value, json};
use fp8flow_sdk::{
    Backend, Backward, Counters, Decision, Event, Forward, Host, LayerFacts, Linear, Memory, Options, Recipe,
    RecipeInfo, Result,
};

/// The backend.
#[derive(Debug)]
pub struct Breaking;

impl Backend for Breaking {
    fn start(_: &Host) -> Result<Self> {
        Ok(Self)
    }

    fn recipes() -> Vec<RecipeInfo> {
        vec![RecipeInfo { name: "fp8".into(), about: "FP8 by tensor.".into(), options: Vec::new() }]
    }

    fn recipe(&self, host: &Host, _: &str, _: &Options) -> Result<Box<dyn Recipe>> {
        Ok(Box::new(BreakingRecipe { host: host.clone(), generation: Generation::default() }))
    }
}

struct BreakingRecipe {
    host: Host,
    generation: Generation,
}

fn gemms() -> Gemms {
    let source = Source::Current(ScaleRule::PowerOfTwo);
    Gemms::alike(Cast { format: Fp8::E4m3, granularity: Granularity::Tensor, source })
}

impl Recipe for BreakingRecipe {
    fn describe(&self) -> Value {
        json!({ "recipe": "fp8" })
    }

    fn decide(&self, layer: &LayerFacts) -> Decision {
        gemms().decide("fp8", 16, layer)
    }

    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        let inner = ScaledLinear::new(self.host.clone(), layer, gemms(), self.generation.clone());
        Ok(Box::new(BreakingLinear {
            inner,
            host: self.host.clone(),
            name: layer.name.clone(),
            backwards: 0,
        }))
    }

    fn on(&mut self, event: Event) -> Result<()> {
        if event == Event::WeightsChanged {
            self.generation.advance();
        }
        Ok(())
    }
}

struct BreakingLinear {
    inner: ScaledLinear,
    host: Host,
    name: String,
    backwards: usize,
}

impl Linear for BreakingLinear {
    fn memory(&self, tokens: usize) -> Memory {
        self.inner.memory(tokens)
    }

    fn forward(&mut self, call: Forward<'_>) -> Result<()> {
        if let Some(how) = told("forward", &self.name, self.backwards) {
            crash(&how);
        }
        if let Some(how) = told("task", &self.name, self.backwards) {
            let caller = std::thread::current().id();
            self.host.run(10_000, &|_| {
                if std::thread::current().id() != caller {
                    crash(&how);
                }
                std::thread::sleep(Duration::from_millis(1));
            });
        }
        self.inner.forward(call)
    }

    fn backward(&mut self, call: Backward<'_>) -> Result<()> {
        if let Some(how) = told("backward", &self.name, self.backwards) {
            crash(&how);
        }
        self.backwards += 1;
        self.inner.backward(call)
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}

/// How to crash, if this is where.
fn told(call: &str, layer: &str, count: usize) -> Option<String> {
    let told = std::env::var("FP8FLOW_TEST_BREAK").ok()?;
    let how = told.strip_prefix(&format!("{call}:{layer}:{count}:"))?;
    Some(how.to_owned())
}

#[allow(unsafe_code)]
fn crash(how: &str) {
    unsafe extern "C" {
        fn raise(signal: i32) -> i32;
    }
    match how {
        "segfault" => {
            // SAFETY: none; that is the point, here and below.
            unsafe { std::ptr::with_exposed_provenance_mut::<u8>(8).write_volatile(1) };
        }
        "illegal" => unsafe { std::arch::asm!("ud2") },
        "divide" => unsafe {
            std::arch::asm!("cdq", "idiv {zero:e}", zero = in(reg) 0, inout("eax") 1 => _, out("edx") _);
        },
        "bus" => drop(unsafe { raise(7) }),
        "overflow" => drop(endless(1)),
        _ => std::process::abort(),
    }
}

/// Fills the stack.
fn endless(depth: usize) -> usize {
    static ALL: AtomicUsize = AtomicUsize::new(0);
    let frame = std::hint::black_box([depth; 64]);
    ALL.fetch_add(frame[depth % 64], Ordering::Relaxed);
    if ALL.load(Ordering::Relaxed) == 0 { 0 } else { endless(depth + 1) + std::hint::black_box(frame)[0] }
}

fp8flow_sdk::export_backend!(Breaking, recipes = ["fp8"], devices = ["cpu"]);
