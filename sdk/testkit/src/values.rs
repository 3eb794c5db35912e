//! Activations in either type, and the reproducible numbers that tests run on.

use fp8flow_sdk::kernels::philox::Philox;
use fp8flow_sdk::kernels::{Elements, ElementsMut, bf16};
use fp8flow_sdk::{DType, TensorMut, TensorRef};

use crate::layout::Layout;
use crate::memory::{Fence, Guarded};

/// The type of the activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// `precision = "bf16"`.
    Bf16,
    /// `precision = "f32"`.
    F32,
}

impl Activations {
    /// Bytes of an element.
    pub(crate) const fn size(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    /// As the SDK names it.
    pub(crate) const fn dtype(self) -> DType {
        match self {
            Self::Bf16 => DType::BF16,
            Self::F32 => DType::F32,
        }
    }
}

/// A matrix of activations in guarded memory.
#[derive(Clone, Debug)]
pub struct Values {
    memory: Guarded,
    dtype: Activations,
    rows: usize,
    cols: usize,
    layout: Layout,
}

impl Values {
    /// Memory for a result: every element a NaN, so that one left unwritten shows.
    pub fn unwritten(dtype: Activations, rows: usize, cols: usize) -> Self {
        Self::unwritten_as(dtype, rows, cols, Fence::Bytes, Layout::Dense)
    }

    /// The same in a place of choice.
    pub(crate) fn unwritten_as(
        dtype: Activations,
        rows: usize,
        cols: usize,
        fence: Fence,
        layout: Layout,
    ) -> Self {
        let bytes = layout.bytes(rows, cols, dtype.size());
        Self { memory: Guarded::within(fence, bytes, 0xff), dtype, rows, cols, layout }
    }

    /// The given numbers, rounded to `dtype`.
    ///
    /// # Panics
    /// If there are not `rows · cols`.
    pub fn new(dtype: Activations, rows: usize, cols: usize, numbers: &[f32]) -> Self {
        assert_eq!(numbers.len(), rows * cols, "{rows}×{cols}");
        let mut values = Self::unwritten(dtype, rows, cols);
        match values.elements_mut() {
            ElementsMut::F32(out) => out.copy_from_slice(numbers),
            ElementsMut::Bf16(out) => {
                out.iter_mut().zip(numbers).for_each(|(out, &x)| *out = bf16::from_f32(x));
            }
        }
        values
    }

    /// Numbers drawn from N(0, `deviation`²), the same for the same seed.
    pub fn normal(dtype: Activations, rows: usize, cols: usize, deviation: f32, seed: u64) -> Self {
        Self::new(dtype, rows, cols, &normal(rows * cols, deviation, seed))
    }

    /// The same numbers in another place.
    #[must_use]
    pub(crate) fn copied_to(&self, fence: Fence, layout: Layout) -> Self {
        let mut copy = Self::unwritten_as(self.dtype, self.rows, self.cols, fence, layout);
        let size = self.dtype.size();
        for row in 0..self.rows {
            let (from, to) = (self.layout.row(row, self.cols, size), layout.row(row, self.cols, size));
            copy.memory.bytes_mut()[to].copy_from_slice(&self.memory.bytes()[from]);
        }
        copy
    }

    /// A dense copy within guard bytes.
    #[must_use]
    pub(crate) fn dense(&self) -> Self {
        self.copied_to(Fence::Bytes, Layout::Dense)
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Element type.
    pub fn dtype(&self) -> Activations {
        self.dtype
    }

    /// The numbers as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        self.elements().to_f32()
    }

    /// The bytes, for comparisons to the bit.
    pub fn bytes(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// The bytes, to be overwritten.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.bytes_mut()
    }

    /// The memory alone.
    pub(crate) fn into_memory(self) -> Guarded {
        self.memory
    }

    /// Whether nothing beside the elements was written.
    pub fn is_intact(&self) -> bool {
        let mut gaps = self.layout.gaps(self.rows, self.cols, self.dtype.size());
        self.memory.is_intact() && gaps.all(|gap| self.memory.bytes()[gap].iter().all(|&byte| byte == 0xff))
    }

    /// The matrix to read.
    pub fn tensor(&self) -> TensorRef<'_> {
        let shape = [self.rows, self.cols];
        match self.layout {
            Layout::Dense => TensorRef::new(self.elements(), &shape),
            layout => layout.tensor(self.memory.bytes(), self.dtype, shape),
        }
    }

    /// The matrix to write.
    pub fn tensor_mut(&mut self) -> TensorMut<'_> {
        let shape = [self.rows, self.cols];
        match self.layout {
            Layout::Dense => TensorMut::new(self.elements_mut(), &shape),
            layout => layout.tensor_mut(self.memory.bytes_mut(), self.dtype, shape),
        }
    }

    fn elements(&self) -> Elements<'_> {
        debug_assert_eq!(self.layout, Layout::Dense, "elements one after the other");
        let bytes = self.memory.bytes();
        match self.dtype {
            Activations::F32 => Elements::F32(bytemuck::cast_slice(bytes)),
            Activations::Bf16 => Elements::Bf16(bytemuck::cast_slice(bytes)),
        }
    }

    fn elements_mut(&mut self) -> ElementsMut<'_> {
        debug_assert_eq!(self.layout, Layout::Dense, "elements one after the other");
        let bytes = self.memory.bytes_mut();
        match self.dtype {
            Activations::F32 => ElementsMut::F32(bytemuck::cast_slice_mut(bytes)),
            Activations::Bf16 => ElementsMut::Bf16(bytemuck::cast_slice_mut(bytes)),
        }
    }

    /// The numbers of a dense matrix of f32.
    ///
    /// # Panics
    /// If it is none.
    pub(crate) fn floats(&self) -> &[f32] {
        match self.elements() {
            Elements::F32(floats) => floats,
            _ => panic!("a matrix of f32"),
        }
    }

    /// The same, to be changed.
    pub(crate) fn floats_mut(&mut self) -> &mut [f32] {
        match self.elements_mut() {
            ElementsMut::F32(floats) => floats,
            ElementsMut::Bf16(_) => panic!("a matrix of f32"),
        }
    }
}

/// `len` numbers from N(0, `deviation`²), the same for the same seed.
pub fn normal(len: usize, deviation: f32, seed: u64) -> Vec<f32> {
    let numbers = Philox::new(seed, "testkit");
    (0..len.div_ceil(2))
        .flat_map(|i| numbers.normal_pair(0, i as u64))
        .take(len)
        .map(|x| x * deviation)
        .collect()
}
