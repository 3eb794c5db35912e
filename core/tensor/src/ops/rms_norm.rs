//! RMSNorm (Zhang and Sennrich 2019): `y = x · rstd · w`, `rstd = (mean(x²) + eps)^-1/2`, over each row.
//!
//! Forward reads and writes each activation once; backward reads `dy` and `x` twice.

use fp8flow_kernels::{Cpu, multiversion};

use super::{ROWS_PER_TASK, TOKEN_BLOCK};
use crate::element::{Element, lane_sum};
use crate::parts::Parts;
use crate::scratch::with_scratch;

multiversion! {
    fn forward_rows<A: Element>(x: &[A], weight: &[f32], eps: f32, y: &mut [A], rstd: &mut [f32]) {
        let h = weight.len();
        for ((x, y), rstd) in x.chunks_exact(h).zip(y.chunks_exact_mut(h)).zip(rstd) {
            let squares = lane_sum(h, |i, acc| x[i].widen().mul_add(x[i].widen(), acc));
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
            let dot = lane_sum(h, |i, acc| (dy[i].widen() * weight[i]).mul_add(x[i].widen(), acc));
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
    let (ys, rstds) = (Parts::new(y, ROWS_PER_TASK * h), Parts::new(rstd, ROWS_PER_TASK));
    cpu.pool.run(rstds.count(), &|task| {
        let rstd = rstds.claim(task);
        let x = &x[task * ROWS_PER_TASK * h..][..rstd.len() * h];
        forward_rows(cpu.isa, x, weight, eps, ys.claim(task), rstd);
    });
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
    let blocks = rstd.len().div_ceil(TOKEN_BLOCK);
    with_scratch(blocks * h, |partial| {
        let (dxs, partials) = (Parts::new(dx, TOKEN_BLOCK * h), Parts::new(partial, h));
        cpu.pool.run(blocks, &|block| {
            let dx = dxs.claim(block);
            let at = block * TOKEN_BLOCK * h..block * TOKEN_BLOCK * h + dx.len();
            let rstd = &rstd[block * TOKEN_BLOCK..][..dx.len() / h];
            backward_rows(cpu.isa, &dy[at.clone()], &x[at], weight, rstd, dx, partials.claim(block));
        });
        super::reduce::add_rows(partial, dweight);
    });
}
