//! Runs of the binary on the quickstart's data, in a folder of their own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The quickstart's folder.
pub(crate) fn quickstart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../workflows/quickstart").canonicalize().unwrap()
}

/// A folder with a workflow, and what a run of it leaves.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    text: String,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Everything it said.
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Bench {
    /// The quickstart with a few short steps.
    pub(crate) fn new() -> Self {
        let data = quickstart();
        let data = data.display();
        let text = format!(
            r#"[workflow]
name = "test"
seed = 7

[backend]
plugin = "torchao-rowwise"
recipe = "rowwise"

[stages.records]
uses = "data.load"
path = "{data}/dates.json"
format = "alpaca"

[stages.tokens]
uses = "data.tokenize"
records = "records"
tokenizer = "{data}/model/tokenizer.json"
template = "chatml"
held_out = 4

[stages.model]
uses = "model.init"
config = "{data}/model/config.json"

[stages.layers]
uses = "layers.filter"
model = "model"

[stages.train]
uses = "train.sft"
model = "model"
tokens = "tokens"
layers = "layers"
steps = 4
batch = {{ micro = 2, per_step = 6 }}
optimizer = {{ lr = 3e-3 }}
schedule = {{ kind = "cosine", warmup = 1 }}
checkpoint = {{ every_steps = 1, keep = 2 }}

[stages.export]
uses = "checkpoint.export"
model = "train"
tokenizer = "{data}/model"
dir = "out"
"#
        );
        let bench = Self { folder: tempfile::tempdir().unwrap(), text };
        bench.write("workflow.toml", &bench.text);
        bench
    }

    /// The same with a model of one block and two steps, for machines that are slow.
    pub(crate) fn tiny() -> Self {
        let data = quickstart().display().to_string();
        let bench = Self::new()
            .with(&format!("{data}/model/config.json"), "config.json")
            .with(&format!("{data}/dates.json"), "rows.json")
            .with("held_out = 4", "held_out = 2")
            .with("steps = 4", "steps = 2")
            .with("batch = { micro = 2, per_step = 6 }", "batch = { micro = 1, per_step = 2 }");
        let read = |name: &str| {
            let text = std::fs::read_to_string(quickstart().join(name)).unwrap();
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let mut config = read("model/config.json");
        for (key, value) in [("hidden_size", 64), ("intermediate_size", 128), ("num_hidden_layers", 1)] {
            config[key] = value.into();
        }
        config["num_attention_heads"] = 4.into();
        config["num_key_value_heads"] = 2.into();
        bench.write("config.json", config.to_string());
        let rows = read("dates.json").as_array().unwrap()[..8].to_vec();
        bench.write("rows.json", Value::from(rows).to_string());
        bench
    }

    /// The same with `from` replaced by `to`, which must change it.
    pub(crate) fn with(mut self, from: &str, to: &str) -> Self {
        assert!(self.text.contains(from), "the workflow has no `{from}`");
        self.text = self.text.replacen(from, to, 1);
        self.write("workflow.toml", &self.text);
        self
    }

    /// Writes a file into the folder.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The binary with `arguments`, a cache of its own and no plugin folder of the user's.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_under(&[], arguments)
    }

    /// The same, run by another program.
    pub(crate) fn command_under(&self, under: &[&str], arguments: &[&str]) -> Command {
        let words = [under, &[env!("CARGO_BIN_EXE_fp8flow-under-test")], arguments].concat();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .current_dir(self.folder.path())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_DATA_HOME", self.path("data-home"))
            .env_remove("FP8FLOW_ISA")
            .env_remove("FP8FLOW_PLUGIN_PATH")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn fp8flow(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).output().unwrap().into()
    }

    /// `fp8flow run workflow.toml`.
    pub(crate) fn run(&self, more: &[&str]) -> Ended {
        self.fp8flow(&[&["run", "workflow.toml"], more].concat())
    }

    /// Starts a run and leaves it.
    pub(crate) fn start(&self) -> Child {
        self.command(&["run", "workflow.toml"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The folder of the only run.
    pub(crate) fn run_folder(&self) -> PathBuf {
        let runs: Vec<PathBuf> = std::fs::read_dir(self.path("runs"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.join("run.json").exists() && !path.is_symlink())
            .collect();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs[0].clone()
    }

    /// Whether a run has come to its end, whatever became of its process after that.
    pub(crate) fn is_finished(&self) -> bool {
        let Ok(runs) = std::fs::read_dir(self.path("runs")) else { return false };
        runs.filter_map(|entry| std::fs::read_to_string(entry.unwrap().path().join("run.json")).ok())
            .any(|record| record.contains("\"status\": \"finished\""))
    }

    /// A digest a line of every file of the final checkpoint and of the export.
    pub(crate) fn result(&self) -> String {
        self.result_of(&self.run_folder())
    }

    /// The same of one of several runs.
    pub(crate) fn result_of(&self, run: &Path) -> String {
        let checkpoints = run.join("train/checkpoints");
        let mut steps: Vec<_> =
            std::fs::read_dir(&checkpoints).unwrap().map(|entry| entry.unwrap().path()).collect();
        steps.sort();
        let mut lines = String::new();
        for folder in [steps.last().unwrap().clone(), self.path("out")] {
            let mut files: Vec<_> =
                std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.sort();
            for file in files {
                let name = file.file_name().unwrap().to_string_lossy().into_owned();
                let digest = blake3::hash(&std::fs::read(&file).unwrap());
                writeln!(lines, "{name} {digest}").unwrap();
            }
        }
        lines
    }
}
