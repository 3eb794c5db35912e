//! Whether a program that has failed is begun again: by cause, because what fails for certain fails again.

use fp8flow_flow::Params;
use serde_json::Value;

use super::attempt::Ended;

/// Causes with a name; a status is its own.
pub(super) const CAUSES: &[&str] = &["timeout", "exit", "signal"];

#[derive(Clone, Debug, Default)]
pub(super) struct Retry {
    on: Vec<Value>,
    /// How many attempts there may be after the first.
    pub(super) max: u64,
}

impl Retry {
    pub(super) fn read(params: &Params) -> Self {
        Self { on: params.get("on"), max: params.get("max") }
    }

    pub(super) fn begins_again(&self, ended: &Ended) -> bool {
        self.on.iter().any(|cause| match ended {
            Ended::TimedOut(_) => cause == "timeout",
            Ended::Exit { status, .. } => cause == "exit" || *cause == *status,
            Ended::Signal { .. } => cause == "signal",
            Ended::Well | Ended::Stopped => false,
        })
    }
}
