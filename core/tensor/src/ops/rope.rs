//! Rotary position embedding (Su et al. 2021) in the Hugging Face layout: element `i` of a head pairs with
//! `i + head_dim/2`, and positions restart at each sequence.

use fp8flow_kernels::parallel::for_each;
use fp8flow_kernels::{Cpu, Element, multiversion};

use super::ROWS_PER_TASK;

multiversion! {
    fn rotate<A: Element>(head: &mut [A], cos: &[f32], sin: &[f32], sign: f32) {
        let (low, high) = head.split_at_mut(cos.len());
        for (((a, b), c), s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            let (x, y, s) = (a.widen(), b.widen(), s * sign);
            *a = A::narrow(x * c - y * s);
            *b = A::narrow(y * c + x * s);
        }
    }
}

/// Turns every head of every token; `sign` is 1 forward, −1 backward.
pub(crate) fn rotate_all<A: Element>(
    cpu: Cpu<'_>,
    x: &mut [A],
    width: usize,
    head_dim: usize,
    sequences: &[u32],
    cos: &[f32],
    sin: &[f32],
    sign: f32,
) {
    let half = head_dim / 2;
    for_each(cpu.pool, x.chunks_mut(ROWS_PER_TASK * width).enumerate(), |(task, rows)| {
        for (row, x) in rows.chunks_exact_mut(width).enumerate() {
            let token = (task * ROWS_PER_TASK + row) as u32;
            let sequence = sequences.partition_point(|&start| start <= token) - 1;
            let at = (token - sequences[sequence]) as usize * half;
            for head in x.chunks_exact_mut(head_dim) {
                rotate(cpu.isa, head, &cos[at..at + half], &sin[at..at + half], sign);
            }
        }
    });
}
