//! Tensors as they cross the border: plain data, borrowed for the length of a call.

use std::marker::PhantomData;

use abi_stable::StableAbi;
use fp8flow_kernels::{Elements, ElementsMut, Fp8, Matrix, bf16};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// An element type; open, so that later versions can add to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, StableAbi)]
#[repr(transparent)]
pub struct DType(pub u32);

impl DType {
    /// 32-bit float.
    pub const F32: Self = Self(1);
    /// bfloat16.
    pub const BF16: Self = Self(2);
    /// FP8 E4M3FN codes.
    pub const E4M3: Self = Self(3);
    /// FP8 E5M2 codes.
    pub const E5M2: Self = Self(4);

    /// The codes of `format`.
    pub const fn of(format: Fp8) -> Self {
        match format {
            Fp8::E4m3 => Self::E4M3,
            Fp8::E5m2 => Self::E5M2,
        }
    }

    /// The format of these codes.
    pub fn fp8(self) -> Result<Fp8> {
        match self {
            Self::E4M3 => Ok(Fp8::E4m3),
            Self::E5M2 => Ok(Fp8::E5m2),
            other => Err(Error::unsupported(format!("{} is not an FP8 format", other.name()))),
        }
    }

    /// Bytes of one element; 0 for a type this SDK does not know.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::BF16 => 2,
            Self::E4M3 | Self::E5M2 => 1,
            _ => 0,
        }
    }

    /// The name used in messages and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::BF16 => "bf16",
            Self::E4M3 => "e4m3",
            Self::E5M2 => "e5m2",
            _ => "unknown",
        }
    }
}

/// Where a tensor's memory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, StableAbi, Serialize, Deserialize)]
#[repr(C)]
pub struct DeviceId {
    /// 0 for the CPU, 1 for CUDA; open.
    pub kind: u32,
    /// Which one of its kind.
    pub ordinal: u32,
    /// The stream that the tensor's contents are ordered by (a `CUstream`); 0 on the CPU.
    pub stream: u64,
}

impl DeviceId {
    /// The CPU.
    pub const CPU: Self = Self { kind: 0, ordinal: 0, stream: 0 };

    /// The NVIDIA card of this number, and a stream of it (a `CUstream`).
    pub const fn cuda(ordinal: u32, stream: u64) -> Self {
        Self { kind: 1, ordinal, stream }
    }

    /// Whether it is an NVIDIA card.
    pub const fn is_cuda(self) -> bool {
        self.kind == 1
    }

    /// Whether it is the CPU.
    pub const fn is_cpu(self) -> bool {
        self.kind == Self::CPU.kind
    }
}

/// A tensor of up to four dimensions as plain data. This layout is part of the ABI and never changes.
#[derive(Clone, Copy, Debug, StableAbi)]
#[repr(C)]
pub struct RawTensor {
    /// Address of element 0.
    pub data: *mut u8,
    /// Element type.
    pub dtype: DType,
    /// Dimensions in use, 1 to 4.
    pub rank: u32,
    /// Elements a dimension.
    pub shape: [u64; 4],
    /// Elements from one index to the next.
    pub strides: [i64; 4],
    /// Where the memory lies.
    pub device: DeviceId,
}

/// A tensor to read.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct TensorRef<'a> {
    raw: RawTensor,
    lifetime: PhantomData<&'a [u8]>,
}

/// A tensor to write.
#[derive(Debug)]
#[repr(transparent)]
pub struct TensorMut<'a> {
    raw: RawTensor,
    lifetime: PhantomData<&'a mut [u8]>,
}

// SAFETY: a `TensorRef` is a shared borrow of plain memory, as `&[u8]` is.
#[allow(unsafe_code)]
unsafe impl Send for TensorRef<'_> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for TensorRef<'_> {}
// SAFETY: a `TensorMut` is an exclusive borrow of plain memory, as `&mut [u8]` is.
#[allow(unsafe_code)]
unsafe impl Send for TensorMut<'_> {}
// SAFETY: as above; nothing is written through a shared reference to it.
#[allow(unsafe_code)]
unsafe impl Sync for TensorMut<'_> {}

fn dense(data: *mut u8, dtype: DType, shape: &[usize]) -> RawTensor {
    assert!((1..=4).contains(&shape.len()), "a tensor has 1 to 4 dimensions");
    let mut raw = RawTensor {
        data,
        dtype,
        rank: shape.len() as u32,
        shape: [1; 4],
        strides: [0; 4],
        device: DeviceId::CPU,
    };
    let mut stride = 1;
    for (i, &n) in shape.iter().enumerate().rev() {
        raw.shape[i] = n as u64;
        raw.strides[i] = stride;
        stride *= n as i64;
    }
    raw
}

