//! The product of two packed panels in registers, and the choice of instruction set.
//!
//! A tile is `MR × NR` sums. Plain Rust over arrays: rustc neither contracts nor reorders float arithmetic, so every
//! instruction set gives the same bits. The sizes leave no register unused and none spilled:
//!
//! | | tile | registers |
//! | --- | --- | --- |
//! | AVX-512 | 12 × 32 | 24 of sums, 2 of `b`, 1 of `a`, of 32 |
//! | AVX2 | 6 × 16 | 12 of sums, 2 of `b`, 1 of `a`, of 16 |
//! | baseline | 2 × 16 | 8 of sums, 4 of `b`, 2 of `a`, 2 products, of 16 |
#![allow(unsafe_code)]

use super::step::{Emulated, Exact, Fused, Step};
use crate::Isa;
use crate::transpose::{self, Block, Strip};

/// The sums of a tile.
pub(super) type Sums<const MR: usize, const NR: usize> = [[f32; NR]; MR];

/// Work that is compiled for each instruction set with its tile; `run` is to be inlined whole.
pub(super) trait Job {
    /// `accumulate(a, b, sums)` does `sums[i][j] ← a[k][i] · b[k][j] + sums[i][j]` for each `k`, ascending; `a` holds
    /// `MR` numbers a step, `b` holds `NR`. `turn` is [`transpose::plain`].
    fn run<const MR: usize, const NR: usize>(
        self,
        accumulate: impl Fn(&[f32], &[f32], &mut Sums<MR, NR>),
        turn: impl Fn(&Strip, usize, usize, &mut Block),
    );
}

/// Rows and columns of the tile of `isa`.
pub(super) const fn size(isa: Isa) -> [usize; 2] {
    match isa {
        Isa::Scalar => [2, 16],
        Isa::Avx2 => [6, 16],
        Isa::Avx512 => [12, 32],
    }
}

/// Runs `job` as `isa` does it; `exact` says that no product of the job is rounded.
pub(super) fn run(isa: Isa, exact: bool, job: impl Job) {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn avx2(job: impl Job) {
        job.run(
            |a, b, sums| accumulate_avx2(a, b, sums),
            |x, first, rows, out| transpose::avx2(x, first, rows, out),
        );
    }
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn avx512(job: impl Job) {
        job.run(
            |a, b, sums| accumulate_avx512(a, b, sums),
            |x, first, rows, out| transpose::avx512(x, first, rows, out),
        );
    }
    isa.require();
    match isa {
        Isa::Scalar if exact => job.run(accumulate_exact, transpose::plain),
        Isa::Scalar => job.run(accumulate_emulated, transpose::plain),
        // SAFETY: `require` has seen that this CPU has it.
        Isa::Avx2 => unsafe { avx2(job) },
        // SAFETY: as above.
        Isa::Avx512 => unsafe { avx512(job) },
    }
}

// Functions of their own: inlined into a job, they are not always compiled into clean loops.

#[inline(never)]
fn accumulate_exact(a: &[f32], b: &[f32], sums: &mut Sums<2, 16>) {
    accumulate::<Exact, 2, 16>(a, b, sums);
}

#[inline(never)]
fn accumulate_emulated(a: &[f32], b: &[f32], sums: &mut Sums<2, 16>) {
    accumulate::<Emulated, 2, 16>(a, b, sums);
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline(never)]
fn accumulate_avx2(a: &[f32], b: &[f32], sums: &mut Sums<6, 16>) {
    accumulate::<Fused, 6, 16>(a, b, sums);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline(never)]
fn accumulate_avx512(a: &[f32], b: &[f32], sums: &mut Sums<12, 32>) {
    accumulate::<Fused, 12, 32>(a, b, sums);
}

#[inline(always)]
fn accumulate<S: Step, const MR: usize, const NR: usize>(a: &[f32], b: &[f32], sums: &mut Sums<MR, NR>) {
    // A copy of its own can live in registers.
    let mut tile = *sums;
    for (a, b) in a.as_chunks::<MR>().0.iter().zip(b.as_chunks::<NR>().0) {
        for i in 0..MR {
            for j in 0..NR {
                tile[i][j] = S::step(a[i], b[j], tile[i][j]);
            }
        }
    }
    *sums = tile;
}
