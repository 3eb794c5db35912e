//! `checkpoint.export`: a model as a folder that Hugging Face tools load.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fp8flow_flow::{Field, Outcome, Params, PlanCx, Planned, StageCx, StageError, StageKind, Threads};
use fp8flow_model::{ExportOptions, ExportType, check_target, companion_files, export};
use serde_json::json;

use crate::Engine;
use crate::failure::{OrFail as _, absolute};
use crate::model::{self, MODEL};

pub(crate) struct CheckpointExport(pub(crate) Engine);

const KIND: &str = "checkpoint.export";

/// The fact that says where an export goes, links followed.
const PLACE: &str = "place";

const MIB: u64 = 1 << 20;

impl StageKind for CheckpointExport {
    fn name(&self) -> &'static str {
        KIND
    }

    fn about(&self) -> &'static str {
        "Writes a model as a Hugging Face folder: config.json, safetensors, tokenizer files."
    }

    fn produces(&self) -> &'static str {
        MODEL
    }

    fn threads(&self, _: &Params) -> Threads {
        Threads::Some(1)
    }

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::edge("model", &[MODEL]).about("The model: a stage that loads, makes or trains one."),
            Field::path("dir").default("out").about("The folder to write; it appears whole or not at all."),
            Field::choice("dtype", &["f32", "bf16", "f16"])
                .default("bf16")
                .about("Type of the weights; the masters are f32, rounded once to nearest even."),
            Field::integer("shard_mib", 1..)
                .default(5120)
                .about("Largest size of a weights file in MiB; beyond it the weights are sharded with an index."),
            Field::existing_path("tokenizer")
                .optional("no tokenizer files")
                .about("A tokenizer.json, or the folder whose tokenizer files are copied along."),
            Field::bool("overwrite").default(false).about(
                "Whether a model folder from elsewhere in `dir` is replaced; an earlier export always is, anything \
                 else never.",
            ),
        ]
    }

    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let dir: PathBuf = cx.params().get("dir");
        let Some(stage) = cx.input("model") else { return Planned::default() };
        let source = stage.fact("source").and_then(|source| source.as_str()).unwrap_or_default();
        if dir
            .canonicalize()
            .is_ok_and(|dir| Path::new(source).canonicalize().is_ok_and(|source| source == dir))
        {
            cx.error(
                "dir",
                format!("the model is read from {}, which the export would replace", dir.display()),
            )
            .help("Export into another folder.");
        }
        let place = check_target(&dir, cx.params().get("overwrite"));
        match &place {
            Ok(place) => check_neighbours(cx, place),
            Err(error) => {
                cx.error("dir", error.to_string());
            }
        }
        let facts = json!({
            "config": stage.fact("config"),
            "source": stage.fact("source"),
            PLACE: place.ok(),
        });
        let dtype: &str = cx.params().get("dtype");
        Planned::new(facts).line(format!("{dtype} into {}", dir.display()))
    }

    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        let params = cx.params();
        let dir: PathBuf = params.get("dir");
        let (config, weights) = model::open(cx.input("model")).or_fail()?;
        let parameters = weights.load_until(self.0.cpu().pool, cx.cancel()).or_fail()?;
        drop(weights);
        let tokenizer: Option<PathBuf> = params.get("tokenizer");
        let options = ExportOptions {
            dtype: match params.get("dtype") {
                "f32" => ExportType::F32,
                "f16" => ExportType::F16,
                _ => ExportType::Bf16,
            },
            max_shard_bytes: params.get::<u64>("shard_mib").saturating_mul(MIB),
            tokenizer_files: tokenizer.as_deref().map(tokenizer_files).unwrap_or_default(),
            overwrite: params.get("overwrite"),
            stop: Arc::clone(cx.cancel()),
        };
        let files = export(&dir, &config, &parameters, &options).or_fail()?;
        let bytes: u64 = files.iter().map(|file| file.written.bytes).sum();
        let mut outcome = Outcome::new(json!({ "folder": absolute(&dir)? }))
            .read(options.tokenizer_files)
            .summary(format!("{} files, {:.1} MB, in {}", files.len(), bytes as f64 / 1e6, dir.display()))
            .report(format!("model: {}", dir.display()));
        outcome.outside.push(dir);
        Ok(outcome)
    }
}

/// Objects to an export into the folder of runs, and to one that another export would replace.
fn check_neighbours(cx: &mut PlanCx<'_>, place: &Path) {
    let runs = cx.runs().to_owned();
    let there = runs.canonicalize().unwrap_or_else(|_| runs.clone());
    let within = |a: &Path, b: &Path| a.starts_with(b) || b.starts_with(a);
    if within(place, &there) || place.ancestors().any(|folder| folder.join("run.json").is_file()) {
        cx.error(
            "dir",
            format!("{} is no place beside the runs, which are in {}", place.display(), runs.display()),
        )
        .help("Export into a folder of its own.");
    }
    for other in cx.stages_before() {
        let taken = other.fact(PLACE).and_then(|place| place.as_str()).map(Path::new);
        if let Some(taken) = taken.filter(|taken| other.uses == KIND && within(place, taken)) {
            cx.error("dir", format!("the stage `{}` exports into {} already", other.name, taken.display()))
                .help("Give each export a folder of its own, none inside another.");
        }
    }
}

/// The files of a tokenizer that is given by its folder or by its `tokenizer.json`.
fn tokenizer_files(path: &Path) -> Vec<PathBuf> {
    companion_files(if path.is_dir() { path } else { path.parent().unwrap_or(path) })
}
