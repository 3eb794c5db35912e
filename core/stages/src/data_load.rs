//! `data.load`: reads a dataset once, checks every row, and counts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use fp8flow_data::{Format, Records};
use fp8flow_flow::{
    Artifact, Field, Outcome, Params, PlanCx, Planned, StageCx, StageError, StageKind, Threads, code,
};
use serde_json::{Value, json};

use crate::command::{FILES, OUTPUTS};
use crate::failure::{OrFail as _, absolute, digest};

/// The kind of the artifact.
pub(crate) const RECORDS: &str = "records";

/// The dataset where none is named.
const DEFAULT: &str = "data/train.json";

const FORMATS: &[&str] = &["alpaca", "sharegpt", "openai", "text", "tokens"];

/// Rows between two looks at the cancellation flag and two lines of progress.
const ROWS: u64 = 4096;

pub(crate) struct DataLoad;

impl StageKind for DataLoad {
    fn name(&self) -> &'static str {
        "data.load"
    }

    fn about(&self) -> &'static str {
        "Reads a dataset, JSON or JSON Lines or plain text, and checks every row."
    }

    fn produces(&self) -> &'static str {
        RECORDS
    }

    fn threads(&self, _: &Params) -> Threads {
        Threads::Some(1)
    }

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::existing_path("path").optional("`data/train.json`, unless `from` is written").about("The file."),
            Field::choice("format", FORMATS).default("alpaca").about(
                "alpaca: `instruction`, `input`, `output`. sharegpt: `conversations` of `from` and `value`. openai: \
                 `messages` of `role` and `content`. text: `text` in JSON, or a document a line. tokens: `input_ids` \
                 and optionally `labels`, not shifted, −100 for none.",
            ),
            Field::edge("from", &[FILES]).optional("the dataset is the file `path`").about("A command that makes the dataset."),
            Field::text("output").optional("its only one").about("Which output of `from` the dataset is."),
        ]
    }

    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let format: &str = cx.params().get("format");
        let planned = Planned::new(json!({ "format": format }));
        if let Some(from) = cx.params().get::<Option<&str>>("from") {
            return check_made(cx).map_or_else(Planned::default, |output| {
                planned.line(format!("{format} made by `{from}`")).derive("output", output)
            });
        }
        if cx.params().get::<Option<&str>>("output").is_some() {
            cx.error("output", "`output` is one of a command, and there is no `from`");
        }
        let path = cx.params().get::<Option<PathBuf>>("path").unwrap_or_else(|| cx.folder().join(DEFAULT));
        if !path.exists() {
            cx.error("path", format!("no such file or folder: {}", path.display())).code(code::NO_SUCH_PATH);
        } else if !path.is_file() {
            cx.error("path", format!("{} is not a regular file", path.display()));
        }
        let planned = planned.line(format!("{format} in {}", path.display()));
        if cx.params().get::<Option<&str>>("path").is_none() {
            planned.derive("path", DEFAULT)
        } else {
            planned
        }
    }

    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        let format: &str = cx.params().get("format");
        let made = cx.optional_input("from").map(|from| take(cx, from)).transpose()?;
        let path = match &made {
            Some(name) => cx.folder().join(name),
            None => cx.params().get("path"),
        };
        let (mut rows, mut unusable) = (0_u64, BTreeMap::<String, u64>::new());
        for row in Records::open(&path, parse(format)?).or_fail()? {
            let row = row.or_fail()?;
            rows = row.number;
            if let Err(reason) = row.record {
                *unusable.entry(reason.to_string()).or_default() += 1;
            }
            if rows.is_multiple_of(ROWS) {
                cx.stop_if_cancelled()?;
                cx.progress(rows, None, "row", "");
            }
        }
        let digest = digest(cx, &path)?;
        let dropped: u64 = unusable.values().sum();
        let mut summary = format!("{rows} rows, {} usable", rows - dropped);
        for (reason, count) in &unusable {
            let _ = write!(summary, "; {count}: {reason}");
        }
        let (place, read) = match made {
            Some(name) => (name, None),
            None => (absolute(&path)?, Some(path)),
        };
        let info =
            json!({ "path": place, "format": format, "digest": digest, "rows": rows, "unusable": unusable });
        Ok(Outcome::new(info).read(read).summary(summary))
    }
}

/// The name of the output that the command `from` makes the dataset as; `None` after an objection.
fn check_made(cx: &mut PlanCx<'_>) -> Option<String> {
    if cx.params().get::<Option<&str>>("path").is_some() {
        cx.error("path", "`path` and `from` are two datasets").help("Write one of them.");
        return None;
    }
    let outputs = cx.input("from")?.fact(OUTPUTS)?.as_object()?;
    let names: Vec<&String> = outputs.keys().collect();
    let all = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match (cx.params().get::<Option<String>>("output"), &names[..]) {
        (Some(name), _) if outputs.contains_key(&name) => Some(name),
        (Some(name), _) => {
            let message = format!("the command has no output `{name}`");
            cx.error("output", message).help(format!("It has {all}.")).did_you_mean(&name, names);
            None
        }
        (None, [only]) => Some((*only).clone()),
        (None, []) => {
            cx.error("from", "the command declares no output").help("Declare the dataset in its `outputs`.");
            None
        }
        (None, _) => {
            cx.error("from", format!("the command has several outputs: {all}"))
                .help("Write `output` with the name of the dataset.");
            None
        }
    }
}

/// Takes the dataset that `from` has made into the stage's own folder, so that its result is whole by itself; its name
/// there.
fn take(cx: &StageCx<'_>, from: &Artifact) -> Result<PathBuf, StageError> {
    let output: &str = cx.params().get("output");
    let made = from.dir.join(from.info[OUTPUTS][output].as_str().unwrap_or_default());
    if !made.is_file() {
        return Err(StageError::failed(format!("{} is not a file", made.display()))
            .help("A dataset is one file; let the command write it so, or name another of its outputs."));
    }
    cx.empty_folder(&[])?;
    let name = PathBuf::from(made.file_name().unwrap_or_default());
    let to = cx.folder().join(&name);
    // Results are never written to, so that two may share a file.
    let taken = std::fs::hard_link(&made, &to).or_else(|_| std::fs::copy(&made, &to).map(drop));
    taken.map_err(|error| StageError::io(&to, error))?;
    Ok(name)
}

fn parse(format: &str) -> Result<Format, StageError> {
    format.parse().map_err(StageError::bug)
}

/// The rows of the dataset that `artifact` is about, unless the file has changed since it was loaded.
pub(crate) fn open(cx: &StageCx<'_>, artifact: &Artifact) -> Result<Records, StageError> {
    let text = |key: &str| artifact.info[key].as_str().unwrap_or_default();
    // Absolute, or within the folder of the stage.
    let path = &artifact.dir.join(text("path"));
    if digest(cx, path)? != text("digest") {
        return Err(StageError::failed(format!(
            "{} has changed since stage `{}` read it",
            path.display(),
            artifact.stage
        ))
        .help("Run again: the stages that depend on it are done again."));
    }
    Records::open(path, parse(text("format"))?).or_fail()
}

/// Whether the dataset needs no tokenizer.
pub(crate) fn is_tokens(facts: &Value) -> bool {
    facts["format"] == "tokens"
}

/// Whether the dataset is documents.
pub(crate) fn is_text(facts: &Value) -> bool {
    facts["format"] == "text"
}
