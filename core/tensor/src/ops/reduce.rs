//! Sums whose order is fixed by shapes.

use fp8flow_kernels::parallel::for_each;
use fp8flow_kernels::{Cpu, LANES, multiversion};

/// Elements whose squares are added before they join the sum over a tensor; part of the numerics revision.
pub(crate) const CHUNK: usize = 1 << 12;

/// Chunks a task takes.
const CHUNKS_PER_TASK: usize = 8;

/// `total[j] += Σ_i rows[i][j]`, the rows added in ascending order first.
pub(crate) fn add_rows(rows: &[f32], total: &mut [f32]) {
    let n = total.len();
    if n == 0 {
        return;
    }
    for (j, total) in total.iter_mut().enumerate() {
        *total += rows.iter().skip(j).step_by(n).fold(0.0, |sum, x| sum + x);
    }
}

multiversion! {
    fn squares(x: &[f32]) -> f64 {
        let mut lanes = [0.0_f64; LANES];
        let chunks = x.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane = f64::from(*x).mul_add(f64::from(*x), *lane);
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane = f64::from(*x).mul_add(f64::from(*x), *lane);
        }
        lanes.iter().sum()
    }
}

/// Σ x² in f64: chunks of [`CHUNK`] elements, added in ascending order.
pub(crate) fn sum_of_squares(cpu: Cpu<'_>, x: &[f32]) -> f64 {
    let mut partial = vec![0.0_f64; x.len().div_ceil(CHUNK)];
    let tasks = partial.chunks_mut(CHUNKS_PER_TASK).zip(x.chunks(CHUNKS_PER_TASK * CHUNK));
    for_each(cpu.pool, tasks, |(sums, x)| {
        for (sum, x) in sums.iter_mut().zip(x.chunks(CHUNK)) {
            *sum = squares(cpu.isa, x);
        }
    });
    partial.iter().sum()
}
