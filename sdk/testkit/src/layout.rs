//! Matrices that lie in memory in ways a backend need not take, but must not mistake either.
#![allow(unsafe_code)]

use std::ops::Range;

use fp8flow_sdk::tensor::RawTensor;
use fp8flow_sdk::{DeviceId, TensorMut, TensorRef};

use crate::values::Activations;

/// Elements between the rows of a strided matrix.
const GAP: usize = 24;

/// How the elements of a matrix lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One after the other, at a multiple of 64.
    #[default]
    Dense,
    /// With a gap behind every row.
    Strided,
    /// One after the other, a byte behind where they should start.
    Misaligned,
    /// One after the other, at a multiple of an element and of nothing more.
    Shifted,
}

impl Layout {
    /// Bytes that a matrix takes.
    pub(crate) const fn bytes(self, rows: usize, cols: usize, size: usize) -> usize {
        rows * self.stride(cols) * size + self.offset(size)
    }

    const fn stride(self, cols: usize) -> usize {
        match self {
            Self::Strided => cols + GAP,
            Self::Dense | Self::Misaligned | Self::Shifted => cols,
        }
    }

    const fn offset(self, size: usize) -> usize {
        match self {
            Self::Misaligned => 1,
            Self::Shifted => size,
            Self::Dense | Self::Strided => 0,
        }
    }

    /// The bytes of a row.
    pub(crate) const fn row(self, row: usize, cols: usize, size: usize) -> Range<usize> {
        let start = self.offset(size) + row * self.stride(cols) * size;
        start..start + cols * size
    }

    /// The bytes between the rows and before the first.
    pub(crate) fn gaps(self, rows: usize, cols: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
        let behind = move |row| {
            let end = self.row(row, cols, size).end;
            end..end + (self.stride(cols) - cols) * size
        };
        std::iter::once(0..self.offset(size)).chain((0..rows).map(behind))
    }

    /// A matrix in `memory`, which is [`Layout::bytes`] long.
    pub(crate) fn tensor(self, memory: &[u8], dtype: Activations, shape: [usize; 2]) -> TensorRef<'_> {
        assert_eq!(memory.len(), self.bytes(shape[0], shape[1], dtype.size()), "a matrix of {shape:?}");
        // SAFETY: every element lies within `memory`, which is initialised and borrowed for as long as the tensor.
        unsafe { TensorRef::from_raw(self.raw(memory.as_ptr().cast_mut(), dtype, shape)) }
    }

    /// The same to be written.
    pub(crate) fn tensor_mut(
        self,
        memory: &mut [u8],
        dtype: Activations,
        shape: [usize; 2],
    ) -> TensorMut<'_> {
        assert_eq!(memory.len(), self.bytes(shape[0], shape[1], dtype.size()), "a matrix of {shape:?}");
        // SAFETY: as above, and borrowed for nobody else.
        unsafe { TensorMut::from_raw(self.raw(memory.as_mut_ptr(), dtype, shape)) }
    }

    fn raw(self, memory: *mut u8, dtype: Activations, [rows, cols]: [usize; 2]) -> RawTensor {
        RawTensor {
            data: memory.wrapping_add(self.offset(dtype.size())),
            dtype: dtype.dtype(),
            rank: 2,
            shape: [rows as u64, cols as u64, 1, 1],
            strides: [self.stride(cols) as i64, 1, 0, 0],
            device: DeviceId::CPU,
        }
    }
}
