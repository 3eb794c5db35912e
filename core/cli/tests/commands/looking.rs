//! The commands that start nothing.

use snapbox::{assert_data_eq, str};

use crate::bench::{Bench, json};

#[test]
fn a_wrong_command_line_is_exit_2() {
    let bench = Bench::empty();
    assert_eq!(bench.fp8flow("").code, 2);
    let said = bench.fp8flow("chekc workflow.toml");
    assert_eq!(said.code, 2);
    assert!(said.err.contains("'check'"), "{}", said.err);
    assert_eq!(bench.fp8flow("run").code, 2);
    assert_eq!(bench.fp8flow("run w.toml -q -v").code, 2);
    for set in ["stages.train.steps", "=3", "stages.train.steps=1 --set x"] {
        let said = bench.fp8flow(&format!("check w.toml --set {set}"));
        assert_eq!(said.code, 2, "{set}");
        assert!(said.err.contains("expected `key=value`"), "{}", said.err);
    }
    let version = bench.fp8flow("--version");
    assert_eq!((version.code, version.out.trim()), (0, concat!("fp8flow ", env!("CARGO_PKG_VERSION"))));
    assert_eq!(bench.fp8flow("run --help").code, 0);
}

#[test]
fn everything_wrong_is_shown_with_its_place_and_nothing_is_started() {
    let bench = Bench::small();
    let text = String::from_utf8(bench.read("workflow.toml")).expect("text");
    bench.write(
        "workflow.toml",
        &text.replacen("template ", "templte ", 1).replacen("\"layers.filter\"", "\"layers.fliter\"", 1),
    );
    for command in ["check", "plan", "run"] {
        let said = bench.fp8flow(&format!("{command} workflow.toml --set stages.train.steps=none"));
        assert_eq!((said.code, said.out.as_str()), (3, ""), "{command}");
        assert_data_eq!(
            said.err,
            str![[r#"
error[F0101]: unknown key `templte` in stage `tokens` (data.tokenize)
  --> workflow.toml:21:1
   |
21 | templte  = "chatml"
   | ^^^^^^^
   |
   = note: known keys: [..]
help: did you mean `template`?

error[F0103]: unknown kind of stage `layers.fliter`
  --> workflow.toml:29:9
   |
29 | uses  = "layers.fliter"
   |         ^^^^^^^^^^^^^^^
   |
   = note: known kinds: [..]
help: did you mean `layers.filter`?

error[F0102]: `steps` must be a whole number from 1 up
 --> <--set #1>:1:20
  |
1 | stages.train.steps=none
  |                    ^^^^ found a string

3 errors; nothing was started

"#]]
        );
    }
    assert!(!bench.path("runs").exists());
}

#[test]
fn findings_are_objects_under_json() {
    let bench = Bench::small();
    let said = bench
        .fp8flow("--json check workflow.toml --set stages.train.stps=1 --set stages.export.model=nobody");
    assert_eq!((said.code, said.err.as_str()), (3, ""));
    let error = &said.lines()[0];
    assert_eq!((error["event"].as_str(), error["exit_code"].as_u64()), (Some("error"), Some(3)));
    let finding = &error["findings"][0];
    assert_eq!(finding["code"], "F0101");
    assert_eq!((finding["file"].as_str(), finding["column"].as_u64()), (Some("<--set #1>"), Some(14)));
    assert_eq!(finding["help"], "did you mean `steps`?");
    assert_eq!(error["findings"][1]["code"], "F0103");
}

#[test]
fn what_is_missing_is_exit_69() {
    let bench = Bench::small();
    let said = bench.fp8flow("check workflow.toml --set backend.plugin=nobodys-plugin");
    assert_eq!(said.code, 69, "{}", said.err);
    assert!(said.err.contains("nobodys-plugin") && said.err.contains("<--set #1>:1:16"), "{}", said.err);
    assert_eq!(bench.fp8flow("plugin show nobodys-plugin").code, 69);
    let isa = bench.command("check workflow.toml").env("FP8FLOW_ISA", "mmx").output().expect("it starts");
    assert_eq!(isa.status.code(), Some(69));
}

#[test]
fn a_workflow_that_is_not_there_is_exit_3() {
    let said = Bench::empty().fp8flow("run nothing.toml");
    assert_eq!(said.code, 3);
    assert!(said.err.contains("cannot read the workflow nothing.toml"), "{}", said.err);
}

#[test]
fn a_plan_shows_stages_layers_and_every_value_and_leaves_nothing() {
    let bench = Bench::small();
    let said = bench.fp8flow("plan workflow.toml");
    assert_eq!(said.code, 0, "{}", said.err);
    for line in [
        "1. records  data.load: → records\n",
        "5. train  train.sft: model, tokens, layers → model\n",
        "0 of 8 linear layers in FP8",
        "no FP8 backend",
        "   schedule.kind = \"cosine\"\n",
        "   clip = 1.0\n",
        "nothing was started\n",
    ] {
        assert!(said.out.contains(line), "{line}\n{}", said.out);
    }
    // Colour is for terminals.
    assert!(!said.out.contains('\x1b'));
    let plan = &bench.fp8flow("plan workflow.toml --json").lines()[0];
    assert_eq!(plan["stages"][4]["params"]["optimizer"]["betas"][0], 0.9);
    assert_eq!(plan["sections"]["workflow"]["params"]["seed"], 42);
    assert!(!bench.path("runs").exists());
    assert_eq!(bench.fp8flow("check workflow.toml").out, "workflow.toml is valid: 6 stages\n");
}

#[test]
fn a_plan_of_one_stage_says_on_one_screen_which_layers_run_in_fp8() {
    let bench = Bench::small();
    let said = bench.fp8flow("plan workflow.toml --stage layers");
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("0 of 8 linear layers in FP8"), "{}", said.out);
    assert!(!said.out.contains("train.sft") && said.out.lines().count() <= 24, "{}", said.out);
    let stages = &bench.fp8flow("plan workflow.toml --stage layers --json").lines()[0]["stages"];
    assert_eq!((stages.as_array().unwrap().len(), &stages[0]["name"]), (1, &"layers".into()));
    let said = bench.fp8flow("plan workflow.toml --stage layer");
    assert_eq!(said.code, 3);
    assert!(said.err.contains("no stage `layer`") && said.err.contains("layers, train"), "{}", said.err);
}

#[test]
fn a_first_workflow_is_written_once_and_is_valid() {
    let bench = Bench::empty();
    let said = bench.fp8flow("init mine --template quickstart");
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, "wrote mine/workflow.toml\nnext: fp8flow run mine/workflow.toml\n")
    );
    assert_eq!(bench.fp8flow("check mine/workflow.toml --set backend={plugin=\"none\"}").code, 0);
    let schema = json(&bench.path("mine/.fp8flow/workflow.schema.json"));
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-04/schema#");

    bench.write("mine/workflow.toml", "mine");
    let said = bench.fp8flow("init mine");
    assert_eq!(said.code, 74);
    assert!(said.err.contains("mine/workflow.toml is there already"), "{}", said.err);
    assert_eq!(bench.read("mine/workflow.toml"), b"mine");

    assert_eq!(bench.fp8flow("init other").code, 0);
    let text = String::from_utf8(bench.read("other/workflow.toml")).expect("text");
    assert!(
        text.starts_with("#:schema .fp8flow/workflow.schema.json\n") && !text.contains("workflows/"),
        "{text}"
    );
    // It waits for data and a model, and for nothing else.
    let said = bench.fp8flow("check other/workflow.toml --json --set backend={plugin=\"none\"}");
    let findings = said.lines()[0]["findings"].clone();
    let codes: Vec<&str> =
        findings.as_array().expect("a list").iter().filter_map(|f| f["code"].as_str()).collect();
    assert!(!codes.is_empty() && codes.iter().all(|code| *code == "F0108"), "{findings}");
}

