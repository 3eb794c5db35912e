//! What cuBLASLt is told of a product: the objects that describe it. No card is needed.

#![allow(unsafe_code)]

use cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtMatmulDescAttributes_t as Attribute,
    cublasLtMatmulPreferenceAttributes_t as Wish, cublasLtReductionScheme_t as Reduction,
    cudaDataType_t as DataType,
};

use super::lt::{check, given, kept};
use crate::Result;
use crate::library::Needed;

/// What is to be multiplied, in cuBLASLt's terms.
#[derive(Debug)]
pub(super) struct Operation(usize);

impl Operation {
    pub(super) fn raw(&self) -> sys::cublasLtMatmulDesc_t {
        given(self.0)
    }

    /// f32 sums of f32 factors, operands as they lie.
    pub(super) fn new() -> Result<Self> {
        Needed::CublasLt.open()?;
        let mut operation = std::ptr::null_mut();
        // SAFETY: a place for a pointer.
        check("cublasLtMatmulDescCreate", &"f32 sums", unsafe {
            sys::cublasLtMatmulDescCreate(
                &raw mut operation,
                cublasComputeType_t::CUBLAS_COMPUTE_32F,
                DataType::CUDA_R_32F,
            )
        })?;
        Ok(Self(kept(operation)))
    }

    fn set<T: Copy>(&self, attribute: Attribute, value: T) -> Result<()> {
        let what = format!("{attribute:?}");
        // SAFETY: a live object, and as many bytes as are said; cuBLASLt knows how many there must be.
        check("cublasLtMatmulDescSetAttribute", &what, unsafe {
            sys::cublasLtMatmulDescSetAttribute(
                self.raw(),
                attribute,
                (&raw const value).cast(),
                size_of::<T>(),
            )
        })
    }

    /// Whether A and B are turned over before they are multiplied.
    pub(super) fn set_transposed(&self, a: bool, b: bool) -> Result<()> {
        self.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, i32::from(a))?;
        self.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, i32::from(b))
    }

    /// Whether FP8 sums stay in the tensor core.
    pub(super) fn set_fast(&self, fast: bool) -> Result<()> {
        self.set(Attribute::CUBLASLT_MATMUL_DESC_FAST_ACCUM, i8::from(fast))
    }

    /// How the factors of A and B are spread over them.
    pub(super) fn set_scale_modes(&self, [a, b]: [u32; 2]) -> Result<()> {
        self.set(Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_MODE, a)?;
        self.set(Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_MODE, b)
    }

    /// Where the factors of A and B lie; 0 for none.
    pub(super) fn set_scales(&self, a: u64, b: u64) -> Result<()> {
        self.set(Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, a)?;
        self.set(Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, b)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: made once; cuBLASLt has read it when a call comes back.
        unsafe { sys::cublasLtMatmulDescDestroy(self.raw()) };
    }
}

/// A matrix by columns.
#[derive(Debug)]
pub(super) struct Layout(usize);

impl Layout {
    pub(super) fn raw(&self) -> sys::cublasLtMatrixLayout_t {
        given(self.0)
    }

    /// `columns` columns of `rows` elements, `stride` elements apart.
    pub(super) fn new(kind: DataType, rows: usize, columns: usize, stride: usize) -> Result<Self> {
        Needed::CublasLt.open()?;
        let mut layout = std::ptr::null_mut();
        let what = format!("{columns} columns of {rows}");
        // SAFETY: a place for a pointer.
        check("cublasLtMatrixLayoutCreate", &what, unsafe {
            sys::cublasLtMatrixLayoutCreate(&raw mut layout, kind, rows as u64, columns as u64, stride as i64)
        })?;
        Ok(Self(kept(layout)))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made once; cuBLASLt has read it when a call comes back.
        unsafe { sys::cublasLtMatrixLayoutDestroy(self.raw()) };
    }
}

/// What algorithms are considered.
#[derive(Debug)]
pub(super) struct Preference(usize);

impl Preference {
    pub(super) fn raw(&self) -> sys::cublasLtMatmulPreference_t {
        given(self.0)
    }

    /// Those that take at most `workspace` bytes, and A, B and D where addresses are such multiples.
    ///
    /// Where `k` is cut for several blocks, the parts are f32 in the workspace and added in a step of their own, in one
    /// order: adding them up in the result, as blocks come, is left out, and so is rounding them to its type.
    pub(super) fn new(workspace: usize, alignments: [u32; 3]) -> Result<Self> {
        Needed::CublasLt.open()?;
        let mut preference = std::ptr::null_mut();
        // SAFETY: a place for a pointer.
        check("cublasLtMatmulPreferenceCreate", &"algorithms", unsafe {
            sys::cublasLtMatmulPreferenceCreate(&raw mut preference)
        })?;
        let made = Self(kept(preference));
        let [a, b, d] = alignments;
        made.set(Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace as u64)?;
        made.set(
            Wish::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
            Reduction::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32,
        )?;
        made.set(Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a)?;
        made.set(Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b)?;
        made.set(Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, d)?;
        made.set(Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, d)?;
        Ok(made)
    }

    fn set<T: Copy>(&self, wish: Wish, value: T) -> Result<()> {
        let what = format!("{wish:?}");
        // SAFETY: a live object, and as many bytes as are said; cuBLASLt knows how many there must be.
        check("cublasLtMatmulPreferenceSetAttribute", &what, unsafe {
            sys::cublasLtMatmulPreferenceSetAttribute(
                self.raw(),
                wish,
                (&raw const value).cast(),
                size_of::<T>(),
            )
        })
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made once; cuBLASLt has read it when a call comes back.
        unsafe { sys::cublasLtMatmulPreferenceDestroy(self.raw()) };
    }
}
