//! Sums whose order is fixed by shapes.

use fp8flow_kernels::{Cpu, LANES, multiversion};

use crate::parts::Parts;

/// Elements whose squares are added before they join the sum over a tensor; part of the numerics revision.
const CHUNK: usize = 1 << 12;

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
    let chunks = x.len().div_ceil(CHUNK);
    let mut partial = vec![0.0_f64; chunks];
    let parts = Parts::new(&mut partial, 1);
    cpu.pool.run(chunks, &|i| {
        let end = x.len().min((i + 1) * CHUNK);
        parts.claim(i)[0] = squares(cpu.isa, &x[i * CHUNK..end]);
    });
    partial.iter().sum()
}
