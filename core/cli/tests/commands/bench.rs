//! A folder to run the program in, apart from everything that is installed on the machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A folder of its own.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
}

/// What the program said, and its exit code.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Bench {
    /// An empty folder.
    pub(crate) fn empty() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    /// The quickstart with a model that takes a blink a step, without FP8.
    pub(crate) fn small() -> Self {
        let bench = Self::empty();
        assert_eq!(bench.fp8flow("init --template quickstart").code, 0);
        let path = bench.path("quickstart/model/config.json");
        let mut config: Value =
            serde_json::from_slice(&bench.read("quickstart/model/config.json")).expect("JSON");
        for (key, value) in [
            ("hidden_size", 16),
            ("intermediate_size", 16),
            ("num_hidden_layers", 1),
            ("num_attention_heads", 1),
            ("num_key_value_heads", 1),
            ("head_dim", 16),
        ] {
            config[key] = value.into();
        }
        std::fs::write(path, config.to_string()).expect("written");
        let workflow = String::from_utf8(bench.read("workflow.toml")).expect("text");
        let workflow = workflow
            .replacen("\"torchao-rowwise\"\nrecipe = \"rowwise\"", "\"none\"", 1)
            .replacen("held_out  = 200", "held_out  = 0", 1)
            .replacen("micro = 32, per_step = 32", "micro = 1, per_step = 1", 1)
            .replacen("steps     = 400", "steps     = 3", 1);
        bench.write("workflow.toml", &workflow);
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("it is there")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    /// The program with `line` as its arguments, cut at spaces.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fp8flow"));
        command.args(line.split_whitespace()).current_dir(self.folder.path()).stdin(Stdio::null());
        for variable in ["FP8FLOW_PLUGIN_PATH", "FP8FLOW_LOG", "FP8FLOW_ISA", "NO_COLOR", "CLICOLOR_FORCE"] {
            command.env_remove(variable);
        }
        for variable in ["HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"] {
            command.env(variable, self.path("home"));
        }
        command
    }

    /// Runs the program to its end.
    pub(crate) fn fp8flow(&self, line: &str) -> Said {
        Said::new(self.command(line).output().expect("it starts"))
    }

    /// The records of the runs in `runs`, oldest first.
    pub(crate) fn runs(&self) -> Vec<(PathBuf, Value)> {
        let entries = std::fs::read_dir(self.path("runs")).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| {
            // Every run has its record; the store beside them is hidden.
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            !hidden && entry.file_type().is_ok_and(|kind| kind.is_dir())
        });
        let mut runs: Vec<(PathBuf, Value)> =
            folders.map(|entry| (entry.path(), json(&entry.path().join("run.json")))).collect();
        runs.sort_by_key(|(_, run)| run["sequence"].as_u64());
        runs
    }
}

impl Said {
    pub(crate) fn new(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Stdout as JSON, a value a line.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect()
    }
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("it is there")).expect("it is JSON")
}
