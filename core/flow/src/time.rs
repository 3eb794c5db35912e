//! Moments as a run's files write them: UTC, to the millisecond.

use std::time::SystemTime;

use jiff::Timestamp;

/// The time, for people.
pub fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

/// The moment of a file, in the same form.
pub(crate) fn of(time: SystemTime) -> String {
    Timestamp::try_from(time).map(|time| format!("{time:.3}")).unwrap_or_default()
}

/// Seconds from one moment to another; `None` where one of them is no moment.
pub fn between(from: &str, to: &str) -> Option<f64> {
    let moment = |text: &str| text.parse::<Timestamp>().ok();
    Some(moment(to)?.duration_since(moment(from)?).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_now_says_is_a_moment() {
        let [a, b] = ["2026-11-25T22:17:01.250Z", "2026-11-25T22:18:01.500Z"];
        assert_eq!((between(a, b), between(b, a)), (Some(60.25), Some(-60.25)));
        assert!(between(&now(), &now()).is_some_and(|seconds| (0.0..60.0).contains(&seconds)));
        assert_eq!(between(a, "yesterday"), None);
    }
}
