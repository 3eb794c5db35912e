//! Element by element: residual addition, conversion, bias, accumulation.

use fp8flow_kernels::parallel::for_each;
use fp8flow_kernels::{Buffer, Cpu, Element, multiversion};

use super::{ELEMENTS_PER_TASK, ROWS_PER_TASK, TOKEN_BLOCK};

multiversion! {
    fn add_slice<A: Element>(x: &mut [A], y: &[A]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x = A::narrow(x.widen() + y.widen());
        }
    }
}

multiversion! {
    fn sum_slice<A: Element>(sum: &mut [f32], y: &[A]) {
        for (sum, y) in sum.iter_mut().zip(y) {
            *sum += y.widen();
        }
    }
}

multiversion! {
    fn convert_slice<A: Element, B: Element>(x: &[A], out: &mut [B]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = B::narrow(x.widen());
        }
    }
}

/// `x += y`.
pub(crate) fn add<A: Element>(cpu: Cpu<'_>, x: &mut [A], y: &[A]) {
    let chunks = x.chunks_mut(ELEMENTS_PER_TASK).zip(y.chunks(ELEMENTS_PER_TASK));
    for_each(cpu.pool, chunks, |(x, y)| add_slice(cpu.isa, x, y));
}

/// `out = x` in another type.
pub(crate) fn convert<A: Element, B: Element>(cpu: Cpu<'_>, x: &[A], out: &mut [B]) {
    let chunks = out.chunks_mut(ELEMENTS_PER_TASK).zip(x.chunks(ELEMENTS_PER_TASK));
    for_each(cpu.pool, chunks, |(out, x)| convert_slice(cpu.isa, x, out));
}

/// `y[t] += bias`, the bias rounded to the type of `y` first.
pub(crate) fn bias<A: Element>(cpu: Cpu<'_>, bias: &[f32], y: &mut [A]) {
    let rounded: Vec<A> = bias.iter().map(|&b| A::narrow(b)).collect();
    for_each(cpu.pool, y.chunks_mut(ROWS_PER_TASK * bias.len()), |y| {
        y.chunks_mut(bias.len()).for_each(|y| add_slice(cpu.isa, y, &rounded));
    });
}

/// `dbias += Σ_t dy[t]`: blocks of [`TOKEN_BLOCK`] tokens, each in ascending order, then the blocks.
pub(crate) fn bias_backward<A: Element>(cpu: Cpu<'_>, dy: &[A], dbias: &mut [f32]) {
    let n = dbias.len();
    let mut partial = Buffer::take(dy.len().div_ceil(TOKEN_BLOCK * n) * n);
    let blocks = partial.chunks_exact_mut(n).zip(dy.chunks(TOKEN_BLOCK * n));
    for_each(cpu.pool, blocks, |(sum, dy)| {
        sum.fill(0.0);
        dy.chunks_exact(n).for_each(|dy| sum_slice(cpu.isa, sum, dy));
    });
    super::reduce::add_rows(&partial, dbias);
}
