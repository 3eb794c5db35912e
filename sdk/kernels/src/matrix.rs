//! Borrowed row-major matrices in the element types that kernels read and write.

use half::bf16;

/// Elements to read.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// bfloat16.
    Bf16(&'a [bf16]),
    /// E4M3 codes.
    E4m3(&'a [u8]),
    /// E5M2 codes.
    E5m2(&'a [u8]),
}

impl Elements<'_> {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::Bf16(x) => x.len(),
            Self::E4m3(x) | Self::E5m2(x) => x.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element `i` as f32; exact for every type.
    pub fn get(&self, i: usize) -> f32 {
        match self {
            Self::F32(x) => x[i],
            Self::Bf16(x) => x[i].to_f32(),
            Self::E4m3(x) => crate::Fp8::E4m3.decode(x[i]),
            Self::E5m2(x) => crate::Fp8::E5m2.decode(x[i]),
        }
    }

    /// All elements as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        (0..self.len()).map(|i| self.get(i)).collect()
    }
}

/// Elements to write; values are rounded to nearest even once, at the store.
#[derive(Debug)]
pub enum ElementsMut<'a> {
    /// 32-bit floats.
    F32(&'a mut [f32]),
    /// bfloat16.
    Bf16(&'a mut [bf16]),
}

impl ElementsMut<'_> {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::Bf16(x) => x.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A dense row-major matrix of `rows × cols` elements.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The elements, `rows · cols` of them.
    pub elements: Elements<'a>,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix over `elements`.
    ///
    /// # Panics
    /// If there are not exactly `rows · cols` elements.
    pub fn new(elements: Elements<'a>, rows: usize, cols: usize) -> Self {
        assert_eq!(elements.len(), rows * cols, "a {rows}×{cols} matrix over {} elements", elements.len());
        Self { elements, rows, cols }
    }
}

/// How many blocks of `block` rows and columns cover a matrix of `shape`, down and across; those at its lower and right
/// edge may be smaller.
///
/// # Panics
/// If a block has no rows or no columns.
pub fn grid(shape: [usize; 2], block: [usize; 2]) -> [usize; 2] {
    assert!(block[0] > 0 && block[1] > 0, "blocks of {}×{}", block[0], block[1]);
    [shape[0].div_ceil(block[0]), shape[1].div_ceil(block[1])]
}
