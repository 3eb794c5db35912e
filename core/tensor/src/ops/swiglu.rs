//! SwiGLU (Shazeer 2020): `out = silu(gate) · up` with `silu(x) = x / (1 + e⁻ˣ)`; backward recomputes it.

use fp8flow_kernels::{Cpu, math, multiversion};

use super::ELEMENTS_PER_TASK;
use crate::element::Element;
use crate::parts::Parts;

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
    let outs = Parts::new(out, ELEMENTS_PER_TASK);
    cpu.pool.run(outs.count(), &|task| {
        let out = outs.claim(task);
        let at = task * ELEMENTS_PER_TASK..task * ELEMENTS_PER_TASK + out.len();
        forward_slice(cpu.isa, &gate[at.clone()], &up[at], out);
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
    let (dgates, dups) = (Parts::new(dgate, ELEMENTS_PER_TASK), Parts::new(dup, ELEMENTS_PER_TASK));
    cpu.pool.run(dgates.count(), &|task| {
        let dgate = dgates.claim(task);
        let at = task * ELEMENTS_PER_TASK..task * ELEMENTS_PER_TASK + dgate.len();
        backward_slice(cpu.isa, &dout[at.clone()], &gate[at.clone()], &up[at], dgate, dups.claim(task));
    });
}