#[test]
fn the_schema_is_printed_in_three_ways() {
    let bench = Bench::empty();
    let schema: serde_json::Value = serde_json::from_str(&bench.fp8flow("schema").out).expect("JSON");
    assert!(schema["definitions"]["train.sft"]["properties"]["steps"].is_object());
    let stage: serde_json::Value =
        serde_json::from_str(&bench.fp8flow("schema --stage data.load").out).expect("JSON");
    assert_eq!(stage, schema["definitions"]["data.load"]);
    assert!(bench.fp8flow("schema --format markdown").out.contains("## `uses = \"train.sft\"`"));
    assert!(bench.fp8flow("schema --format text --stage train.sft").out.contains("\n  optimizer.lr\n"));
    let said = bench.fp8flow("schema --stage train");
    assert_eq!(said.code, 3);
    assert!(said.err.contains("train.sft"), "{}", said.err);
}

#[test]
fn plugins_are_listed_with_the_places_that_were_searched() {
    let bench = Bench::empty();
    std::fs::create_dir(bench.path("plugins")).expect("made");
    bench.write("plugins/libnothing.so", "no library");
    let said = bench.fp8flow("plugin list --plugin-path plugins");
    assert_eq!(said.code, 0);
    assert!(said.out.contains("places searched, in this order:\n"), "{}", said.out);
    assert!(said.out.contains("plugins (the command line)"), "{}", said.out);
    let list = &bench.fp8flow("plugin list --plugin-path plugins --json").lines()[0];
    assert_eq!(list["places"][0]["origin"], "the command line");
}

#[test]
fn the_doctor_answers_in_one_object_and_by_its_exit_code() {
    let bench = Bench::small();
    let said = bench.fp8flow("doctor --workflow workflow.toml --json");
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    let object = &said.lines()[0];
    assert_eq!(
        (object["event"].as_str(), object["can_run"].as_bool()),
        (Some("doctor_finished"), Some(true))
    );
    let rows = object["rows"].as_array().expect("rows");
    let backend = rows.iter().find(|row| row["name"] == "backend").expect("a row");
    assert_eq!((backend["group"].as_str(), backend["status"].as_str()), (Some("workflow"), Some("ok")));
    assert_eq!(backend["found"], "none: no FP8 was asked for");

    let said = bench.fp8flow("doctor --workflow workflow.toml --set workflow.device=cuda:1");
    assert_eq!((said.code, said.err.as_str()), (69, ""), "{}", said.out);
    for words in ["  fail  plan ", "the card cannot be used", "cannot run workflow.toml"] {
        assert!(said.out.contains(words), "{words}\n{}", said.out);
    }
    assert_eq!(bench.fp8flow("doctor --workflow workflow.toml --set stages.train.steps=0").code, 3);
    assert_eq!(bench.fp8flow("doctor --set stages.train.steps=1").code, 2);
    let isa = bench.command("doctor").env("FP8FLOW_ISA", "mmx").output().expect("it starts");
    assert_eq!(isa.status.code(), Some(69));
    assert!(!bench.path("runs").exists());
}

#[test]
fn stdout_that_takes_nothing_is_exit_74_and_one_that_was_closed_is_not() {
    let bench = Bench::small();
    for line in ["plan workflow.toml", "check workflow.toml --json", "schema", "plugin list"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
        let output = bench.command(line).stdout(full).output().expect("it starts");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(74), "{line}: {err}");
        assert!(err.contains("cannot write to stdout"), "{line}: {err}");

        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = bench.command(line).stdout(writer).output().expect("it starts");
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{line}");
    }
}
