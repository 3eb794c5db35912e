//! Whether the disks have room for what a workflow will write, asked before anything is begun.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fp8flow_flow::{Error, Explained, Plan, Registry, RunOptions, State, explain};
use fp8flow_host::machine::Disk;

use crate::forecast::{Forecast, Output};
use crate::model::gb;

/// A disk that has too little room.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}: {} are needed ({what}), {} are free", folder.display(), gb(*needed), gb(*free))]
pub struct NoRoom {
    /// A folder on it.
    pub folder: PathBuf,
    /// What for.
    pub what: String,
    /// Bytes that will be written there.
    pub needed: u64,
    /// Bytes that are free.
    pub free: u64,
}

/// The first disk that has too little room for a run of `plan` with its runs in `runs`. What is stored or was done before is
/// not written again; that is looked up only where it makes the difference.
pub fn shortage(
    plan: &Plan,
    registry: &Registry,
    options: &RunOptions,
    runs: &Path,
) -> Result<Option<NoRoom>, Error> {
    let mut outputs = Forecast::of(plan).outputs(plan, runs);
    if of(&outputs).is_none() {
        return Ok(None);
    }
    let explained = explain(plan, registry, options)?;
    outputs.retain_mut(|output| to_come(output, &explained));
    Ok(of(&outputs))
}

/// Whether something of `output` is still to be written; what it will take then.
fn to_come(output: &mut Output, explained: &[Explained]) -> bool {
    let state = explained.iter().find(|stage| stage.stage == output.stage).map(|stage| stage.state);
    if state == Some(State::Resume) {
        output.bytes = output.least;
    }
    !matches!(state, Some(State::Done | State::Cached))
}

fn of(outputs: &[Output]) -> Option<NoRoom> {
    let mut disks: BTreeMap<u64, NoRoom> = BTreeMap::new();
    for output in outputs {
        // A folder that cannot be asked about is an error of whoever writes to it.
        let Ok(disk) = Disk::of(&output.folder) else { continue };
        let what = format!("{} {}", gb(output.bytes), output.what);
        let needs = disks.entry(disk.device).or_insert_with(|| NoRoom {
            folder: output.folder.clone(),
            what: String::new(),
            needed: 0,
            free: disk.free,
        });
        needs.needed = needs.needed.saturating_add(output.bytes);
        needs.what += if needs.what.is_empty() { "" } else { ", " };
        needs.what += &what;
    }
    disks.into_values().find(|needs| needs.needed > needs.free)
}
