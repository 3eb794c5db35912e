//! Inputs with names that the user chooses, other tables of the user's keys, and results that serve their run alone.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use fp8flow_flow::{
    Artifact, Error, Event, Field, Kind, Outcome, Params, PlanCx, Planned, Registry, Run, RunOptions,
    StageCx, StageError, StageKind, State, Workflow, docs, explain, schema,
};
use serde_json::json;
use snapbox::{assert_data_eq, str};

use crate::toys::{self, Calls, GOOD, Heard};

/// Takes whatever it is given.
struct Gather(Calls);

impl StageKind for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }
    fn about(&self) -> &'static str {
        "Gathers results."
    }
    fn produces(&self) -> &'static str {
        "files"
    }
    fn fields(&self) -> Vec<Field> {
        vec![
            Field::edges("inputs", &[]).about("Anything."),
            Field::edges("models", &["model"]).about("Models."),
            Field::map("limits", Kind::integer(1..)).about("Numbers."),
            Field::new("files", Kind::list(Kind::Path { exists: true }, ..))
                .default(json!([]))
                .about("Files."),
            Field::bool("cache").default(true).about("Whether it is a function.").changes_no_result(),
        ]
    }
    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let inputs =
            cx.inputs("inputs").into_iter().map(|(name, stage)| format!("{name} from {}", stage.uses));
        Planned::default().line(inputs.collect::<Vec<_>>().join(", "))
    }
    fn is_function(&self, params: &Params) -> bool {
        params.get("cache")
    }
    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        self.0.note(format!("gather{}", if cx.resumed() { ", resumed" } else { "" }));
        fs::write(cx.folder().join("left"), "x").expect("written");
        fs::create_dir_all(cx.folder().join("kept/inner")).expect("made");
        cx.empty_folder(&["kept"])?;
        assert!(!cx.folder().join("left").exists() && cx.folder().join("kept/inner").exists());
        let all = cx.inputs("inputs").into_iter().chain(cx.inputs("models"));
        let line =
            |(name, artifact): (&str, &Artifact)| format!("{name} {} {}", artifact.stage, artifact.kind);
        let lines: Vec<String> = all.map(line).collect();
        assert!(cx.optional_input("inputs").is_none());
        let path = cx.folder().join("names");
        fs::write(&path, lines.join("\n")).map_err(|error| StageError::io(&path, error))?;
        Ok(Outcome::default())
    }
}

const STAGE: &str = "\n[stages.all]\nuses = \"gather\"\ninputs = { rows = \"records\", after = \"export\", rows2 = \"records\" }\nmodels.base = \"model\"\n";

struct Bench {
    folder: tempfile::TempDir,
    calls: Calls,
    heard: Heard,
}

impl Bench {
    fn new() -> Self {
        Self { folder: toys::folder(), calls: Calls::default(), heard: Heard::default() }
    }

    fn registry(&self) -> Registry {
        toys::registry(&self.calls).stage(Gather(self.calls.clone()))
    }

    fn plan(&self, text: &str, sets: &[&str]) -> Result<fp8flow_flow::Plan, Error> {
        Workflow::parse(&self.folder.path().join("w.toml"), text, sets)?.plan(&self.registry())
    }

    /// What ran, and the run's folder.
    fn run(&self, text: &str, sets: &[&str]) -> (Vec<String>, PathBuf) {
        let plan = self.plan(text, sets).expect("it is good");
        let run = Run::open(&plan, RunOptions::default()).expect("it opens");
        let finished =
            run.execute(&self.registry(), self.heard.observer(), &Arc::default()).expect("it runs");
        (self.calls.take(), finished.folder)
    }

    fn why(&self, text: &str, sets: &[&str]) -> (State, String) {
        let plan = self.plan(text, sets).expect("it is good");
        let told = explain(&plan, &self.registry(), &RunOptions::default()).expect("told");
        let told = told.into_iter().find(|told| told.stage == "all").expect("there");
        (told.state, told.reason)
    }
}

fn said(from: &str, to: &str) -> String {
    assert!(STAGE.contains(from), "{from}");
    let bench = Bench::new();
    match bench.plan(&(GOOD.to_owned() + &STAGE.replacen(from, to, 1)), &[]) {
        Ok(_) => "nothing is wrong\n".into(),
        Err(error) => error.to_string().replace(&format!("{}/", bench.folder.path().display()), ""),
    }
}

