//! Stages of the shape of the real ones, that do next to nothing.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use fp8flow_flow::{
    Class, Error, Event, Field, Kind, Outcome, Plan, PlanCx, Planned, Registry, Section, StageCx, StageError,
    StageKind, Workflow, above,
};
use serde_json::json;

/// A workflow in which everything is right; its file stands in `folder`.
pub(crate) const GOOD: &str = r#"[workflow]
name = "toy"
seed = 7

[backend]
plugin = "scaled"

[stages.records]
uses = "data.load"
path = "rows.txt"

[stages.tokens]
uses = "data.tokenize"
records = "records"
held_out = 0.25

[stages.model]
uses = "model.init"
width = 64

[stages.train]
uses = "train.sft"
model = "model"
tokens = "tokens"
steps = 4
optimizer = { lr = 1e-3, betas = [0.9, 0.95] }

[stages.export]
uses = "checkpoint.export"
model = "train"
dir = "out"
"#;

/// The toy registry; `calls` notes which stages ran.
pub(crate) fn registry(calls: &Calls) -> Registry {
    Registry::new()
        .section(Device)
        .section(Backend)
        .stage(Load(calls.clone()))
        .stage(Tokenize(calls.clone()))
        .stage(Init(calls.clone()))
        .stage(Train(calls.clone()))
        .stage(Export(calls.clone()))
}

/// What ran, in order.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    pub(crate) fn note(&self, what: impl Into<String>) {
        self.0.lock().expect("no panic holds it").push(what.into());
    }

    /// The calls since this was last asked.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no panic holds it"))
    }
}

/// Collects events.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<Event>>>);

impl Heard {
    /// An observer that collects here.
    pub(crate) fn observer(&self) -> Arc<dyn fp8flow_flow::Observer> {
        let events = self.0.clone();
        Arc::new(move |event: &Event| events.lock().expect("no panic holds it").push(event.clone()))
    }

    /// The events since this was last asked.
    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().expect("no panic holds it"))
    }
}

/// A folder with the file that [`GOOD`] names.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("rows.txt"), "a\nb\nc\nd\n").expect("written");
    folder
}

/// Plans `text` as the file `w.toml` of `folder`.
pub(crate) fn plan(folder: &tempfile::TempDir, text: &str, sets: &[&str]) -> Result<Plan, Error> {
    Workflow::parse(&folder.path().join("w.toml"), text, sets)?.plan(&registry(&Calls::default()))
}

/// What is said about `text`, with the folder's path left out.
pub(crate) fn said(text: &str, sets: &[&str]) -> String {
    let folder = folder();
    match plan(&folder, text, sets) {
        Ok(_) => "nothing is wrong\n".into(),
        Err(error) => error.to_string().replace(&format!("{}/", folder.path().display()), ""),
    }
}

struct Device;

impl Section for Device {
    fn name(&self) -> &'static str {
        "workflow"
    }
    fn about(&self) -> &'static str {
        "Where it runs."
    }
    fn fields(&self) -> Vec<Field> {
        vec![Field::choice("device", &["auto", "cpu", "cuda"]).default("auto").about("Where tensors live.")]
    }
}

struct Backend;

impl Section for Backend {
    fn name(&self) -> &'static str {
        "backend"
    }
    fn about(&self) -> &'static str {
        "Who computes in FP8."
    }
    fn fields(&self) -> Vec<Field> {
        vec![
            Field::text("plugin").default("none").about("The plugin."),
            Field::free("options").about("The options of its recipe."),
        ]
    }
    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let plugin: &str = cx.params().get("plugin");
        if plugin == "broken" {
            cx.error("plugin", "the plugin is broken\nit was found here:\n  nowhere");
        } else if !["none", "scaled"].contains(&plugin) {
            cx.error("plugin", format!("unknown backend `{plugin}`"))
                .label("no plugin provides this backend")
                .did_you_mean(plugin, ["none", "scaled"])
                .class(Class::Missing);
        }
        let options = cx.params().table("options");
        for key in options.json().keys().filter(|key| *key != "round") {
            cx.error(&format!("options.{key}"), format!("the recipe has no option `{key}`"));
        }
        Planned::default().derive("options", json!({ "round": options.json().get("round").cloned() }))
    }
}

struct Load(Calls);

impl StageKind for Load {
    fn name(&self) -> &'static str {
        "data.load"
    }
    fn about(&self) -> &'static str {
        "Reads rows."
    }
    fn produces(&self) -> &'static str {
        "records"
    }
    fn fields(&self) -> Vec<Field> {
        vec![
            Field::existing_path("path").about("The file."),
            Field::choice("format", &["alpaca", "sharegpt", "text"])
                .default("text")
                .about("How rows are written."),
        ]
    }
    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        self.0.note("load");
        let path: PathBuf = cx.params().get("path");
        let text = std::fs::read_to_string(&path).map_err(|error| StageError::io(&path, error))?;
        if text == "somebody writes\n" {
            std::fs::write(&path, "a\nb\n").expect("written");
        }
        write(cx, "rows.bin", text.as_bytes())?;
        let rows = text.lines().count();
        Ok(Outcome::new(json!({ "rows": rows })).read([path]).summary(format!("{rows} rows")))
    }
}

struct Tokenize(Calls);

