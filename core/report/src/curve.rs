//! What a training stage measured, read back from its files.

use std::path::Path;

use fp8flow_flow::Seen;
use fp8flow_train::metrics::read;
use fp8flow_train::{EVALUATIONS, METRICS, StepMetrics};
use serde::{Deserialize, Serialize};

use crate::ReportError;

/// The measurements of a training stage.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    /// The run, with the stage where there are several.
    pub label: String,
    /// The run.
    pub run: String,
    /// The stage.
    pub stage: String,
    /// Every step.
    pub steps: Vec<StepMetrics>,
    /// Every evaluation.
    pub held_out: Vec<HeldOut>,
}

/// What is read of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Steps done before it.
    pub step: u64,
    /// Mean loss over the held-out targets.
    pub loss: f64,
}

/// The stages of `run` that train, in their order.
pub(crate) fn training_stages(run: &Seen) -> Result<Vec<String>, ReportError> {
    let kinds = run.stage_kinds()?.into_iter();
    Ok(kinds.filter(|(_, uses)| fp8flow_stages::is_training(uses)).map(|(name, _)| name).collect())
}

impl Curve {
    /// Those of every training stage of `run` that has measured anything, or of `only` that stage.
    pub fn of(run: &Seen, only: Option<&str>) -> Result<Vec<Self>, ReportError> {
        let id = &run.record.id;
        let mut curves = Vec::new();
        for stage in training_stages(run)? {
            let folder = run.folder.join(&stage);
            if only.is_none_or(|only| only == stage) && folder.join(METRICS).exists() {
                curves.push(Self { label: id.clone(), run: id.clone(), stage, ..Self::in_folder(&folder)? });
            }
        }
        if curves.len() > 1 {
            for curve in &mut curves {
                curve.label = format!("{id} {}", curve.stage);
            }
        }
        Ok(curves)
    }

    /// What the stage in `folder` measured, without names.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self, ReportError> {
        let (steps, held_out) = (read(&folder.join(METRICS))?, read(&folder.join(EVALUATIONS))?);
        Ok(Self { steps, held_out, ..Self::default() })
    }

    /// The step with the smallest loss.
    pub fn best(&self) -> Option<&StepMetrics> {
        self.steps.iter().min_by(|a, b| a.loss.total_cmp(&b.loss))
    }

    /// What was measured at `step`.
    pub fn at(&self, step: u64) -> Option<&StepMetrics> {
        self.steps.binary_search_by_key(&step, |line| line.step).ok().map(|index| &self.steps[index])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A curve that falls.
    pub(crate) fn curve(label: &str, steps: u64, evaluated: bool) -> Curve {
        let line = |step: u64| StepMetrics {
            step,
            loss: 5.0 / (step as f64).sqrt(),
            lr: 1e-3,
            grad_norm: 1.0,
            tokens: 64,
            tokens_per_s: 100.0,
            precision: None,
        };
        let held_out = [0, steps].map(|step| HeldOut { step, loss: 5.0 / (step as f64 + 1.0).sqrt() });
        Curve {
            label: label.into(),
            run: label.into(),
            stage: "train".into(),
            steps: (1..=steps).map(line).collect(),
            held_out: if evaluated { held_out.to_vec() } else { Vec::new() },
        }
    }
}
