//! The mark of a run that asked for FP8 and goes on without it, because `fallback = "bf16"` says so: in every line of
//! the metrics, on top of the report, and in the `config.json` of whatever comes of the run.

use fp8flow_flow::PlannedSection;
use fp8flow_model::ModelConfig;

/// The key in `config.json`.
const KEY: &str = "fp8flow_fallback";

/// What took the place of FP8, if something did.
pub(super) fn of(section: &PlannedSection) -> Option<&str> {
    section.facts["fallback"].as_str()
}

/// Marks the configuration that checkpoints and exports are written with; a run in FP8 takes the mark of an earlier one
/// off.
pub(super) fn mark(config: &mut ModelConfig, fallback: Option<&str>) {
    match fallback {
        Some(precision) => drop(config.raw.insert(KEY.into(), precision.into())),
        None => drop(config.raw.shift_remove(KEY)),
    }
}
