//! Tensors of a call against what the layer expects. The engine names plugin, layer and call; these errors name the
//! tensor.

use fp8flow_kernels::Matrix;

use crate::{DType, Error, Result, TensorRef};
#[cfg(feature = "cuda")]
use crate::{DeviceId, tensor::RawTensor};

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

/// What addresses on a card are multiples of: kernels read and write 16 bytes at once.
#[cfg(feature = "cuda")]
const AT_ONCE: u64 = 16;

/// Where a tensor on the card `device` starts, if it lies there in one piece that its kernels can read and write.
#[cfg(feature = "cuda")]
pub(crate) fn address(what: &str, raw: &RawTensor, device: DeviceId) -> Result<u64> {
    if (raw.device.kind, raw.device.ordinal) != (device.kind, device.ordinal) {
        return Err(Error::invalid(format!("{what} is not on the card that the layer was made for")));
    }
    let elements = raw.elements_of_dense();
    elements.map_err(|error| Error { message: format!("{what}: {}", error.message), ..error })?;
    let address = raw.data.addr() as u64;
    if !address.is_multiple_of(AT_ONCE) {
        return Err(Error::unsupported(format!(
            "{what} lies at {address:#x}, which is no multiple of {AT_ONCE}"
        )));
    }
    Ok(address)
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
