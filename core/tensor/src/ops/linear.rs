//! The high-precision linear layer: three contractions over activations and a weight of their type.

use fp8flow_kernels::{Cpu, ElementsMut, Epilogue, Operand, Store, gemm};

use crate::Tensor;

fn store(accumulate: bool) -> Store {
    if accumulate { Store::Accumulate } else { Store::Overwrite }
}

fn product(cpu: Cpu<'_>, a: &Operand<'_>, b: &Operand<'_>, accumulate: bool, out: ElementsMut<'_>) {
    gemm(&cpu, a, Epilogue::One, b, Epilogue::One, store(accumulate), out);
}

/// `y = x·Wᵀ`.
pub(crate) fn forward(cpu: Cpu<'_>, x: &Tensor, weight: &Tensor, y: &mut Tensor) {
    product(cpu, &Operand::rows(x.matrix()), &Operand::rows(weight.matrix()), false, y.elements_mut());
}

/// `dx (+)= dy·W`.
pub(crate) fn dgrad(cpu: Cpu<'_>, dy: &Tensor, weight: &Tensor, accumulate: bool, dx: &mut Tensor) {
    product(
        cpu,
        &Operand::rows(dy.matrix()),
        &Operand::transposed(weight.matrix()),
        accumulate,
        dx.elements_mut(),
    );
}

/// `dW (+)= dyᵀ·x`.
pub(crate) fn wgrad(cpu: Cpu<'_>, dy: &Tensor, x: &Tensor, accumulate: bool, dweight: &mut Tensor) {
    let (dy, x) = (Operand::transposed(dy.matrix()), Operand::transposed(x.matrix()));
    product(cpu, &dy, &x, accumulate, dweight.elements_mut());
}
