//! Results that do not depend on where they lie: paths into the stage's folder or the workflow's are known as such, so
//! that a result means the same in another run and after the workflow was moved.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::manifest::Manifest;

/// Replaces the place of the `stage` and of the `workflow` in every text of `value` by a word.
pub(crate) fn forget(value: &mut Value, stage: Option<&Path>, workflow: &Path) {
    for (from, to) in [(stage, "{stage}"), (Some(workflow), "{workflow}")] {
        if let Some(from) = from.filter(|from| from.parent().is_some()) {
            rename(value, from, Path::new(to));
        }
    }
}

/// Lets `manifest`, whose result has been brought into the folder `stage` of a run of the workflow in `workflow`, tell of
/// these places.
pub(crate) fn into(manifest: &mut Manifest, stage: &Path, workflow: &Path) {
    let places = [(manifest.artifact.dir.clone(), stage), (manifest.workflow.clone(), workflow)];
    for (from, to) in places.iter().filter(|(from, to)| from != to && from.parent().is_some()) {
        rename(&mut manifest.artifact.info, from, to);
        for text in manifest.report.iter_mut().chain([&mut manifest.summary]) {
            *text = renamed(text, from, to);
        }
        let outputs = manifest.outputs.iter_mut().map(|output| &mut output.path);
        for path in outputs.chain(&mut manifest.wrote) {
            if let Ok(inner) = path.strip_prefix(from) {
                *path = to.join(inner);
            }
        }
    }
    stage.clone_into(&mut manifest.artifact.dir);
    workflow.clone_into(&mut manifest.workflow);
}

/// The path `path` within `workflow` as a word and the rest.
pub(crate) fn forgotten(path: &Path, workflow: &Path) -> PathBuf {
    path.strip_prefix(workflow).map_or_else(|_| path.to_owned(), |inner| Path::new("{workflow}").join(inner))
}

fn rename(value: &mut Value, from: &Path, to: &Path) {
    match value {
        Value::String(text) => *text = renamed(text, from, to),
        Value::Array(list) => list.iter_mut().for_each(|value| rename(value, from, to)),
        Value::Object(map) => map.values_mut().for_each(|value| rename(value, from, to)),
        _ => {}
    }
}

/// `text` with the path `from`, wherever it stands as a whole or with something below it, replaced by `to`.
fn renamed(text: &str, from: &Path, to: &Path) -> String {
    let (from, to) = (from.to_string_lossy(), to.to_string_lossy());
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(&*from) {
        let after = &rest[at + from.len()..];
        out.push_str(&rest[..at]);
        let whole = after.chars().next().is_none_or(|c| !(c.is_alphanumeric() || "-_.".contains(c)));
        out.push_str(if whole { &to } else { &from });
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_place_is_replaced_as_a_whole() {
        let renamed = |text| renamed(text, Path::new("/a/runs/x/train"), Path::new("/b/t"));
        assert_eq!(renamed("checkpoint: /a/runs/x/train/step-4"), "checkpoint: /b/t/step-4");
        assert_eq!(renamed("/a/runs/x/train, /a/runs/x/train2"), "/b/t, /a/runs/x/train2");
        assert_eq!(renamed("nothing"), "nothing");
    }

    #[test]
    fn what_is_forgotten_is_the_same_in_another_place() {
        let at = |folder: &str| {
            let mut value = json!({ "path": format!("{folder}/rows.txt"), "n": 1, "in": [folder] });
            forget(&mut value, None, Path::new(folder));
            value
        };
        assert_eq!(at("/here/w"), at("/there"));
        assert_eq!(at("/there")["path"], "{workflow}/rows.txt");
        let mut root = json!("/rows.txt");
        forget(&mut root, None, Path::new("/"));
        assert_eq!(root, "/rows.txt");
    }
}