#[test]
fn inputs_have_the_names_that_were_chosen_and_come_first() {
    let bench = Bench::new();
    // Written first, it still waits for all that it names.
    let (sections, stages) = GOOD.split_at(GOOD.find("[stages.records]").expect("there"));
    let text = format!("{sections}{STAGE}\n{stages}");
    let plan = bench.plan(&text, &[]).expect("it is good");
    let all = plan.stages.last().expect("there");
    assert_eq!(
        (all.name.as_str(), all.lines[0].as_str()),
        ("all", "rows from data.load, after from checkpoint.export, rows2 from data.load")
    );
    let inputs = json!({ "inputs.rows": "records", "inputs.after": "export", "inputs.rows2": "records", "models.base": "model" });
    assert_eq!(plan.json()["stages"][5]["inputs"], inputs);
    let (calls, folder) = bench.run(&text, &[]);
    assert_eq!(calls.last().map(String::as_str), Some("gather"));
    let names = fs::read_to_string(folder.join("all/names")).expect("there");
    assert_eq!(names, "rows records records\nafter export folder\nrows2 records records\nbase model model");
    assert_eq!(
        bench.plan(&text, &["stages.all.inputs.more=tokens"]).expect("good").stages[5].inputs.len(),
        5
    );
}

#[test]
fn a_result_depends_on_what_its_named_inputs_hold_and_on_their_names() {
    let bench = Bench::new();
    let text = GOOD.to_owned() + STAGE;
    bench.run(&text, &[]);
    assert_eq!(bench.run(&text, &[]).0, [""; 0]);
    fs::write(bench.folder.path().join("rows.txt"), "a\nb\n").expect("written");
    let words = "`records` and `export` run".to_owned();
    assert_eq!(bench.why(&text, &[]), (State::Run, words));
    assert!(bench.run(&text, &[]).0.contains(&"gather".to_owned()));
    let mut reasons = bench.heard.take().into_iter().filter_map(|event| match event {
        Event::StageStarted { stage, reason, .. } if stage == "all" => Some(reason),
        _ => None,
    });
    assert_eq!(reasons.next_back().expect("it began"), "`inputs.rows` is another, `inputs.rows2` is another");
    // Another name of the stage is nothing, another name of the input is.
    let renamed =
        text.replace("stages.export]", "stages.out]").replace("after = \"export\"", "after = \"out\"");
    assert_eq!(bench.why(&renamed, &[]).0, State::Cached);
    let renamed = text.replace("rows2 =", "other =");
    assert_eq!(
        bench.why(&renamed, &[]),
        (State::Run, "`inputs.other` is another, `inputs.rows2` is not written any more".into())
    );
}

