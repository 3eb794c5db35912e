//! `fp8flow doctor` on machines that are made for the test: a folder with the binary, the plugins that lie beside it, and
//! libraries that stand in for NVIDIA's.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fp8flow_kernels::Isa;
use serde_json::Value;

use crate::program::{Bench, Ended, quickstart};

/// A machine with the binary in a folder of its own.
struct Machine {
    bench: Bench,
}

impl Machine {
    /// With the libraries of these plugins beside the binary.
    fn with(plugins: &[&str]) -> Self {
        let machine = Self { bench: Bench::new() };
        link(Path::new(env!("CARGO_BIN_EXE_fp8flow-under-test")), &machine.bench.write("bin/fp8flow", ""));
        for plugin in plugins {
            // A copy: a further link from another test is a change to a file that is being loaded.
            let name = format!("lib{plugin}.so");
            std::fs::copy(built().join(&name), machine.bench.path(&format!("bin/{name}"))).unwrap();
        }
        machine
    }

    /// A sound one.
    fn sound() -> Self {
        Self::with(&["torchao_rowwise"])
    }

    /// The same with NVIDIA's libraries of the tests.
    fn with_cards(self) -> Self {
        for name in ["libcuda.so.1", "libcublasLt.so.12", "libnvrtc.so.12"] {
            link(&built().join("libcuda_stand_in.so"), &self.bench.write(&format!("bin/cuda/{name}"), ""));
        }
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.bench.path("bin/fp8flow"));
        command
            .arg("doctor")
            .args(arguments)
            .current_dir(self.bench.folder.path())
            .env("XDG_CACHE_HOME", self.bench.path("cache"))
            .env("XDG_DATA_HOME", self.bench.path("data-home"))
            .stdin(Stdio::null());
        for variable in ["FP8FLOW_ISA", "FP8FLOW_PLUGIN_PATH", "FP8FLOW_CUDA_DIR", "VIRTUAL_ENV"] {
            command.env_remove(variable);
        }
        command
    }

    /// What the doctor says to people.
    fn doctor(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).output().unwrap().into()
    }

    /// What it says to programs, with variables of the environment, and the exit code.
    fn json(&self, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, Diagnosis) {
        let mut command = self.command(arguments);
        let ended: Ended = command.arg("--json").envs(environment.iter().copied()).output().unwrap().into();
        assert_eq!(ended.out.lines().count(), 1, "{}", ended.all());
        (ended.code.unwrap(), Diagnosis(serde_json::from_str(&ended.out).unwrap()))
    }
}

/// What the doctor says to programs.
#[derive(Debug)]
struct Diagnosis(Value);

impl Diagnosis {
    /// The row of a group; there is one of that name.
    fn row(&self, group: &str, name: &str) -> &Value {
        let mut rows = self.rows(group).into_iter().filter(|row| row["name"] == name);
        let row = rows.next().unwrap_or_else(|| panic!("no row {group} {name} in {:#}", self.0));
        assert!(rows.next().is_none(), "two rows {group} {name} in {:#}", self.0);
        row
    }

    fn rows(&self, group: &str) -> Vec<&Value> {
        self.0["rows"].as_array().unwrap().iter().filter(|row| row["group"] == group).collect()
    }

    /// Asserts the status of a row, and words in what was found or advised.
    fn expect(&self, group: &str, name: &str, status: &str, words: &[&str]) {
        let row = self.row(group, name);
        assert_eq!(row["status"], status, "{row:#}");
        let text = format!("{} {}", row["found"], row["advice"]).replace("\\\"", "\"");
        for words in words {
            assert!(text.contains(words), "no `{words}` in {row:#}");
        }
    }
}

/// Where Cargo builds the libraries of plugins.
fn built() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// The same file at another place, in place of what is there.
fn link(file: &Path, at: &Path) {
    let _ = std::fs::remove_file(at);
    std::fs::hard_link(file, at).or_else(|_| std::fs::copy(file, at).map(drop)).unwrap();
}

