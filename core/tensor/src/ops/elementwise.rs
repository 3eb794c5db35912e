//! Element by element: residual addition, conversion, bias, accumulation.

use fp8flow_kernels::{Cpu, multiversion};

use super::{ELEMENTS_PER_TASK, TOKEN_BLOCK};
use crate::element::Element;
use crate::parts::Parts;
use crate::scratch::with_scratch;

multiversion! {
    fn add_slice<A: Element>(x: &mut [A], y: &[A]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x = A::narrow(x.widen() + y.widen());
        }
    }
}

/// `x += y`.
pub(crate) fn add<A: Element>(cpu: Cpu<'_>, x: &mut [A], y: &[A]) {
    let xs = Parts::new(x, ELEMENTS_PER_TASK);
    cpu.pool.run(xs.count(), &|task| {
        let x = xs.claim(task);
        add_slice(cpu.isa, x, &y[task * ELEMENTS_PER_TASK..][..x.len()]);
    });
}

/// `out = x` in another type.
pub(crate) fn convert<A: Element, B: Element>(cpu: Cpu<'_>, x: &[A], out: &mut [B]) {
    let outs = Parts::new(out, ELEMENTS_PER_TASK);
    cpu.pool.run(outs.count(), &|task| {
        let out = outs.claim(task);
        for (out, x) in out.iter_mut().zip(&x[task * ELEMENTS_PER_TASK..]) {
            *out = B::narrow(x.widen());
        }
    });
}

/// `y[t] += bias`, the bias rounded to the type of `y` first.
pub(crate) fn bias<A: Element>(cpu: Cpu<'_>, bias: &[f32], y: &mut [A]) {
    let rounded: Vec<A> = bias.iter().map(|&b| A::narrow(b)).collect();
    let rows = Parts::new(y, bias.len());
    cpu.pool.run(rows.count(), &|t| add_slice(cpu.isa, rows.claim(t), &rounded));
}

/// `dbias += Σ_t dy[t]`: blocks of [`TOKEN_BLOCK`] tokens, each in ascending order, then the blocks.
pub(crate) fn bias_backward<A: Element>(cpu: Cpu<'_>, dy: &[A], dbias: &mut [f32]) {
    let n = dbias.len();
    let blocks = dy.len().div_ceil(TOKEN_BLOCK * n.max(1));
    with_scratch(blocks * n, |partial| {
        let partials = Parts::new(partial, n);
        cpu.pool.run(blocks, &|block| {
            let sum = partials.claim(block);
            let end = dy.len().min((block + 1) * TOKEN_BLOCK * n);
            for dy in dy[block * TOKEN_BLOCK * n..end].chunks_exact(n) {
                for (sum, dy) in sum.iter_mut().zip(dy) {
                    *sum += dy.widen();
                }
            }
        });
        super::reduce::add_rows(partial, dbias);
    });
}