#[test]
fn a_stage_that_there_is_not_is_shown_at_its_place() {
    assert_data_eq!(
        said("\"export\"", "\"exprot\""),
        str![[r#"
error[F0103]: there is no stage `exprot`
  --> w.toml:35:38
   |
35 | inputs = { rows = "records", after = "exprot", rows2 = "records" }
   |                                      ^^^^^^^^ expected the name of a stage
   |
help: did you mean `export`?

"#]]
    );
}

#[test]
fn a_stage_that_makes_something_else_is_shown_beside_the_edge() {
    assert_data_eq!(
        said("\"model\"", "\"tokens\""),
        str![[r#"
error[F0106]: stage `tokens` does not make what `models.base` takes
  --> w.toml:36:15
   |
12 | [stages.tokens]
   |         ------ this stage makes `tokens`
...
36 | models.base = "tokens"
   |               ^^^^^^^^ expected the name of a stage that makes `model`
   |
help: these fit: `model`, `train`

"#]]
    );
}

#[test]
fn a_circle_through_named_inputs_is_found() {
    let said = said("\"records\"", "\"all\"");
    assert!(said.contains("stage `all` waits for itself") && said.contains("w.toml:35:19"), "{said}");
}

#[test]
fn names_and_values_of_tables_are_checked_one_by_one() {
    for (from, to, words) in [
        ("rows =", "\"2 rows\" =", "`2 rows` cannot be a name in `inputs`|w.toml:35:12|F0109"),
        ("rows =", "\"a.b\" =", "`a.b` cannot be a name in `inputs`"),
        ("\"records\"", "3", "`inputs.rows` must be the name of a stage|write `\"3\"`|w.toml:35:19"),
        ("\"records\"", "\"\"", "`inputs.rows` is empty"),
        (
            "models.base = \"model\"",
            "models = \"model\"",
            "`models` must be a table of names, each with the name of a stage that makes `model`|found a string",
        ),
        (
            "models.base",
            "limits = { a = 0, b = 1, c = \"x\" }\nmodels.base",
            "`limits.a` is out of its range|`limits.c` must be a whole number from 1 up",
        ),
        (
            "models.base",
            "files = [\"rows.txt\", \"row.txt\"]\nmodels.base",
            "no such file or folder: row.txt|w.toml:36:22|did you mean `rows.txt`?",
        ),
    ] {
        let said = said(from, to);
        words.split('|').for_each(|words| assert!(said.contains(words), "{words}\n{said}"));
    }
    assert_eq!(
        said("models.base", "files = [\"rows.txt\"]\nlimits = { a = 1, \"b c\" = 2 }\nmodels.base"),
        "nothing is wrong\n"
    );
}

#[test]
fn the_schema_and_the_pages_say_that_names_are_free() {
    let registry = Bench::new().registry();
    let properties = &schema::of_stage(&registry, "gather").expect("there")["properties"];
    let edges = json!({ "type": "object", "additionalProperties": { "type": "string", "minLength": 1 }, "default": {}, "description": "Anything." });
    assert_eq!(properties["inputs"], edges);
    assert_eq!(properties["limits"]["additionalProperties"], json!({ "type": "integer", "minimum": 1 }));
    let page = docs::markdown(&registry);
    let row =
        "| `models` | a table of names, each with the name of a stage that makes `model` | none | Models. |";
    assert!(page.contains(row), "{page}");
}

#[test]
fn what_is_no_function_is_done_in_every_run_and_once_in_each() {
    let bench = Bench::new();
    let text = format!("{GOOD}{STAGE}cache = false\n");
    let words = "its result is never taken from another run".to_owned();
    for _ in 0..2 {
        assert!(bench.run(&text, &[]).0.contains(&"gather".to_owned()));
        assert_eq!(bench.why(&text, &[]), (State::Run, words.clone()));
    }
    // A stage after it fails: the run that goes on does it no more.
    let last = "\n[stages.last]\nuses = \"train.sft\"\nmodel = \"model\"\ntokens = \"tokens\"\nsteps = 3\nmishap = \"fail\"\n";
    let text = text + last;
    let plan = bench.plan(&text, &[]).expect("it is good");
    let open = || Run::open(&plan, RunOptions::default()).expect("it opens");
    open().execute(&bench.registry(), bench.heard.observer(), &Arc::default()).expect_err("it fails");
    assert!(bench.calls.take().contains(&"gather".to_owned()));
    assert_eq!(bench.why(&text, &[]).0, State::Done);
    open().execute(&bench.registry(), bench.heard.observer(), &Arc::default()).expect("it goes on");
    assert!(!bench.calls.take().contains(&"gather".to_owned()));
}

#[test]
fn a_stage_is_not_held_against_another_one_of_its_kind() {
    let bench = Bench::new();
    bench.run(&(GOOD.to_owned() + STAGE), &[]);
    let more =
        format!("{GOOD}{STAGE}\n{}", STAGE.replace("stages.all", "stages.more").replace("rows2", "other"));
    let plan = bench.plan(&more, &[]).expect("it is good");
    let told = explain(&plan, &bench.registry(), &RunOptions::default()).expect("told");
    assert_eq!(told.last().expect("there").reason, "no result of it is stored");
    // One that has another name now is still known.
    let renamed = format!("{GOOD}{}", STAGE.replace("stages.all", "stages.more").replace("rows2", "other"));
    let plan = bench.plan(&renamed, &[]).expect("it is good");
    let told = explain(&plan, &bench.registry(), &RunOptions::default()).expect("told");
    assert_eq!(told[5].reason, "`inputs.other` is another, `inputs.rows2` is not written any more");
}
