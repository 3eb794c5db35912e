//! `model.load`: a Hugging Face folder as it is.

use std::path::PathBuf;

use fp8flow_flow::{Field, Outcome, Params, PlanCx, Planned, StageCx, StageError, StageKind, Threads};
use fp8flow_model::{BlockScales, ModelError};
use serde_json::json;

use crate::backend;
use crate::failure::{OrFail as _, absolute};
use crate::model::{self, MODEL};
use crate::support;

pub(crate) struct ModelLoad;

/// What decides which files are the model: each may appear or go.
const LOOKED_FOR: [&str; 3] = ["config.json", "model.safetensors", "model.safetensors.index.json"];

impl StageKind for ModelLoad {
    fn name(&self) -> &'static str {
        "model.load"
    }

    fn about(&self) -> &'static str {
        "Takes the weights of a Hugging Face folder: config.json and safetensors, one file or sharded; f32, bf16, f16, or FP8 in blocks."
    }

    fn produces(&self) -> &'static str {
        MODEL
    }

    fn threads(&self, _: &Params) -> Threads {
        Threads::Some(1)
    }

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::existing_path("path").default("model").about("The folder."),
            Field::bool("dequantize").default(false).about(
                "Whether weights in FP8 with a scale for each block (`quant_method = \"fp8\"` with `weight_block_size`) are \
                 multiplied out to f32. A base that is quantised in any other way is an error.",
            ),
        ]
    }

    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let path: PathBuf = cx.params().get("path");
        let dequantize: bool = cx.params().get("dequantize");
        let (config, weights) = match model::open_folder(&path, dequantize) {
            Ok(opened) => opened,
            Err(error) => {
                object(cx, &error);
                return Planned::default();
            }
        };
        let files = weights.files().count();
        let quantised = weights.blocks();
        if dequantize && quantised.is_none() {
            cx.warning("dequantize", format!("the weights in {} are not quantised", path.display()));
        }
        let planned = Planned::new(model::facts(&config, &path).into())
            .line(model::line(&config))
            .line(format!("{files} file{}", if files == 1 { "" } else { "s" }));
        match quantised {
            Some(BlockScales { rows, cols }) => {
                planned.line(format!("FP8 in blocks of {rows} × {cols}, multiplied out to f32"))
            }
            None => planned,
        }
    }

    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        let path: PathBuf = cx.params().get("path");
        let dequantize: bool = cx.params().get("dequantize");
        let (config, weights) = model::open_folder(&path, dequantize).or_fail()?;
        let looked_for = LOOKED_FOR.map(|name| path.join(name));
        let info = json!({ "folder": absolute(&path)?, "dequantize": dequantize });
        Ok(Outcome::new(info).read(looked_for).read(weights.files()).summary(model::line(&config)))
    }
}

/// Objects to a folder that cannot be read, in the words of the backend where it is one of quantised weights.
fn object(cx: &mut PlanCx<'_>, error: &ModelError) {
    let fp8 = cx.section(backend::SECTION).is_some_and(backend::is_fp8);
    let ModelError::Quantized { path, key, found, in_blocks, asked } = error else {
        cx.error("path", error.to_string());
        return;
    };
    let message = if fp8 && !asked {
        format!("{}: {key} = {found}: {}", path.display(), support::QUANTIZED_BASE)
    } else {
        error.to_string()
    };
    let way_out = if *in_blocks {
        "Set `dequantize = true` to multiply the weights out to f32, or load the model that they were made from."
    } else {
        "Load the model that these weights were made from, in F32, BF16 or F16."
    };
    cx.error("path", message).help(way_out);
}
