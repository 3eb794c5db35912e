//! What is given to the program: places of inputs and outputs, as arguments and as JSON.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use fp8flow_flow::{Artifact, StageCx, StageError};
use serde_json::{Map, Value, json};

use super::OUTPUTS;
use super::placeholders::{Piece, join, param, parse};

/// The JSON within the stage's folder; hidden, for it is no part of the result.
const FILE: &str = ".given.json";

/// Where the result of a stage is: the folder of a model, the file of a dataset or of an evaluation, else the stage's
/// folder.
pub(super) fn place(artifact: &Artifact) -> PathBuf {
    let named = ["folder", "path", "file"].iter().find_map(|key| artifact.info[key].as_str());
    // An absolute path stays what it is.
    named.map_or_else(|| artifact.dir.clone(), |within| artifact.dir.join(within))
}

/// The program's name and its arguments.
pub(super) fn arguments(cx: &StageCx<'_>) -> Result<Vec<OsString>, StageError> {
    let argument = |text: &str| {
        let pieces =
            parse(text).map_err(|_| StageError::bug("an argument that was checked cannot be read"))?;
        join(&pieces, |piece| value(cx, piece))
    };
    cx.params().get::<Vec<&str>>("argv").into_iter().map(argument).collect()
}

fn value(cx: &StageCx<'_>, piece: &Piece) -> Result<OsString, StageError> {
    let absent = |what: &str, name: &str| StageError::bug(format!("there is no {what} `{name}`"));
    Ok(match piece {
        Piece::Text(text) => text.into(),
        Piece::Stage => cx.folder().into(),
        Piece::Workflow => cx.params().base().into(),
        Piece::Out(name) => {
            let within = cx.params().get::<&Value>("outputs")[name].as_str();
            cx.folder().join(within.ok_or_else(|| absent("output", name))?).into()
        }
        Piece::Param(name) => {
            param(&cx.params().get::<&Value>("params")[name]).ok_or_else(|| absent("value", name))?.into()
        }
        Piece::In { name, output } => {
            let artifact =
                cx.optional_input(&format!("inputs.{name}")).ok_or_else(|| absent("input", name))?;
            match output {
                None => place(artifact).into(),
                Some(output) => {
                    let within = artifact.info[OUTPUTS][output].as_str();
                    artifact.dir.join(within.ok_or_else(|| absent("output", output))?).into()
                }
            }
        }
    })
}

/// Writes the JSON and says where it is.
pub(super) fn write(cx: &StageCx<'_>) -> Result<PathBuf, StageError> {
    let inputs = cx.inputs("inputs").into_iter().map(|(name, artifact)| {
        let outputs = artifact.info[OUTPUTS].as_object().map(|outputs| places(outputs, &artifact.dir));
        let told = json!({
            "stage": artifact.stage,
            "kind": artifact.kind,
            "path": place(artifact),
            "folder": artifact.dir,
            "outputs": outputs,
            "info": artifact.info,
        });
        (name.to_owned(), told)
    });
    let outputs = cx.params().get::<&Value>("outputs").as_object().cloned().unwrap_or_default();
    let given = json!({
        "format": 1,
        "stage": cx.name(),
        "folder": cx.folder(),
        "workflow": cx.params().base(),
        "inputs": inputs.collect::<Map<_, _>>(),
        "outputs": places(&outputs, cx.folder()),
        "files": cx.params().get::<Vec<PathBuf>>("files"),
        "params": cx.params().get::<&Value>("params"),
    });
    let path = cx.folder().join(FILE);
    let text = serde_json::to_vec_pretty(&given).map_err(StageError::bug)?;
    std::fs::write(&path, text).map_err(|error| StageError::io(&path, error))?;
    Ok(path)
}

fn places(outputs: &Map<String, Value>, folder: &Path) -> Map<String, Value> {
    let place = |within: &Value| json!(folder.join(within.as_str().unwrap_or_default()));
    outputs.iter().map(|(name, within)| (name.clone(), place(within))).collect()
}