#[test]
fn a_sound_machine_is_told_row_by_row() {
    let machine = Machine::sound();
    let (code, found) = machine.json(&[], &[]);
    assert_eq!((code, &found.0["can_run"], &found.0["exit_code"]), (0, &true.into(), &0.into()));
    let keys: Vec<&String> = found.0.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["event", "fp8flow", "workflow", "can_run", "class", "exit_code", "counts", "rows"],
        "other programs read these"
    );
    let keys: Vec<&String> = found.0["rows"][0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["group", "name", "status", "found", "advice", "place", "facts"]);
    let cpu = found.row("machine", "cpu");
    assert_eq!(
        (&cpu["facts"]["isa"], &cpu["facts"]["features"]["sse2"]),
        (&Isa::best().name().into(), &true.into())
    );
    assert!(found.row("machine", "memory")["facts"]["available"].as_u64().unwrap() > 0);
    assert!(found.row("machine", "disk")["facts"]["free"].as_u64().unwrap() > 0);
    let plugin = found.row("plugins", "torchao-rowwise");
    assert_eq!(plugin["facts"]["digest"].as_str().unwrap().len(), 64);
    assert_eq!(plugin["facts"]["path"], plugin["place"]);
    for (recipe, gemms) in
        [("rowwise", [5, 5, 5]), ("tensorwise", [5, 5, 5]), ("rowwise_with_gw_hp", [5, 5, 0])]
    {
        let name = format!("torchao-rowwise/{recipe}");
        found.expect("plugins", &name, "ok", &["dB from exact"]);
        let trial = &found.row("plugins", &name)["facts"]["trial"];
        assert_eq!(trial["counted"], serde_json::json!(gemms), "{trial:#}");
        let y = trial["db"][0].as_f64().unwrap();
        assert!((20.0..45.0).contains(&y), "{trial:#}");
    }
    assert!(found.rows("workflow").is_empty());
}

#[test]
fn people_get_one_screen_of_a_hundred_columns() {
    let machine = Machine::sound();
    for arguments in [&[][..], &["--workflow", "workflow.toml"]] {
        let ended = machine.doctor(arguments);
        assert_eq!(ended.code, Some(0), "{}", ended.all());
        let lines: Vec<&str> = ended.out.lines().collect();
        assert!(lines.len() <= 45, "{} lines\n{}", lines.len(), ended.out);
        for line in lines.iter().filter(|line| !line.trim_start().starts_with('/')) {
            assert!(line.chars().count() <= 100, "{line}");
        }
        for words in
            ["machine\n", "  ok    cpu ", "plugins\n", "  ok      tensorwise ", "this machine can run"]
        {
            assert!(ended.out.contains(words), "no `{words}` in\n{}", ended.out);
        }
    }
    let brief = machine.doctor(&["--quiet"]);
    assert!(!brief.out.contains("  ok  ") && brief.out.contains("this machine can run FP8"), "{}", brief.out);
}

#[test]
fn without_any_plugin_there_is_no_fp8() {
    let (code, found) = Machine::with(&[]).json(&[], &[]);
    assert_eq!((code, &found.0["class"]), (69, &"missing".into()));
    found.expect("plugins", "plugins", "fail", &["none", "--plugin-path"]);
    assert!(!found.row("plugins", "plugins")["facts"]["places"].as_array().unwrap().is_empty());
}

#[test]
fn broken_plugins_are_named_whatever_they_do() {
    let machine = Machine::with(&["torchao_rowwise", "crashing"]);
    for (crash, words) in [
        ("segfault", &["crashed with SIGSEGV", "Rebuild it"][..]),
        ("nothing", &[]),
        ("exit", &["ended the process", "exit status: 3"]),
        ("error", &["told to fail"]),
        ("work", &["crashed with SIGABRT", "recipe none: forward and backward"]),
    ] {
        let (code, found) = machine.json(&[], &[("FP8FLOW_TEST_CRASH", crash)]);
        assert_eq!(code, 69, "{crash}: {:#}", found.0);
        if words.is_empty() {
            found.expect("plugins", "crashing", "ok", &[]);
            found.expect(
                "plugins",
                "crashing/none",
                "fail",
                &["it has no arithmetic", "Do not train with it"],
            );
            std::fs::remove_dir_all(machine.bench.path("cache")).unwrap();
        } else {
            found.expect("plugins", "crashing", "fail", words);
        }
        found.expect("plugins", "torchao-rowwise/rowwise", "ok", &[]);
    }
    let (code, found) = Machine::with(&["faulty"]).json(&[], &[]);
    assert_eq!(code, 69);
    found.expect("plugins", "faulty/faulty", "fail", &["forward"]);
}

