//! How the program is watched: the values that change no result.

use std::time::Duration;

use fp8flow_flow::{Params, PlanCx};

use super::duration;
use super::retry::Retry;

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) timeout: Option<Duration>,
    pub(super) grace: Duration,
    pub(super) retry: Retry,
}

impl Settings {
    /// The error is the key whose value is no duration.
    pub(super) fn read(params: &Params) -> Result<Self, &'static str> {
        let timeout = params.get::<Option<&str>>("timeout");
        let timeout = timeout.map(|text| duration::parse(text).ok_or("timeout")).transpose()?;
        let grace = duration::parse(params.get("grace")).ok_or("grace")?;
        Ok(Self { timeout, grace, retry: Retry::read(&params.table("retry")) })
    }

    /// The same, with objections.
    pub(super) fn check(cx: &mut PlanCx<'_>) -> Option<Self> {
        match Self::read(cx.params()) {
            Ok(settings) => Some(settings),
            Err(key) => {
                cx.error(key, format!("`{key}` is no duration"))
                    .label("expected whole numbers with units, the longest first")
                    .help("Write `90s`, `30m`, `2h` or `1h30m`; the units are d, h, m, s and ms.");
                None
            }
        }
    }
}