impl StageKind for Tokenize {
    fn name(&self) -> &'static str {
        "data.tokenize"
    }
    fn about(&self) -> &'static str {
        "Cuts rows into tokens."
    }
    fn produces(&self) -> &'static str {
        "tokens"
    }
    fn fields(&self) -> Vec<Field> {
        vec![
            Field::edge("records", &["records"]).about("The rows."),
            Field::amount("held_out").default(0).about("Kept for evaluation."),
            Field::integer("cutoff", 1..=8192).optional("the model's context").about("The longest example."),
        ]
    }
    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let cutoff: Option<u64> = cx.params().get("cutoff");
        if cutoff.is_some_and(|cutoff| cutoff < 8) {
            cx.warning("cutoff", "hardly a word fits").label("this is very short");
        }
        let planned = Planned::new(json!({ "from": cx.input("records").map(|stage| &stage.uses) }));
        if cutoff.is_none() { planned.derive("cutoff", 512) } else { planned }
    }
    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        self.0.note("tokenize");
        let rows = cx.input("records");
        let from = rows.dir.join("rows.bin");
        let text = std::fs::read(&from).map_err(|error| StageError::io(&from, error))?;
        write(cx, "tokens.bin", &text)?;
        Ok(Outcome::new(json!({ "cutoff": cx.params().get::<u64>("cutoff"), "rows": rows.info["rows"] })))
    }
}

struct Init(Calls);

impl StageKind for Init {
    fn name(&self) -> &'static str {
        "model.init"
    }
    fn about(&self) -> &'static str {
        "Makes a model."
    }
    fn produces(&self) -> &'static str {
        "model"
    }
    fn fields(&self) -> Vec<Field> {
        vec![Field::integer("width", 1..=65536).about("Its width.")]
    }
    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let width: u64 = cx.params().get("width");
        assert_ne!(width, 13, "unlucky");
        Planned::new(json!({ "width": width })).line(format!("a model of width {width}"))
    }
    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        self.0.note("init");
        write(cx, "model.bin", &cx.seed().to_le_bytes())?;
        Ok(Outcome::default())
    }
}

/// Counts its steps in a file and misbehaves as `mishap` asks, once.
struct Train(Calls);

impl StageKind for Train {
    fn name(&self) -> &'static str {
        "train.sft"
    }
    fn about(&self) -> &'static str {
        "Trains."
    }
    fn produces(&self) -> &'static str {
        "model"
    }
    fn fields(&self) -> Vec<Field> {
        vec![
            Field::edge("model", &["model"]).about("The model."),
            Field::edge("tokens", &["tokens"]).about("What it learns."),
            Field::edge("teacher", &["model"]).optional("none").about("Another model."),
            Field::integer("steps", 1..).about("How long."),
            Field::table(
                "optimizer",
                vec![
                    Field::choice("kind", &["adamw"]).default("adamw").about("The rule."),
                    Field::number("lr", above(0.0)).default(5e-5).about("Learning rate."),
                    Field::numbers("betas", 0.0..1.0, 2..=2).default(json!([0.9, 0.95])).about("Averages."),
                ],
            )
            .about("How parameters move."),
            Field::table(
                "checkpoint",
                vec![Field::integer("every_steps", 1..).default(1).about("How often.")],
            )
            .about("When state is saved.")
            .changes_no_result(),
            Field::new("layers", Kind::list(Kind::integer(0..), ..)).default(json!([])).about("Which."),
            Field::choice("mishap", &["none", "fail", "panic", "interrupt"])
                .default("none")
                .about("What goes wrong after two steps.")
                .changes_no_result(),
        ]
    }
    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let width = cx.input("model").map(|model| model.fact("width").cloned());
        for (index, layer) in cx.params().get::<Vec<u64>>("layers").into_iter().enumerate() {
            if layer > 9 {
                cx.error(&format!("layers.{index}"), format!("there is no layer {layer}"))
                    .label("the last is 9");
            }
        }
        Planned::new(json!({ "model_width": width }))
    }
    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        let path = cx.folder().join("state");
        let begin = std::fs::read(&path).map_or(0, |state| state.len() as u64);
        self.0.note(format!("train from {begin}{}", if cx.resumed() { ", resumed" } else { "" }));
        let steps: u64 = cx.params().get("steps");
        let _: &str = cx.section("backend").params.get("plugin");
        for step in begin + 1..=steps {
            write(cx, "state", &vec![b'x'; step as usize])?;
            cx.progress(step, Some(steps), "step", "");
            if step == 2 && begin == 0 {
                match cx.params().get("mishap") {
                    "fail" => {
                        return Err(
                            StageError::failed("the loss of step 2 is not finite").help("Lower `lr`.")
                        );
                    }
                    "panic" => panic!("layer 3 is upside down"),
                    "interrupt" => cx.cancel().store(true, Ordering::Relaxed),
                    _ => {}
                }
            }
            if cx.cancelled() {
                return Err(StageError::interrupted(format!("state saved at step {step}")));
            }
        }
        Ok(Outcome::new(json!({ "steps": steps })).report(format!("{steps} steps")))
    }
}

struct Export(Calls);

impl StageKind for Export {
    fn name(&self) -> &'static str {
        "checkpoint.export"
    }
    fn about(&self) -> &'static str {
        "Writes a folder."
    }
    fn produces(&self) -> &'static str {
        "folder"
    }
    fn fields(&self) -> Vec<Field> {
        vec![
            Field::edge("model", &["model"]).about("The model."),
            Field::path("dir").default("out").about("Where."),
        ]
    }
    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        self.0.note("export");
        let dir: PathBuf = cx.params().get("dir");
        std::fs::create_dir_all(&dir).map_err(|error| StageError::io(&dir, error))?;
        let to = dir.join("model.bin");
        let steps = cx.input("model").info["steps"].to_string();
        std::fs::write(&to, steps).map_err(|error| StageError::io(&to, error))?;
        Ok(Outcome::default().wrote(dir))
    }
}

fn write(cx: &StageCx<'_>, name: &str, bytes: &[u8]) -> Result<(), StageError> {
    let path = cx.folder().join(name);
    fp8flow_flow::atomic::write(&path, bytes).map_err(|error| StageError::io(&path, error))
}
