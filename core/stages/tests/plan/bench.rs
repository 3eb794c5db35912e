//! A small workflow in a folder of its own, planned on a host of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use fp8flow_flow::{Error, Event, Plan, PlannedStage, Registry, Run, RunOptions, Workflow};
use fp8flow_host::{Pool, Services};
use fp8flow_kernels::Isa;
use fp8flow_stages::{Engine, registry};
use serde_json::Value;
use tempfile::TempDir;

/// A Llama of four blocks with grouped queries: 29 linear layers.
const CONFIG: &str = r#"{"model_type": "llama", "vocab_size": 64, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu"}"#;

pub(crate) struct Bench {
    folder: TempDir,
    plugin_paths: Vec<PathBuf>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap(), plugin_paths: Vec::new() };
        std::fs::write(bench.path("config.json"), CONFIG).unwrap();
        bench
    }

    /// The same, with a place given on the command line.
    pub(crate) fn with_plugin_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.plugin_paths.push(path.into());
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn engine(&self) -> Engine {
        let pool = Arc::new(Pool::new(1).unwrap());
        let host = Services::new(Isa::best(), pool.clone(), Arc::new(AtomicBool::new(false))).host();
        Engine::new(Isa::best(), pool, host, self.plugin_paths.clone())
    }

    /// Plans a model and its layers under these keys.
    pub(crate) fn plan(&self, backend: &str, layers: &str) -> Result<Plan, Error> {
        let text = format!(
            "[backend]\n{backend}\n\n[stages.model]\nuses = \"model.init\"\n\n\
             [stages.layers]\nuses = \"layers.filter\"\nmodel = \"model\"\n{layers}\n"
        );
        self.plan_of(&text, None)
    }

    /// Plans a whole workflow, with another folder of runs if there is one.
    pub(crate) fn plan_of(&self, text: &str, runs: Option<&Path>) -> Result<Plan, Error> {
        let workflow = Workflow::parse(&self.path("w.toml"), text, [""; 0])?;
        workflow.with_runs(runs).plan(&registry(&self.engine()))
    }

    /// Every section and stage.
    pub(crate) fn registry(&self) -> Registry {
        registry(&self.engine())
    }

    /// Plans a whole workflow with a registry that is there.
    pub(crate) fn plan_with(&self, text: &str, registry: &Registry) -> Result<Plan, Error> {
        Workflow::parse(&self.path("w.toml"), text, [""; 0])?.plan(registry)
    }

    /// What is said about these keys; something must be wrong with them. And the exit code.
    pub(crate) fn wrong(&self, backend: &str, layers: &str) -> (u8, String) {
        match self.plan(backend, layers) {
            Err(error) => (error.class().exit_code(), error.to_string()),
            Ok(plan) => panic!("nothing is wrong: {:#}", plan.json()),
        }
    }

    /// Runs `plan`: the run's folder, and what was warned of.
    pub(crate) fn run(&self, plan: &Plan) -> (PathBuf, Vec<String>) {
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let heard = warnings.clone();
        let observer = Arc::new(move |event: &Event| {
            if let Event::Warning { message, .. } = event {
                heard.lock().unwrap().push(message.clone());
            }
        });
        let run = Run::open(plan, RunOptions::default()).unwrap();
        let done =
            run.execute(&registry(&self.engine()), observer, &Arc::new(AtomicBool::new(false))).unwrap();
        let warnings = warnings.lock().unwrap().clone();
        (done.folder, warnings)
    }
}

/// The folder with the plugins that Cargo has built.
pub(crate) fn built() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// The library of torchao-rowwise with one text of its manifest replaced by another of the same length, as `to`.
pub(crate) fn patched(from: &str, to: &str, path: &Path) {
    assert_eq!(from.len(), to.len());
    let mut bytes = std::fs::read(built().join("libtorchao_rowwise.so")).unwrap();
    let find = |bytes: &[u8], text: &[u8], start: usize| {
        bytes[start..].windows(text.len()).position(|window| window == text).map(|at| start + at)
    };
    let mut manifest = find(&bytes, b"fp8flow-manifest", 0).unwrap();
    while bytes[manifest + 20] != b'{' {
        manifest = find(&bytes, b"fp8flow-manifest", manifest + 1).unwrap();
    }
    let at = find(&bytes, from.as_bytes(), manifest).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    std::fs::write(path, bytes).unwrap();
}

/// The stage `layers` of a plan.
pub(crate) fn layers(plan: &Plan) -> &PlannedStage {
    plan.stage("layers").unwrap()
}

/// The last part of the names of the layers in FP8, in order.
pub(crate) fn fp8(plan: &Plan) -> Vec<String> {
    let decided = layers(plan).facts["layers"]["layers"].as_array().unwrap();
    let fp8 = decided.iter().filter(|layer| layer["precision"] == "fp8");
    fp8.map(|layer| layer["name"].as_str().unwrap().to_owned()).collect()
}

/// The entry of the layer `name`.
pub(crate) fn layer<'a>(plan: &'a Plan, name: &str) -> &'a Value {
    let decided = layers(plan).facts["layers"]["layers"].as_array().unwrap();
    decided.iter().find(|layer| layer["name"] == name).unwrap()
}
