//! Calls and seconds of a step, by part.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::parts::work::Work;

/// A part of a step, in the order of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Linear layers through the backend: cast x, cast W once a step, fprop.
    LinearFp8Forward,
    /// The same: cast dy, dgrad, wgrad.
    LinearFp8Backward,
    /// Linear layers in high precision.
    LinearForward,
    /// The same.
    LinearBackward,
    AttentionForward,
    AttentionBackward,
    /// The output head's three GEMMs, the softmax between them.
    CrossEntropy,
    RmsNormForward,
    RmsNormBackward,
    /// Both ways.
    Rope,
    SwigluForward,
    SwigluBackward,
    /// The residual stream gains.
    Residual,
    EmbeddingForward,
    EmbeddingBackward,
    BiasForward,
    BiasBackward,
    /// Masters rounded for layers in high precision.
    Convert,
    /// Gradients of micro-batches combined.
    Accumulate,
    /// Sums of squares for clipping.
    GradientNorm,
    Adamw,
    /// What the recipe does at the points of the protocol.
    Recipe,
}

impl Part {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::LinearFp8Forward => "linear_fp8_forward",
            Self::LinearFp8Backward => "linear_fp8_backward",
            Self::LinearForward => "linear_forward",
            Self::LinearBackward => "linear_backward",
            Self::AttentionForward => "attention_forward",
            Self::AttentionBackward => "attention_backward",
            Self::CrossEntropy => "cross_entropy",
            Self::RmsNormForward => "rms_norm_forward",
            Self::RmsNormBackward => "rms_norm_backward",
            Self::Rope => "rope",
            Self::SwigluForward => "swiglu_forward",
            Self::SwigluBackward => "swiglu_backward",
            Self::Residual => "residual",
            Self::EmbeddingForward => "embedding_forward",
            Self::EmbeddingBackward => "embedding_backward",
            Self::BiasForward => "bias_forward",
            Self::BiasBackward => "bias_backward",
            Self::Convert => "convert",
            Self::Accumulate => "accumulate",
            Self::GradientNorm => "gradient_norm",
            Self::Adamw => "adamw",
            Self::Recipe => "recipe",
        }
    }
}

/// What a part has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) seconds: f64,
    /// None where it is not known.
    pub(crate) work: Option<Work>,
}

/// The parts of the step at hand.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    // One thread calls at a time; the lock is never waited for.
    parts: Mutex<BTreeMap<Part, Tally>>,
    generation: AtomicU64,
}

impl Ledger {
    /// Does `call`, which is of `part`.
    pub(crate) fn time<T>(&self, part: Part, work: Option<Work>, call: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = call();
        let seconds = began.elapsed().as_secs_f64();
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = parts.entry(part).or_default();
        tally.calls += 1;
        tally.seconds += seconds;
        if let Some(work) = work {
            *tally.work.get_or_insert_default() += work;
        }
        result
    }

    /// The step is done: what it took, and the next begins.
    pub(crate) fn take(&self) -> BTreeMap<Part, Tally> {
        std::mem::take(&mut *self.parts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The optimizer has stepped.
    pub(crate) fn weights_changed(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it has.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_a_part_add_up_until_the_step_is_done() {
        let ledger = Ledger::default();
        let work = Some(Work { flops: 3, bytes: 5 });
        assert_eq!(ledger.time(Part::Rope, work, || 7), 7);
        ledger.time(Part::Rope, work, || std::thread::sleep(std::time::Duration::from_millis(2)));
        ledger.time(Part::Recipe, None, || ());
        let parts = ledger.take();
        assert_eq!(parts.len(), 2);
        let rope = parts[&Part::Rope];
        assert_eq!((rope.calls, rope.work), (2, Some(Work { flops: 6, bytes: 10 })));
        assert!(rope.seconds >= 0.002);
        assert_eq!((parts[&Part::Recipe].calls, parts[&Part::Recipe].work), (1, None));
        assert!(ledger.take().is_empty());
    }
}
