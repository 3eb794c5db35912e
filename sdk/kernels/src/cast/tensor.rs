//! Casts with one scale for the whole tensor, and maxima of it.

use std::sync::atomic::{AtomicU32, Ordering};

use super::source::Source;
use super::tally::{CastStats, Tally};
use super::{PIECE, TASK, slice};
use crate::parallel::for_each;
use crate::scale::Nan;
use crate::{Cpu, Fp8};

/// The absolute maximum of all tasks, as bits: of numbers that are not NaN they have the order of the values.
#[derive(Default)]
pub(super) struct Top(AtomicU32);

impl Top {
    fn raise(&self, maximum: f32) {
        self.0.fetch_max(maximum.to_bits(), Ordering::Relaxed);
    }

    pub(super) fn amax(self) -> f32 {
        f32::from_bits(self.0.into_inner())
    }
}

/// Casts; raises `top`, passing over NaNs, where it is asked for.
pub(super) fn cast<A: Source>(
    cpu: &Cpu<'_>,
    x: &[A],
    format: Fp8,
    scale: f32,
    codes: &mut [u8],
    top: Option<&Top>,
    stats: Option<&mut CastStats>,
) {
    let tally = Tally::new(stats.is_some());
    // Looked for where somebody asks: the caller, or the choice of a way.
    let wanted = top.is_some() || slice::has_ways::<A>(cpu.isa);
    for_each(cpu.pool, x.chunks(TASK).zip(codes.chunks_mut(TASK)), |(x, codes)| {
        let mut counts = tally.start();
        for (x, codes) in x.chunks(PIECE).zip(codes.chunks_mut(PIECE)) {
            let maximum =
                if wanted { slice::maximum(cpu.isa, Nan::Wins, x) } else { A::Magnitude::default() };
            let way = slice::way::<A>(cpu.isa, format, &[maximum], &[scale]);
            slice::encode(cpu.isa, format, way, x, PIECE, &[scale], codes, counts.as_mut());
            let Some(top) = top else { continue };
            let nan = maximum > A::INFINITY;
            top.raise(A::value(if nan { slice::maximum(cpu.isa, Nan::Ignored, x) } else { maximum }));
        }
        tally.add(counts);
    });
    tally.finish(x.len(), stats);
}

pub(super) fn amax<A: Source>(cpu: &Cpu<'_>, nan: Nan, x: &[A]) -> f32 {
    let top = Top::default();
    for_each(cpu.pool, x.chunks(TASK), |x| top.raise(A::value(slice::maximum(cpu.isa, nan, x))));
    top.amax()
}
