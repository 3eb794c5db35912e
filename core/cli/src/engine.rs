//! What the commands lend the stages: threads, the device, the host of plugins; and what is written down of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fp8flow_flow::{Class, Plan};
use fp8flow_host::machine::Processor;
use fp8flow_host::{Pool, Services};
use fp8flow_kernels::{Isa, NUMERICS_REVISION, Parallel as _};
use fp8flow_stages::Engine;
use serde_json::{Value, json};

use crate::args::Common;
use crate::failure::Failure;

/// The engine with what is known about it.
pub(crate) struct Machine {
    pub(crate) engine: Engine,
    /// Set to stop.
    pub(crate) cancel: Arc<AtomicBool>,
    isa: Isa,
    threads: usize,
}

impl Machine {
    /// To look, not to compute: one thread.
    pub(crate) fn to_look(common: &Common) -> Result<Self, Failure> {
        Self::with_threads(1, common.plugin_path.clone())
    }

    /// To compute: the threads that were asked for, or all.
    pub(crate) fn to_compute(common: &Common) -> Result<Self, Failure> {
        Self::with_threads(common.threads.map_or(0, usize::from), common.plugin_path.clone())
    }

    fn with_threads(threads: usize, plugin_paths: Vec<PathBuf>) -> Result<Self, Failure> {
        let isa = Isa::from_env().map_err(|error| Failure::new(Class::Missing, error))?;
        let pool = Pool::new(threads).map_err(|error| Failure::new(Class::Failed, error))?;
        let (pool, cancel) = (Arc::new(pool), Arc::new(AtomicBool::new(false)));
        let threads = pool.threads();
        let host = Services::new(isa, pool.clone(), Arc::clone(&cancel)).host();
        Ok(Self { engine: Engine::new(isa, pool, host, plugin_paths), cancel, isa, threads })
    }

    /// Threads that compute.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Where a run of `plan` takes place, for `run.json`.
    pub(crate) fn environment(&self, plan: &Plan) -> Value {
        json!({
            "argv": std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>(),
            "fp8flow": env!("CARGO_PKG_VERSION"),
            "numerics": NUMERICS_REVISION,
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "cpu": Processor::look().name,
            "isa": self.isa.name(),
            "threads": self.threads,
            "device": Self::device(plan, "device"),
            "backend": plan.section("backend").map(|section| &section.facts),
        })
    }

    /// What planning has found out about the device.
    fn device<'a>(plan: &'a Plan, fact: &str) -> &'a str {
        plan.section("workflow").and_then(|section| section.facts[fact].as_str()).unwrap_or("cpu")
    }

    /// What must be the same for an unfinished run of `plan` to go on and for a stored result to be used, because other
    /// bits could come of it. The plugin concerns those stages that look at `[backend]`.
    pub(crate) fn binding(plan: &Plan) -> Value {
        let facts =
            plan.section("backend").map(|section| &section.facts).filter(|facts| facts["fp8"] == true);
        let plugin = facts.map(|facts| {
            json!({ "name": facts["plugin"], "version": facts["version"], "sdk": facts["sdk"], "digest": facts["digest"] })
        });
        json!({ "device": Self::device(plan, "kind"), "numerics": NUMERICS_REVISION, "backend": { "plugin": plugin } })
    }
}
