//! What a cast did to the values, counted by its tasks.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a cast did to the values, for telemetry; counted only where asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CastStats {
    /// Elements seen.
    pub elements: u64,
    /// Finite elements whose scaled value lies beyond the largest finite code.
    pub saturated: u64,
    /// Non-zero elements whose code is zero.
    pub underflowed: u64,
}

/// What happened to the elements of a task.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) saturated: u64,
    pub(super) underflowed: u64,
}

/// Counts of all tasks, if anybody asked.
pub(super) struct Tally {
    asked: bool,
    saturated: AtomicU64,
    underflowed: AtomicU64,
}

impl Tally {
    pub(super) fn new(asked: bool) -> Self {
        Self { asked, saturated: AtomicU64::new(0), underflowed: AtomicU64::new(0) }
    }

    pub(super) fn start(&self) -> Option<Counts> {
        self.asked.then(Counts::default)
    }

    pub(super) fn add(&self, counts: Option<Counts>) {
        if let Some(Counts { saturated, underflowed }) = counts {
            self.saturated.fetch_add(saturated, Ordering::Relaxed);
            self.underflowed.fetch_add(underflowed, Ordering::Relaxed);
        }
    }

    pub(super) fn finish(self, elements: usize, stats: Option<&mut CastStats>) {
        if let Some(stats) = stats {
            stats.elements += elements as u64;
            stats.saturated += self.saturated.into_inner();
            stats.underflowed += self.underflowed.into_inner();
        }
    }
}
