//! A row-major matrix with a capacity in rows, in the memory of a device.

use std::ops::Deref;
use std::sync::Arc;

use fp8flow_cuda::{Arg, Card, Memory};
use fp8flow_kernels::{Elements, ElementsMut, Matrix, bf16};

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float: masters, gradients, statistics.
    F32,
    /// bfloat16: activations under `precision = "bf16"`.
    Bf16,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// `rows × cols` elements, dense and row-major. A vector is one row.
#[derive(Debug)]
pub struct Tensor {
    storage: Storage,
    rows: usize,
    cols: usize,
    capacity: usize,
}

#[derive(Debug)]
enum Storage {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    /// A stretch of a card's memory, from this byte on.
    Card(DType, Arc<Memory>, usize),
}

/// What reads or writes elements here was given a tensor whose elements are elsewhere: a bug of the caller.
fn elsewhere() -> ! {
    panic!("a tensor in the CPU's memory was expected")
}

impl Tensor {
    /// Zeros on the CPU, with room for `rows` rows.
    pub fn zeros(dtype: DType, rows: usize, cols: usize) -> Self {
        let storage = match dtype {
            DType::F32 => Storage::F32(vec![0.0; rows * cols]),
            DType::Bf16 => Storage::Bf16(vec![bf16::ZERO; rows * cols]),
        };
        Self { storage, rows, cols, capacity: rows }
    }

    /// The given f32 elements on the CPU.
    ///
    /// # Panics
    /// If there are not `rows · cols` of them.
    pub fn from_f32(elements: Vec<f32>, rows: usize, cols: usize) -> Self {
        assert_eq!(elements.len(), rows * cols, "a {rows}×{cols} tensor");
        Self { storage: Storage::F32(elements), rows, cols, capacity: rows }
    }

    /// What is in `memory` from byte `offset` on: room for `rows` rows on a card.
    ///
    /// # Panics
    /// If it does not lie within.
    pub fn on_card(memory: Arc<Memory>, offset: usize, dtype: DType, rows: usize, cols: usize) -> Self {
        assert!(offset + rows * cols * dtype.size() <= memory.bytes(), "a {rows}×{cols} tensor at {offset}");
        Self { storage: Storage::Card(dtype, memory, offset), rows, cols, capacity: rows }
    }

    /// `n` elements of a row on a card, from `first` on: another tensor of the same memory.
    ///
    /// # Panics
    /// If it is not one row on a card, or shorter.
    pub(crate) fn columns(&self, first: usize, n: usize) -> Self {
        match &self.storage {
            Storage::Card(dtype, memory, offset) if self.rows == 1 && first + n <= self.cols => {
                Self::on_card(memory.clone(), offset + first * dtype.size(), *dtype, 1, n)
            }
            _ => panic!("a row of {} elements on a card was expected", first + n),
        }
    }

    /// Zeros on `card`, with room for `rows` rows.
    pub fn zeros_on(card: &Card, dtype: DType, rows: usize, cols: usize) -> fp8flow_cuda::Result<Self> {
        let memory = card.take(rows * cols * dtype.size())?;
        memory.fill(0, memory.bytes(), 0)?;
        Ok(Self::on_card(Arc::new(memory), 0, dtype, rows, cols))
    }

    /// A copy on `card`.
    pub fn copy_to(&self, card: &Card) -> fp8flow_cuda::Result<Self> {
        let here = self.here()?;
        let copy = Self::zeros_on(card, here.dtype(), here.rows, here.cols)?;
        let (memory, offset, _) = copy.stretch();
        memory.write(offset, here.raw())?;
        Ok(copy)
    }