#[test]
fn a_library_that_is_cut_short_is_a_warning_beside_a_sound_one() {
    let machine = Machine::sound();
    let bytes = std::fs::read(built().join("libfaulty.so")).unwrap();
    machine.bench.write("bin/libhalf.so", &bytes[..bytes.len() / 2]);
    let (code, found) = machine.json(&[], &[]);
    assert_eq!(code, 0, "{:#}", found.0);
    found.expect("plugins", "libhalf.so", "warn", &["damaged or cut short", "Rebuild it"]);
}

#[test]
fn cards_are_judged_by_the_table() {
    let machine = Machine::sound().with_cards();
    let cards = |cards: &str| machine.json(&[], &[("FP8FLOW_TEST_CARDS", cards)]);
    let (code, found) = cards("hopper,ada,small,ampere");
    assert_eq!(code, 0, "the CPU does the work: {:#}", found.0);
    found.expect("cuda", "driver", "ok", &["CUDA 12.9", "checked on an NVIDIA H100"]);
    found.expect("cuda", "card 0", "ok", &["H100", "9.0", "85.0 GB", "rowwise", "blockwise"]);
    found.expect(
        "cuda",
        "card 1",
        "ok",
        &["RTX 4090", "fits rowwise, tensorwise, rowwise_with_gw_hp, delayed, current"],
    );
    found.expect("cuda", "card 2", "warn", &["8.20 GB", "24 GB or more are recommended"]);
    found.expect("cuda", "card 3", "warn", &["A100", "Device compute capability 8.9 or higher is required"]);
    found.expect("cuda", "cuBLASLt", "ok", &["12.9"]);
    found.expect("cuda", "NVRTC", "ok", &["12.9"]);
    assert_eq!(
        found.row("cuda", "NVRTC")["place"],
        machine.bench.path("bin/cuda/libnvrtc.so.12").canonicalize().unwrap().to_str().unwrap()
    );

    let (_, found) = cards("hopper,old-driver");
    found.expect("cuda", "driver", "warn", &["CUDA 11.8", "12.0 or later is needed"]);
    let (_, found) = cards("");
    found.expect("cuda", "card", "warn", &["sees none", "CUDA_VISIBLE_DEVICES"]);
    let (code, found) = cards("crash");
    assert_eq!(code, 0);
    found.expect("cuda", "driver", "warn", &["crashed with SIGABRT", "Install the driver again"]);
}

#[test]
fn a_workflow_that_can_run_here_is_exit_0() {
    let machine = Machine::sound();
    let (code, found) = machine.json(&["--workflow", "workflow.toml"], &[]);
    assert_eq!((code, &found.0["workflow"]), (0, &"workflow.toml".into()), "{:#}", found.0);
    found.expect("workflow", "plan", "ok", &["test: valid, 6 stages"]);
    found.expect("workflow", "backend", "ok", &["torchao-rowwise, rowwise: y ", "dB from exact"]);
    found.expect("workflow", "layers", "ok", &["28 of 29 linear layers in FP8"]);
    found.expect("workflow", "memory", "ok", &["train: ", "of masters, moments and 3 gradients", "at most"]);
    found.expect("workflow", "disk", "ok", &["of checkpoints", "of export", "free: "]);
    // A plugin that the workflow does not use may be as broken as it likes.
    let machine = Machine::with(&["torchao_rowwise", "faulty"]);
    let (code, found) = machine.json(&["--workflow", "workflow.toml"], &[]);
    assert_eq!(code, 0, "{:#}", found.0);
    assert_eq!(found.0["counts"]["fail"], 1);
    assert!(!machine.bench.path("runs").exists(), "nothing is started");
}

