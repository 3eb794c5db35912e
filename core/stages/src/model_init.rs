//! `model.init`: fresh weights for a configuration.

use std::path::PathBuf;
use std::sync::Arc;

use fp8flow_flow::{Field, Outcome, Params, PlanCx, Planned, StageCx, StageError, StageKind, Threads};
use fp8flow_model::{ExportOptions, ModelConfig, export, initialise_until};
use serde_json::json;

use crate::Engine;
use crate::failure::OrFail as _;
use crate::model::{self, MODEL};

pub(crate) struct ModelInit(pub(crate) Engine);

/// Folder of the model within the stage's own.
const FOLDER: &str = "model";

impl StageKind for ModelInit {
    fn name(&self) -> &'static str {
        "model.init"
    }

    fn about(&self) -> &'static str {
        "Makes a model with fresh weights from a config.json; the workflow's seed decides them."
    }

    fn produces(&self) -> &'static str {
        MODEL
    }

    fn threads(&self, _: &Params) -> Threads {
        Threads::Some(1)
    }

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::existing_path("config")
                .default("config.json")
                .about("A config.json of the Llama family, or the folder that holds one."),
        ]
    }

    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let path: PathBuf = cx.params().get("config");
        match ModelConfig::open(&path) {
            Ok(config) => Planned::new(model::facts(&config, &path).into()).line(model::line(&config)),
            Err(error) => {
                cx.error("config", error.to_string());
                Planned::default()
            }
        }
    }

    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        let path: PathBuf = cx.params().get("config");
        let config = ModelConfig::open(&path).or_fail()?;
        let parameters = initialise_until(&config, cx.seed(), self.0.cpu().pool, cx.cancel()).or_fail()?;
        let folder = cx.folder().join(FOLDER);
        let stop = Arc::clone(cx.cancel());
        let options = ExportOptions { overwrite: true, stop, ..ExportOptions::default() };
        export(&folder, &config, &parameters, &options).or_fail()?;
        let read = if path.is_dir() { path.join("config.json") } else { path };
        Ok(Outcome::new(json!({ "folder": FOLDER })).read([read]).summary(model::line(&config)))
    }
}
