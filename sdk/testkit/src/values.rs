//! Activations in either type, and the reproducible numbers that tests run on.

use fp8flow_sdk::kernels::philox::Philox;
use fp8flow_sdk::kernels::{Elements, ElementsMut, bf16};
use fp8flow_sdk::{TensorMut, TensorRef};

use crate::memory::Guarded;

/// The type of the activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// `precision = "bf16"`.
    Bf16,
    /// `precision = "f32"`.
    F32,
}

/// A matrix of activations in guarded memory.
#[derive(Clone, Debug)]
pub struct Values {
    memory: Guarded,
    dtype: Activations,
    rows: usize,
    cols: usize,
}

impl Values {
    /// Memory for a result: every element a NaN, so that one left unwritten shows.
    pub fn unwritten(dtype: Activations, rows: usize, cols: usize) -> Self {
        let size = match dtype {
            Activations::Bf16 => 2,
            Activations::F32 => 4,
        };
        Self { memory: Guarded::new(rows * cols * size, 0xff), dtype, rows, cols }
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
        let elements = self.elements();
        (0..elements.len()).map(|i| elements.get(i)).collect()
    }

    /// The bytes, for comparisons to the bit.
    pub fn bytes(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// Whether nothing beside the elements was written.
    pub fn is_intact(&self) -> bool {
        self.memory.is_intact()
    }

    /// The matrix to read.
    pub fn tensor(&self) -> TensorRef<'_> {
        TensorRef::new(self.elements(), &[self.rows, self.cols])
    }

    /// The matrix to write.
    pub fn tensor_mut(&mut self) -> TensorMut<'_> {
        let shape = [self.rows, self.cols];
        TensorMut::new(self.elements_mut(), &shape)
    }

    fn elements(&self) -> Elements<'_> {
        let bytes = self.memory.bytes();
        match self.dtype {
            Activations::F32 => Elements::F32(bytemuck::cast_slice(bytes)),
            Activations::Bf16 => Elements::Bf16(bytemuck::cast_slice(bytes)),
        }
    }

    fn elements_mut(&mut self) -> ElementsMut<'_> {
        let bytes = self.memory.bytes_mut();
        match self.dtype {
            Activations::F32 => ElementsMut::F32(bytemuck::cast_slice_mut(bytes)),
            Activations::Bf16 => ElementsMut::Bf16(bytemuck::cast_slice_mut(bytes)),
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
