//! RMSNorm (Zhang and Sennrich 2019): `y = x · rstd · w`, `rstd = (mean(x²) + eps)^-1/2`, over each row.
//!
//! Forward reads and writes each activation once; backward reads `dy` and `x` twice.

use fp8flow_kernels::parallel::for_each;
use fp8flow_kernels::{Buffer, Cpu, Element, multiversion};

use super::{ROWS_PER_TASK, TOKEN_BLOCK};
use crate::lanes::lane_sum;

multiversion! {
    fn forward_rows<A: Element>(x: &[A], weight: &[f32], eps: f32, y: &mut [A], rstd: &mut [f32]) {
        let h = weight.len();
        for ((x, y), rstd) in x.chunks_exact(h).zip(y.chunks_exact_mut(h)).zip(rstd) {
            let squares = lane_sum([x], [], |[x], [], acc| x.widen().mul_add(x.widen(), acc));
            let r = 1.0 / (squares / h as f32 + eps).sqrt();
            *rstd = r;
            for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                *y = A::narrow(x.widen() * r * w);
            }
        }
    }
}

multiversion! {
    /// `dx += rstd · w·dy − x · rstd³/H · Σ(w·dy·x)` over rows; `dweight` is overwritten with `Σ_t dy·x·rstd`.
    fn backward_rows<A: Element>(dy: &[A], x: &[A], weight: &[f32], rstd: &[f32], dx: &mut [A], dweight: &mut [f32]) {
        let h = weight.len();
        dweight.fill(0.0);
        let rows = dy.chunks_exact(h).zip(x.chunks_exact(h)).zip(dx.chunks_exact_mut(h)).zip(rstd);
        for (((dy, x), dx), &r) in rows {
            let dot = lane_sum([dy, x], [weight], |[dy, x], [w], acc| (dy.widen() * w).mul_add(x.widen(), acc));
            let c = dot * r * r * r / h as f32;
            for i in 0..h {
                let (g, x) = (dy[i].widen(), x[i].widen());
                let direct = g * weight[i] * r;
                dx[i] = A::narrow(dx[i].widen() + (-c).mul_add(x, direct));
                dweight[i] = g.mul_add(x * r, dweight[i]);
            }
        }
    }
}

pub(crate) fn forward<A: Element>(
    cpu: Cpu<'_>,
    x: &[A],
    weight: &[f32],
    eps: f32,
    y: &mut [A],
    rstd: &mut [f32],
) {
    let h = weight.len();
    let rows = x.chunks(ROWS_PER_TASK * h).zip(y.chunks_mut(ROWS_PER_TASK * h));
    for_each(cpu.pool, rows.zip(rstd.chunks_mut(ROWS_PER_TASK)), |((x, y), rstd)| {
        forward_rows(cpu.isa, x, weight, eps, y, rstd);
    });
}

/// Floats that [`backward`] works in.
pub(crate) fn floats(tokens: usize, h: usize) -> usize {
    tokens.div_ceil(TOKEN_BLOCK) * h
}

pub(crate) fn backward<A: Element>(
    cpu: Cpu<'_>,
    dy: &[A],
    x: &[A],
    weight: &[f32],
    rstd: &[f32],
    dx: &mut [A],
    dweight: &mut [f32],
) {
    let h = weight.len();
    let block = TOKEN_BLOCK * h;
    let mut partial = Buffer::take(floats(rstd.len(), h));
    let blocks = dy.chunks(block).zip(x.chunks(block)).zip(rstd.chunks(TOKEN_BLOCK));
    let blocks = blocks.zip(dx.chunks_mut(block)).zip(partial.chunks_exact_mut(h));
    for_each(cpu.pool, blocks, |((((dy, x), rstd), dx), dweight)| {
        backward_rows(cpu.isa, dy, x, weight, rstd, dx, dweight);
    });
    super::reduce::add_rows(&partial, dweight);
}
