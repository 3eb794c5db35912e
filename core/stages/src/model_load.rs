//! `model.load`: a Hugging Face folder as it is.

use std::path::PathBuf;

use fp8flow_flow::{Field, Outcome, PlanCx, Planned, StageCx, StageError, StageKind};
use fp8flow_model::{ModelConfig, Weights};
use serde_json::json;

use crate::failure::{OrFail as _, absolute};
use crate::model::{self, MODEL};

pub(crate) struct ModelLoad;

impl StageKind for ModelLoad {
    fn name(&self) -> &'static str {
        "model.load"
    }

    fn about(&self) -> &'static str {
        "Takes the weights of a Hugging Face folder: config.json and safetensors, one file or sharded; f32, bf16 or f16."
    }

    fn produces(&self) -> &'static str {
        MODEL
    }

    fn fields(&self) -> Vec<Field> {
        vec![Field::existing_path("path").default("model").about("The folder.")]
    }

    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let path: PathBuf = cx.params().get("path");
        let checked = ModelConfig::open(&path).and_then(|config| {
            Weights::open(&path, &config).map(|weights| (config, weights.files().count()))
        });
        match checked {
            Ok((config, files)) => Planned::new(model::facts(&config, &path).into())
                .line(model::line(&config))
                .line(format!("{files} file{}", if files == 1 { "" } else { "s" })),
            Err(error) => {
                cx.error("path", error.to_string());
                Planned::default()
            }
        }
    }

    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        let path: PathBuf = cx.params().get("path");
        let config = ModelConfig::open(&path).or_fail()?;
        Weights::open(&path, &config).or_fail()?;
        Ok(Outcome::new(json!({ "folder": absolute(&path)? })).summary(model::line(&config)))
    }
}
