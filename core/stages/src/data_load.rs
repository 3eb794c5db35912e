//! `data.load`: reads a dataset once, checks every row, and counts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use fp8flow_data::{Format, Records};
use fp8flow_flow::{
    Artifact, Field, Outcome, Params, PlanCx, Planned, StageCx, StageError, StageKind, Threads,
};
use serde_json::{Value, json};

use crate::failure::{OrFail as _, absolute, digest};

/// The kind of the artifact.
pub(crate) const RECORDS: &str = "records";

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
            Field::existing_path("path").default("data/train.json").about("The file."),
            Field::choice("format", FORMATS).default("alpaca").about(
                "alpaca: `instruction`, `input`, `output`. sharegpt: `conversations` of `from` and `value`. openai: \
                 `messages` of `role` and `content`. text: `text` in JSON, or a document a line. tokens: `input_ids` \
                 and optionally `labels`, not shifted, −100 for none.",
            ),
        ]
    }

    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let path: PathBuf = cx.params().get("path");
        let format: &str = cx.params().get("format");
        if path.exists() && !path.is_file() {
            cx.error("path", format!("{} is not a regular file", path.display()));
        }
        Planned::new(json!({ "format": format })).line(format!("{format} in {}", path.display()))
    }

    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        let path: PathBuf = cx.params().get("path");
        let format: &str = cx.params().get("format");
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
        let info = json!({ "path": absolute(&path)?, "format": format, "digest": digest, "rows": rows, "unusable": unusable });
        Ok(Outcome::new(info).read([path]).summary(summary))
    }
}

fn parse(format: &str) -> Result<Format, StageError> {
    format.parse().map_err(StageError::bug)
}

/// The rows of the dataset that `artifact` is about, unless the file has changed since it was loaded.
pub(crate) fn open(cx: &StageCx<'_>, artifact: &Artifact) -> Result<Records, StageError> {
    let text = |key: &str| artifact.info[key].as_str().unwrap_or_default();
    let path = Path::new(text("path"));
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