fn dense_on_card(device: DeviceId, address: u64, dtype: DType, shape: &[usize]) -> RawTensor {
    assert!(!device.is_cpu(), "memory of the CPU is given as elements");
    RawTensor { device, ..dense(std::ptr::without_provenance_mut(address as usize), dtype, shape) }
}

impl<'a> TensorRef<'a> {
    /// A dense tensor of `shape` over the CPU memory of `elements`.
    ///
    /// # Panics
    /// If the shape does not have as many elements, or has not 1 to 4 dimensions.
    pub fn new(elements: Elements<'a>, shape: &[usize]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), elements.len(), "shape {shape:?}");
        let (data, dtype) = match elements {
            Elements::F32(x) => (x.as_ptr().cast::<u8>(), DType::F32),
            Elements::Bf16(x) => (x.as_ptr().cast(), DType::BF16),
            Elements::E4m3(x) => (x.as_ptr(), DType::E4M3),
            Elements::E5m2(x) => (x.as_ptr(), DType::E5M2),
        };
        Self { raw: dense(data.cast_mut(), dtype, shape), lifetime: PhantomData }
    }

    /// A dense tensor of `shape` at `address` in the memory of `device`, which is not the CPU: nothing of it is read here.
    ///
    /// # Panics
    /// If the device is the CPU, or the shape has not 1 to 4 dimensions.
    pub fn on_card(device: DeviceId, address: u64, dtype: DType, shape: &[usize]) -> Self {
        Self { raw: dense_on_card(device, address, dtype, shape), lifetime: PhantomData }
    }

    /// A tensor as it came across the border.
    ///
    /// # Safety
    /// `raw` describes memory that is valid to read for `'a`, initialised, and not written meanwhile.
    #[allow(unsafe_code)]
    pub unsafe fn from_raw(raw: RawTensor) -> Self {
        Self { raw, lifetime: PhantomData }
    }

    /// The plain data.
    pub fn raw(&self) -> RawTensor {
        self.raw
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.raw.dtype
    }

    /// Elements a dimension.
    pub fn shape(&self) -> &[u64] {
        &self.raw.shape[..self.raw.rank as usize]
    }

    /// The elements of a dense CPU tensor.
    pub fn elements(&self) -> Result<Elements<'a>> {
        let len = self.raw.dense_len()?;
        // SAFETY: dense CPU memory of `len` elements of this type, valid for `'a` (see `new`, `from_raw`); `dense_len`
        // has checked device, strides and alignment.
        #[allow(unsafe_code, clippy::cast_ptr_alignment)]
        unsafe {
            Ok(match self.raw.dtype {
                DType::F32 => Elements::F32(std::slice::from_raw_parts(self.raw.data.cast(), len)),
                DType::BF16 => Elements::Bf16(std::slice::from_raw_parts(self.raw.data.cast::<bf16>(), len)),
                DType::E4M3 => Elements::E4m3(std::slice::from_raw_parts(self.raw.data, len)),
                DType::E5M2 => Elements::E5m2(std::slice::from_raw_parts(self.raw.data, len)),
                other => return Err(Error::unsupported(format!("element type {}", other.0))),
            })
        }
    }

    /// The memory of a dense CPU tensor.
    pub fn bytes(&self) -> Result<&'a [u8]> {
        Ok(match self.elements()? {
            Elements::F32(floats) => bytemuck::cast_slice(floats),
            Elements::Bf16(halves) => bytemuck::cast_slice(halves),
            Elements::E4m3(codes) | Elements::E5m2(codes) => codes,
        })
    }

    /// The elements of a dense CPU tensor of f32.
    pub fn floats(&self) -> Result<&'a [f32]> {
        match self.elements()? {
            Elements::F32(floats) => Ok(floats),
            _ => Err(Error::invalid(format!("expected f32, found {}", self.dtype().name()))),
        }
    }

    /// The codes of a dense CPU tensor of FP8.
    pub fn codes(&self) -> Result<&'a [u8]> {
        match self.elements()? {
            Elements::E4m3(codes) | Elements::E5m2(codes) => Ok(codes),
            _ => Err(Error::invalid(format!("expected FP8 codes, found {}", self.dtype().name()))),
        }
    }

    /// A dense two-dimensional CPU tensor as a matrix.
    pub fn matrix(&self) -> Result<Matrix<'a>> {
        match *self.shape() {
            [rows, cols] => Ok(Matrix::new(self.elements()?, rows as usize, cols as usize)),
            _ => Err(Error::invalid(format!("expected two dimensions, found {:?}", self.shape()))),
        }
    }
}

