//! What launchers have in common: how tensors are checked, and entry points named.

#![allow(unsafe_code)]

use fp8flow_cuda::{Arg, Card, Result, Shape, Source};

use crate::{DType, Tensor};

/// Threads of a block of the kernels that go element by element.
const THREADS: u32 = 256;

/// The type of activations that are alike.
///
/// # Panics
/// If they differ in type, or one is elsewhere than on `card`.
pub(super) fn activations(card: &Card, tensors: &[&Tensor]) -> DType {
    let dtype = tensors.first().map_or(DType::F32, |tensor| tensor.dtype());
    for tensor in tensors {
        let found = (tensor.dtype(), tensor.card().map(Card::ordinal));
        assert_eq!(found, (dtype, Some(card.ordinal())), "activations of one type on one card");
    }
    dtype
}

/// Checks that tensors are f32.
///
/// # Panics
/// If one is of another type, or elsewhere than on `card`.
pub(super) fn floats(card: &Card, tensors: &[&Tensor]) {
    assert_eq!(activations(card, tensors), DType::F32, "f32 tensors");
}

/// Elements in use.
pub(super) fn elements(tensor: &Tensor) -> usize {
    tensor.rows() * tensor.cols()
}

/// Checks that tensors have one shape, and returns it: rows and columns.
///
/// # Panics
/// If they differ.
pub(super) fn shape_of(tensors: &[&Tensor]) -> (usize, usize) {
    let shape = |tensor: &Tensor| (tensor.rows(), tensor.cols());
    let first = tensors.first().map_or((0, 0), |tensor| shape(tensor));
    for tensor in tensors {
        assert_eq!(shape(tensor), first, "tensors of one shape");
    }
    first
}

/// A count as a `u32` of a kernel.
///
/// # Panics
/// If it is none.
pub(super) fn count(n: usize) -> Arg {
    let fits = u32::try_from(n);
    assert!(fits.is_ok(), "{n} of anything");
    Arg::U32(n as u32)
}

/// A thread for each vector of `width` of `n` elements, and one for each that is left.
pub(super) fn vectors(n: usize, width: usize) -> Shape {
    Shape::each(n / width + n % width, THREADS)
}

/// Elements of a vector of 16 bytes.
pub(super) fn vector(dtype: DType) -> usize {
    16 / dtype.size()
}

/// Blocks of `threads` threads that it takes for columns, a vector a thread if `cols` is a multiple of it.
pub(super) fn column_blocks(cols: usize, dtype: DType, threads: usize) -> usize {
    let vector = vector(dtype);
    let each = if cols.is_multiple_of(vector) { vector } else { 1 };
    (cols / each).div_ceil(threads)
}

/// Launches the entry point `op` of `source` for elements of `dtype`.
///
/// # Safety
/// That of [`fp8flow_cuda::Kernel::launch`].
pub(super) unsafe fn launch(
    card: &Card,
    source: Source,
    op: &str,
    dtype: DType,
    shape: Shape,
    arguments: &[Arg],
) -> Result<()> {
    let dtype = match dtype {
        DType::F32 => "f32",
        DType::Bf16 => "bf16",
    };
    let kernel = card.kernel(source, &format!("{op}_{dtype}"))?;
    // SAFETY: the caller's.
    unsafe { kernel.launch(card, shape, arguments) }
}