    /// The tensor itself if it is in the CPU's memory, else a copy that is.
    pub fn here(&self) -> fp8flow_cuda::Result<Here<'_>> {
        let Storage::Card(dtype, memory, offset) = &self.storage else { return Ok(Here::Itself(self)) };
        let mut copy = Self::zeros(*dtype, self.rows, self.cols);
        memory.read(*offset, copy.raw_mut())?;
        Ok(Here::Copy(copy))
    }

    /// Takes over the elements of an f32 tensor in the CPU's memory.
    ///
    /// # Panics
    /// If it is of another type or number.
    pub fn set_f32(&mut self, elements: &[f32]) -> fp8flow_cuda::Result<()> {
        assert_eq!((self.dtype(), self.rows * self.cols), (DType::F32, elements.len()), "f32 elements");
        if let Storage::Card(_, memory, offset) = &self.storage {
            return memory.write(*offset, bytemuck::cast_slice(elements));
        }
        self.f32_mut().copy_from_slice(elements);
        Ok(())
    }

    /// Takes over the elements that `fill` writes, some at a time: it is given the number of the first one, a multiple of
    /// 2¹⁸, and all that it has to write, whatever they hold.
    ///
    /// # Panics
    /// If it is no f32 tensor.
    pub fn set_f32_with(&mut self, mut fill: impl FnMut(usize, &mut [f32])) -> fp8flow_cuda::Result<()> {
        if let Storage::Card(dtype, memory, offset) = &self.storage {
            assert_eq!(*dtype, DType::F32, "f32 elements");
            let (size, bytes) = (size_of::<f32>(), self.rows * self.cols * size_of::<f32>());
            let fill = |at: usize, piece: &mut [u8]| fill(at / size, bytemuck::cast_slice_mut(piece));
            return memory.write_with(*offset, bytes, fill);
        }
        fill(0, self.f32_mut());
        Ok(())
    }

    fn raw(&self) -> &[u8] {
        match self.elements() {
            Elements::F32(x) => bytemuck::cast_slice(x),
            Elements::Bf16(x) => bytemuck::cast_slice(x),
            _ => elsewhere(),
        }
    }

    fn raw_mut(&mut self) -> &mut [u8] {
        match self.elements_mut() {
            ElementsMut::F32(x) => bytemuck::cast_slice_mut(x),
            ElementsMut::Bf16(x) => bytemuck::cast_slice_mut(x),
        }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match self.storage {
            Storage::F32(_) => DType::F32,
            Storage::Bf16(_) => DType::Bf16,
            Storage::Card(dtype, ..) => dtype,
        }
    }

    /// The card whose memory holds it; none for the CPU's.
    pub fn card(&self) -> Option<&Card> {
        match &self.storage {
            Storage::Card(_, memory, _) => Some(memory.card()),
            _ => None,
        }
    }

    /// The address of its first element, as an argument of a kernel.
    ///
    /// # Panics
    /// If it is not on a card.
    pub fn address(&self) -> Arg {
        Arg::Address(self.card_address())
    }

    /// The same as a number, as it crosses borders.
    ///
    /// # Panics
    /// If it is not on a card.
    pub fn card_address(&self) -> u64 {
        let (memory, offset, _) = self.stretch();
        memory.address() + offset as u64
    }

    /// Its memory on a card, and where in it the elements in use lie: first byte and bytes.
    ///
    /// # Panics
    /// If it is not on a card.
    pub fn stretch(&self) -> (&Memory, usize, usize) {
        match &self.storage {
            Storage::Card(dtype, memory, offset) => (memory, *offset, self.rows * self.cols * dtype.size()),
            _ => panic!("a tensor on a card was expected"),
        }
    }

    /// Rows in use.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Uses the first `rows` rows from now on; what they hold stays.
    ///
    /// # Panics
    /// If there is no room for them.
    pub fn set_rows(&mut self, rows: usize) {
        assert!(rows <= self.capacity, "{rows} rows in a tensor for {}", self.capacity);
        self.rows = rows;
    }

    /// Bytes of memory, whatever is in use.
    pub fn bytes(&self) -> usize {
        self.capacity * self.cols * self.dtype().size()
    }

    /// The elements in use.
    pub fn elements(&self) -> Elements<'_> {
        let n = self.rows * self.cols;
        match &self.storage {
            Storage::F32(x) => Elements::F32(&x[..n]),
            Storage::Bf16(x) => Elements::Bf16(&x[..n]),
            Storage::Card(..) => elsewhere(),
        }
    }

    /// The elements in use, to write.
    pub fn elements_mut(&mut self) -> ElementsMut<'_> {
        let n = self.rows * self.cols;
        match &mut self.storage {
            Storage::F32(x) => ElementsMut::F32(&mut x[..n]),
            Storage::Bf16(x) => ElementsMut::Bf16(&mut x[..n]),
            Storage::Card(..) => elsewhere(),
        }
    }

    /// The elements in use as a matrix.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix::new(self.elements(), self.rows, self.cols)
    }

    /// The elements of an f32 tensor.
    ///
    /// # Panics
    /// If it is of another type.
    pub fn f32(&self) -> &[f32] {
        match self.elements() {
            Elements::F32(x) => x,
            _ => panic!("an f32 tensor was expected"),
        }
    }

    /// The elements of an f32 tensor, to write.
    ///
    /// # Panics
    /// If it is of another type.
    pub fn f32_mut(&mut self) -> &mut [f32] {
        match self.elements_mut() {
            ElementsMut::F32(x) => x,
            ElementsMut::Bf16(_) => panic!("an f32 tensor was expected"),
        }
    }

    /// The elements of a bf16 tensor, to write.
    ///
    /// # Panics
    /// If it is of another type.
    pub fn bf16_mut(&mut self) -> &mut [bf16] {
        match self.elements_mut() {
            ElementsMut::Bf16(x) => x,
            ElementsMut::F32(_) => panic!("a bf16 tensor was expected"),
        }
    }
}

/// A tensor whose elements are in the CPU's memory.
#[derive(Debug)]
pub enum Here<'a> {
    /// It was there already.
    Itself(&'a Tensor),
    /// It was fetched.
    Copy(Tensor),
}

impl Deref for Here<'_> {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        match self {
            Self::Itself(tensor) => tensor,
            Self::Copy(tensor) => tensor,
        }
    }
}
