//! SwiGLU (Shazeer 2020): `out = silu(gate) · up` with `silu(x) = x / (1 + e⁻ˣ)`; backward recomputes it.

use fp8flow_kernels::parallel::for_each;
use fp8flow_kernels::{Cpu, Element, math, multiversion};

use super::ELEMENTS_PER_TASK;

multiversion! {
    fn forward_slice<A: Element>(gate: &[A], up: &[A], out: &mut [A]) {
        for ((gate, up), out) in gate.iter().zip(up).zip(out) {
            let g = gate.widen();
            *out = A::narrow(g * math::sigmoid(g) * up.widen());
        }
    }
}

multiversion! {
    /// `dup = dout · silu(g)`, `dgate = dout · up · σ(g) · (1 + g · (1 − σ(g)))`.
    fn backward_slice<A: Element>(dout: &[A], gate: &[A], up: &[A], dgate: &mut [A], dup: &mut [A]) {
        for ((((d, gate), up), dgate), dup) in dout.iter().zip(gate).zip(up).zip(dgate).zip(dup) {
            let (d, g, u) = (d.widen(), gate.widen(), up.widen());
            let s = math::sigmoid(g);
            *dup = A::narrow(d * (g * s));
            *dgate = A::narrow(d * u * (s * g.mul_add(1.0 - s, 1.0)));
        }
    }
}

pub(crate) fn forward<A: Element>(cpu: Cpu<'_>, gate: &[A], up: &[A], out: &mut [A]) {
    let chunks = gate.chunks(ELEMENTS_PER_TASK).zip(up.chunks(ELEMENTS_PER_TASK));
    for_each(cpu.pool, chunks.zip(out.chunks_mut(ELEMENTS_PER_TASK)), |((gate, up), out)| {
        forward_slice(cpu.isa, gate, up, out);
    });
}

pub(crate) fn backward<A: Element>(
    cpu: Cpu<'_>,
    dout: &[A],
    gate: &[A],
    up: &[A],
    dgate: &mut [A],
    dup: &mut [A],
) {
    let reads = dout.chunks(ELEMENTS_PER_TASK).zip(gate.chunks(ELEMENTS_PER_TASK));
    let reads = reads.zip(up.chunks(ELEMENTS_PER_TASK));
    let writes = dgate.chunks_mut(ELEMENTS_PER_TASK).zip(dup.chunks_mut(ELEMENTS_PER_TASK));
    for_each(cpu.pool, reads.zip(writes), |(((dout, gate), up), (dgate, dup))| {
        backward_slice(cpu.isa, dout, gate, up, dgate, dup);
    });
}
