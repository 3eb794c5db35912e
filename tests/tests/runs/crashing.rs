//! A plugin that takes the process with it in the middle of a run: it is named, and the run goes on to the same bytes.

use std::os::unix::process::ExitStatusExt as _;

use serde_json::{Value, json};

use crate::conformance::built;
use crate::environment::under;
use crate::program::{Bench, Ended};

const LAYER: &str = "model.layers.0.mlp.up_proj";

fn bench() -> Bench {
    under(Bench::tiny(), ("breaking", "fp8"))
}

/// A run in which the plugin breaks as it is told; the signal that ended it, and what it said.
fn broken(bench: &Bench, how: &str, arguments: &[&str]) -> (Option<i32>, Ended) {
    let mut command = bench.command(&[&["run", "workflow.toml"], arguments].concat());
    let output = command.env("FP8FLOW_TEST_BREAK", how).output().unwrap();
    (output.status.signal(), output.into())
}

#[test]
fn a_crash_in_a_call_is_told_and_the_run_goes_on_to_the_same_bytes() {
    let straight = bench();
    assert_eq!(straight.run(&[]).code, Some(0));
    let expected = straight.result();
    // In the second step: the first is saved.
    for (call, how, number, name) in [
        ("forward", "segfault", 11, "SIGSEGV (segmentation fault)"),
        ("backward", "abort", 6, "SIGABRT (abort)"),
        ("task", "divide", 8, "SIGFPE (arithmetic error)"),
        ("forward", "illegal", 4, "SIGILL (illegal instruction)"),
        ("task", "bus", 7, "SIGBUS (bus error)"),
    ] {
        let bench = bench();
        let (signal, said) = broken(&bench, &format!("{call}:{LAYER}:2:{how}"), &["--threads", "2"]);
        assert_eq!(signal, Some(number), "{how}: {}", said.all());
        let call = if call == "task" { "forward" } else { call };
        for words in [
            &format!(
                "plugin `breaking` has crashed the process with {name} in `{call}` of layer `{LAYER}`\n"
            ),
            "what it had saved is kept: `fp8flow run workflow.toml` goes on from there\n",
            &format!("help: `fp8flow plugin test {}` tries", built("breaking").display()),
        ] {
            assert!(said.err.contains(words), "{how}: no {words:?} in\n{}", said.err);
        }
        // Who asks later hears it too, until the run goes on.
        let crash = format!("plugin `breaking` crashed it with {name} in `{call}` of layer `{LAYER}`");
        let status = bench.fp8flow(&["status"]);
        assert!(status.out.contains(&format!("\n{crash}; goes on with: ")), "{how}: {}", status.all());
        let told: Value = serde_json::from_str(&bench.fp8flow(&["status", "--json"]).out).unwrap();
        let noted = json!({ "plugin": "breaking", "layer": LAYER, "call": call, "signal": name });
        assert_eq!((&told["status"], &told["crash"]), (&"killed".into(), &noted));
        let again = bench.run(&[]);
        assert_eq!(again.code, Some(0), "{how}: {}", again.all());
        assert!(again.all().contains(" goes on, in ") && again.all().contains(&crash), "{}", again.all());
        let entries = std::fs::read_dir(bench.run_folder()).unwrap().flatten();
        let names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        assert!(!names.iter().any(|name| name.contains("crash")), "{names:?}");
        assert_eq!(bench.result(), expected, "{how}");
    }
}

#[test]
fn a_stack_that_runs_out_in_a_call_is_told_by_both_handlers() {
    let bench = bench();
    let how = format!("forward:{LAYER}:0:overflow");
    let (signal, said) =
        broken(&bench, &how, &["--threads", "1", "--set", "workflow.seed=8", "--plugin-path", "."]);
    assert_eq!(signal, Some(6), "{}", said.all());
    let words = [
        "with SIGSEGV (segmentation fault) in `forward`",
        "`fp8flow run workflow.toml --set workflow.seed=8 --plugin-path .` goes on",
        "has overflowed its stack",
    ];
    for words in words {
        assert!(said.err.contains(words), "no {words:?} in\n{}", said.err);
    }
    assert_eq!(said.err.matches("error: plugin").count(), 1, "told once: {}", said.err);
    let noted = bench.fp8flow(&["status"]);
    assert!(noted.out.contains("plugin `breaking` crashed it with SIGSEGV"), "{}", noted.all());
}
