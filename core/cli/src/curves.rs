//! What a training stage measured, read back from its files.

use fp8flow_flow::Seen;
use fp8flow_train::metrics::read;
use fp8flow_train::{EVALUATIONS, METRICS, StepMetrics};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The measurements of a training stage.
pub(crate) struct Curve {
    /// The run, with the stage where there are several.
    pub(crate) label: String,
    pub(crate) run: String,
    pub(crate) stage: String,
    pub(crate) steps: Vec<StepMetrics>,
    pub(crate) held_out: Vec<HeldOut>,
}

/// What is read of an evaluation.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct HeldOut {
    /// Steps done before it.
    pub(crate) step: u64,
    /// Mean loss over the held-out targets.
    pub(crate) loss: f64,
}

impl Curve {
    /// Those of every training stage of `run`, or of `only` that stage.
    pub(crate) fn of(run: &Seen, only: Option<&str>) -> Result<Vec<Self>, Failure> {
        let id = &run.record.id;
        let mut curves = Vec::new();
        for (stage, uses) in run.stage_kinds()? {
            let folder = run.folder.join(&stage);
            let chosen = fp8flow_stages::is_training(&uses) && only.is_none_or(|only| only == stage);
            if chosen && folder.join(METRICS).exists() {
                let (steps, held_out) = (read(&folder.join(METRICS))?, read(&folder.join(EVALUATIONS))?);
                curves.push(Self { label: id.clone(), run: id.clone(), stage, steps, held_out });
            }
        }
        if curves.len() > 1 {
            for curve in &mut curves {
                curve.label = format!("{id} {}", curve.stage);
            }
        }
        if curves.is_empty() {
            let what = only.map_or("no training stage".into(), |name| format!("no training stage `{name}`"));
            let help = format!("`fp8flow status {id}` shows how far it has come.");
            return Err(Failure::usage(format!("{what} of run {id} has measured anything"), help));
        }
        Ok(curves)
    }

    /// The step with the smallest loss.
    pub(crate) fn best(&self) -> Option<&StepMetrics> {
        self.steps.iter().min_by(|a, b| a.loss.total_cmp(&b.loss))
    }

    /// What was measured at `step`.
    pub(crate) fn at(&self, step: u64) -> Option<&StepMetrics> {
        self.steps.binary_search_by_key(&step, |line| line.step).ok().map(|index| &self.steps[index])
    }
}
