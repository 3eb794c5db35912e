//! Tensors of a call against what the layer expects. The engine names plugin, layer and call; these errors name the
//! tensor.

use fp8flow_kernels::Matrix;

use crate::{DType, Error, Result, TensorRef};

/// `tensor` as a matrix of bf16 or f32 with `cols` columns.
pub(crate) fn activations<'a>(what: &str, tensor: &TensorRef<'a>, cols: usize) -> Result<Matrix<'a>> {
    let found = tensor.dtype();
    if !matches!(found, DType::F32 | DType::BF16) {
        return Err(Error::invalid(format!("{what}: expected bf16 or f32, found {}", found.name())));
    }
    let matrix = tensor.matrix()?;
    if matrix.cols != cols {
        return Err(Error::invalid(format!("{what}: expected [M, {cols}], found {:?}", tensor.shape())));
    }
    Ok(matrix)
}

/// Fails unless a tensor has this type and shape.
pub(crate) fn expect<const RANK: usize>(
    what: &str,
    (found, found_shape): (DType, &[u64]),
    (dtype, shape): (DType, [usize; RANK]),
) -> Result<()> {
    if found == dtype && found_shape.iter().copied().eq(shape.iter().map(|&n| n as u64)) {
        return Ok(());
    }
    let (found, dtype) = (found.name(), dtype.name());
    Err(Error::invalid(format!("{what}: expected {dtype} {shape:?}, found {found} {found_shape:?}")))
}