impl<'a> TensorMut<'a> {
    /// A dense tensor of `shape` over the CPU memory of `elements`.
    ///
    /// # Panics
    /// If the shape does not have as many elements, or has not 1 to 4 dimensions.
    pub fn new(elements: ElementsMut<'a>, shape: &[usize]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), elements.len(), "shape {shape:?}");
        let (data, dtype) = match elements {
            ElementsMut::F32(x) => (x.as_mut_ptr().cast::<u8>(), DType::F32),
            ElementsMut::Bf16(x) => (x.as_mut_ptr().cast(), DType::BF16),
        };
        Self { raw: dense(data, dtype, shape), lifetime: PhantomData }
    }

    /// A dense tensor of FP8 codes over CPU memory.
    pub fn codes(codes: &'a mut [u8], format: Fp8, shape: &[usize]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), codes.len(), "shape {shape:?}");
        Self { raw: dense(codes.as_mut_ptr(), DType::of(format), shape), lifetime: PhantomData }
    }

    /// A dense tensor of `shape` at `address` in the memory of `device`, which is not the CPU.
    ///
    /// # Panics
    /// If the device is the CPU, or the shape has not 1 to 4 dimensions.
    pub fn on_card(device: DeviceId, address: u64, dtype: DType, shape: &[usize]) -> Self {
        Self { raw: dense_on_card(device, address, dtype, shape), lifetime: PhantomData }
    }

    /// A tensor as it came across the border.
    ///
    /// # Safety
    /// `raw` describes memory that is valid to read and write for `'a`, initialised, and used by nobody else meanwhile.
    #[allow(unsafe_code)]
    pub unsafe fn from_raw(raw: RawTensor) -> Self {
        Self { raw, lifetime: PhantomData }
    }

    /// The plain data.
    pub fn raw(&self) -> RawTensor {
        self.raw
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.raw.dtype
    }

    /// Elements a dimension.
    pub fn shape(&self) -> &[u64] {
        &self.raw.shape[..self.raw.rank as usize]
    }

    /// The elements of a dense CPU tensor of floats.
    pub fn elements_mut(&mut self) -> Result<ElementsMut<'_>> {
        let len = self.raw.dense_len()?;
        // SAFETY: as in `TensorRef::elements`, and exclusive through `&mut self`.
        #[allow(unsafe_code, clippy::cast_ptr_alignment)]
        unsafe {
            Ok(match self.raw.dtype {
                DType::F32 => ElementsMut::F32(std::slice::from_raw_parts_mut(self.raw.data.cast(), len)),
                DType::BF16 => {
                    ElementsMut::Bf16(std::slice::from_raw_parts_mut(self.raw.data.cast::<bf16>(), len))
                }
                other => {
                    return Err(Error::unsupported(format!("cannot write element type {}", other.name())));
                }
            })
        }
    }

    /// The codes of a dense CPU tensor of FP8.
    pub fn codes_mut(&mut self) -> Result<&mut [u8]> {
        let len = self.raw.dense_len()?;
        if self.raw.dtype.size() != 1 {
            return Err(Error::invalid(format!("expected FP8 codes, found {}", self.raw.dtype.name())));
        }
        // SAFETY: as in `elements_mut`.
        #[allow(unsafe_code)]
        unsafe {
            Ok(std::slice::from_raw_parts_mut(self.raw.data, len))
        }
    }
}

impl RawTensor {
    /// The number of elements of a dense, aligned CPU tensor.
    fn dense_len(&self) -> Result<usize> {
        if !self.device.is_cpu() {
            return Err(Error::unsupported("the tensor is not in CPU memory"));
        }
        let len = self.elements_of_dense()?;
        let size = self.dtype.size().max(1);
        if self.data.is_null() || !self.data.addr().is_multiple_of(size) {
            return Err(Error::invalid("the tensor's address is null or misaligned"));
        }
        Ok(len)
    }

    /// The number of elements, which must lie without gaps, row by row.
    pub(crate) fn elements_of_dense(&self) -> Result<usize> {
        if !(1..=4).contains(&self.rank) {
            return Err(Error::invalid(format!("a tensor has 1 to 4 dimensions, not {}", self.rank)));
        }
        let mut len: u64 = 1;
        for i in (0..self.rank as usize).rev() {
            if self.shape[i] > 1 && self.strides[i] != len as i64 {
                return Err(Error::unsupported("the tensor is not dense"));
            }
            len = len.checked_mul(self.shape[i]).ok_or_else(|| Error::invalid("the shape overflows"))?;
        }
        Ok(len as usize)
    }
}
