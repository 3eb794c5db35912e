//! A folder of checkpoints. Where an input has no manifest, one that fits its files is written, so that what they hold
//! is looked at as well.

use std::fs;

use fp8flow_model::SafeFile;
use fp8flow_train::{Checkpoints, RecipeState};
use serde_json::{Map, json};

use crate::parts::{Part, parts};
use crate::{Bound, Room, Target};

/// JSON trees, and a header as in a safetensors file.
pub(crate) const TARGET: Target =
    Target { name: "checkpoint", read, bound: Bound { factor: 256, constant: super::MIB } };

const MANIFEST: &str = "MANIFEST.json";
const FILES: [&str; 6] = [
    MANIFEST,
    "state.json",
    "config.json",
    "model.safetensors",
    "optimizer.safetensors",
    "recipe.safetensors",
];
const STEP: u64 = 4;

fn read(room: &Room, input: &[u8]) {
    let parts = parts(MANIFEST, input);
    let folder = room.fill("checkpoints/step-00000004", &FILES, &parts);
    if parts[0].bytes.is_empty() {
        room.write("checkpoints/step-00000004/MANIFEST.json", &manifest(&parts[1..]));
    }
    let checkpoints = Checkpoints::new(room.path("checkpoints"), 2);
    let _ = checkpoints.steps();
    let mut passed_over = 0;
    let newest = checkpoints.newest(|_, reason| {
        assert!(!reason.is_empty(), "passed over without a reason");
        passed_over += 1;
    });
    let whole = newest.expect("the folder can be listed");
    assert_eq!(passed_over + usize::from(whole.is_some()), 1, "the checkpoint is whole or passed over");
    assert_eq!(checkpoints.verify(STEP).is_ok(), whole.is_some());
    if whole.is_some() {
        let _ = (SafeFile::open(folder.join(FILES[3])), SafeFile::open(folder.join(FILES[4])));
        if fs::exists(folder.join(FILES[5])).unwrap_or(false) {
            let _ = RecipeState::read(&folder.join(FILES[5]));
        }
    }
}

fn manifest(parts: &[Part<'_>]) -> Vec<u8> {
    let mut files = Map::new();
    for name in &FILES[1..] {
        if let Some(part) = parts.iter().find(|part| part.name == name.as_bytes()) {
            let blake3 = blake3::hash(part.bytes).to_hex().to_string();
            files.insert((*name).into(), json!({ "bytes": part.bytes.len(), "blake3": blake3 }));
        }
    }
    json!({ "step": STEP, "files": files }).to_string().into_bytes()
}