#[test]
fn a_workflow_that_is_not_valid_is_exit_3_with_every_error() {
    let set =
        ["--workflow", "workflow.toml", "--set", "stages.train.stpes=1", "--set", "stages.train.clip=-1"];
    let (code, found) = Machine::sound().json(&set, &[]);
    assert_eq!((code, &found.0["class"]), (3, &"invalid".into()));
    let plan = found.rows("workflow");
    assert_eq!(plan.len(), 2, "{:#}", found.0);
    assert!(plan.iter().all(|row| row["name"] == "plan" && row["status"] == "fail"));
    assert_eq!(plan[0]["advice"], "did you mean `steps`?");
    assert_eq!((&plan[0]["place"], &plan[0]["facts"]["code"]), (&"<--set #1>:1:14".into(), &"F0101".into()));
    let (code, found) = Machine::sound().json(&["--workflow", "nothing.toml"], &[]);
    assert_eq!(code, 3);
    found.expect("workflow", "plan", "fail", &["cannot read the workflow nothing.toml"]);
}

#[test]
fn what_a_workflow_lacks_here_is_exit_69() {
    let machine = Machine::sound();
    let with = |key: &str| machine.json(&["--workflow", "workflow.toml", "--set", key], &[]);
    let no_driver = |status, words: &[&str], found: &Diagnosis| {
        if !Path::new("/proc/driver/nvidia").exists() {
            found.expect("cuda", "driver", status, words);
        }
    };
    let (code, found) = with("workflow.device=cuda");
    assert_eq!(code, 69, "{:#}", found.0);
    found.expect("workflow", "plan", "fail", &["the card cannot be used", "device = \"cpu\""]);
    assert_eq!(found.row("workflow", "plan")["facts"]["code"], "F0201");
    no_driver("fail", &["no libcuda.so.1", "Hopper"], &found);
    let (code, found) = with("backend.plugin=nobodys-plugin");
    assert_eq!(code, 69);
    found.expect("workflow", "plan", "fail", &["no plugin `nobodys-plugin` was found"]);
    no_driver("warn", &["not needed on the CPU"], &found);
}

#[test]
fn a_backend_that_pretends_under_the_options_of_a_workflow_cannot_run_it() {
    let machine = Machine::with(&["pretending"]);
    for (how, code, status, words) in [
        ("honest", 0, "ok", "dB from exact"),
        ("silent", 69, "fail", "it counted [0, 0, 0]"),
        ("lying", 69, "fail", "it is computed in high precision, not in FP8"),
    ] {
        let backend = format!("backend={{ plugin = \"pretending\", options = {{ how = \"{how}\" }} }}");
        let (found_code, found) = machine.json(&["--workflow", "workflow.toml", "--set", &backend], &[]);
        assert_eq!(found_code, code, "{how}: {:#}", found.0);
        found.expect("workflow", "backend", status, &[words]);
    }
}

#[test]
fn a_model_too_large_for_memory_and_disk_is_told_before_it_is_tried() {
    let text = std::fs::read_to_string(quickstart().join("model/config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for (key, value) in [
        ("hidden_size", 16384),
        ("intermediate_size", 53248),
        ("num_hidden_layers", 120),
        ("num_attention_heads", 128),
        ("num_key_value_heads", 8),
        ("head_dim", 128),
    ] {
        config[key] = value.into();
    }
    let machine = Machine::sound();
    machine.bench.write("large.json", config.to_string());
    let (code, found) =
        machine.json(&["--workflow", "workflow.toml", "--set", "stages.model.config=large.json"], &[]);
    assert_eq!(code, 69, "{:#}", found.0);
    found.expect("workflow", "plan", "ok", &[]);
    found.expect("workflow", "memory", "fail", &["more memory, or a smaller model"]);
    found.expect("workflow", "disk", "fail", &["Make room"]);
    // Examples as long as the context might not fit; they need not be so long.
    config = serde_json::from_str(&text).unwrap();
    config["max_position_embeddings"] = 2_000_000_000.into();
    machine.bench.write("long.json", config.to_string());
    let long = ["--workflow", "workflow.toml", "--set", "stages.model.config=long.json"];
    let cutoff = [&long[..], &["--set", "stages.tokens.cutoff=2000000000"]].concat();
    let (code, found) = machine.json(&cutoff, &[]);
    assert_eq!(code, 0, "{:#}", found.0);
    found.expect("workflow", "memory", "warn", &["of 4000000000 tokens", "shorter `cutoff`"]);
}
