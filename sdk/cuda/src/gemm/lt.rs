//! cuBLASLt's own calls, and the objects that they make.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fmt::Display;

use cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtMatmulDescAttributes_t as Attribute,
    cublasLtMatmulHeuristicResult_t as Found, cublasLtMatmulPreferenceAttributes_t as Wish,
    cublasLtReductionScheme_t as Reduction, cublasStatus_t as Status, cudaDataType_t as DataType,
};

use crate::library::Needed;
use crate::{Card, Error, Memory, Result};

/// How a product is carried out: cuBLASLt's own 64 bytes, good for the same version, card and product.
pub type Algorithm = [u64; 8];

/// The version of cuBLASLt, such as 120903.
pub(super) fn version() -> Result<usize> {
    Needed::CublasLt.open()?;
    // SAFETY: the library is open.
    Ok(unsafe { sys::cublasLtGetVersion() })
}

fn check(call: &'static str, what: &dyn Display, status: Status) -> Result<()> {
    if status == Status::CUBLAS_STATUS_SUCCESS {
        return Ok(());
    }
    Err(Error::Lt { call, what: what.to_string(), status: format!("{status:?}") })
}

/// A pointer of cuBLASLt's that any thread may use.
fn kept<T>(pointer: *mut T) -> usize {
    pointer.expose_provenance()
}

fn given<T>(kept: usize) -> *mut T {
    std::ptr::with_exposed_provenance_mut(kept)
}

/// What is to be multiplied, in cuBLASLt's terms.
#[derive(Debug)]
pub(super) struct Operation(usize);

impl Operation {
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
                given(self.0),
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
    pub(super) fn set_scale_modes(&self, a: u32, b: u32) -> Result<()> {
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
        unsafe { sys::cublasLtMatmulDescDestroy(given(self.0)) };
    }
}

/// A matrix by columns.
#[derive(Debug)]
pub(super) struct Layout(usize);

impl Layout {
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
        unsafe { sys::cublasLtMatrixLayoutDestroy(given(self.0)) };
    }
}

/// What algorithms are considered.
#[derive(Debug)]
pub(super) struct Preference(usize);

impl Preference {
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
                given(self.0),
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
        unsafe { sys::cublasLtMatmulPreferenceDestroy(given(self.0)) };
    }
}

/// A product in cuBLASLt's terms: `D = A · B`, or `D + A · B`.
#[derive(Debug)]
pub(super) struct Call {
    /// What is done.
    pub operation: Operation,
    /// A.
    pub a: Layout,
    /// B.
    pub b: Layout,
    /// D, and C, which is the same.
    pub d: Layout,
}

/// cuBLASLt on a card.
#[derive(Debug)]
pub(super) struct Handle {
    card: Card,
    handle: usize,
}

impl Handle {
    /// cuBLASLt on `card`.
    pub(super) fn open(card: &Card) -> Result<Self> {
        Needed::CublasLt.open()?;
        card.bind()?;
        let mut handle = std::ptr::null_mut();
        let name = &card.properties().name;
        // SAFETY: a place for a pointer, and a current context.
        check("cublasLtCreate", name, unsafe { sys::cublasLtCreate(&raw mut handle) })?;
        Ok(Self { card: card.clone(), handle: kept(handle) })
    }

    /// The card.
    pub(super) fn card(&self) -> &Card {
        &self.card
    }

    /// At most `most` algorithms for `call`, the best by cuBLASLt's estimate first; `what` names the product.
    pub(super) fn candidates(
        &self,
        call: &Call,
        preference: &Preference,
        most: usize,
        what: &dyn Display,
    ) -> Result<Vec<Algorithm>> {
        self.card.bind()?;
        let mut found = vec![nothing_found(); most];
        let mut count = 0;
        // SAFETY: live objects, room for as many results as are asked for, and a place for their number.
        check("cublasLtMatmulAlgoGetHeuristic", what, unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                given(self.handle),
                given(call.operation.0),
                given(call.a.0),
                given(call.b.0),
                given(call.d.0),
                given(call.d.0),
                given(preference.0),
                most as i32,
                found.as_mut_ptr(),
                &raw mut count,
            )
        })?;
        found.truncate(count.max(0) as usize);
        found.retain(|found| found.state == Status::CUBLAS_STATUS_SUCCESS);
        if found.is_empty() {
            let status = "no algorithm takes it".into();
            return Err(Error::Lt { call: "cublasLtMatmulAlgoGetHeuristic", what: what.to_string(), status });
        }
        Ok(found.into_iter().map(|found| found.algo.data).collect())
    }

    /// Whether `algorithm` can carry out `call` on this card in `workspace` bytes.
    pub(super) fn takes(&self, call: &Call, algorithm: &Algorithm, workspace: usize) -> Result<bool> {
        self.card.bind()?;
        let algorithm = sys::cublasLtMatmulAlgo_t { data: *algorithm };
        let mut found = nothing_found();
        // SAFETY: live objects, and a place for a result.
        let status = unsafe {
            sys::cublasLtMatmulAlgoCheck(
                given(self.handle),
                given(call.operation.0),
                given(call.a.0),
                given(call.b.0),
                given(call.d.0),
                given(call.d.0),
                &raw const algorithm,
                &raw mut found,
            )
        };
        Ok(status == Status::CUBLAS_STATUS_SUCCESS && found.workspaceSize <= workspace)
    }

    /// Asks the stream for `call`; `what` names the product.
    ///
    /// # Safety
    /// `algorithm` came from [`candidates`](Self::candidates) or [`takes`](Self::takes) said yes. `a`, `b`, `d` and the
    /// factors that the operation names are addresses on the card with as many elements as their layouts say, which
    /// live until the stream has come past this, and so does `workspace`; nobody else uses that at the same time.
    pub(super) unsafe fn run(
        &self,
        call: &Call,
        algorithm: &Algorithm,
        [a, b, d]: [u64; 3],
        accumulate: bool,
        workspace: &Memory,
        what: &dyn Display,
    ) -> Result<()> {
        self.card.bind()?;
        let algorithm = sys::cublasLtMatmulAlgo_t { data: *algorithm };
        let (alpha, beta) = (1.0_f32, if accumulate { 1.0_f32 } else { 0.0 });
        let number = |x: &f32| std::ptr::from_ref(x).cast::<c_void>();
        let place = |address: u64| std::ptr::with_exposed_provenance_mut::<c_void>(address as usize);
        // SAFETY: the caller's, for the addresses; the objects live, and alpha and beta are read before the call comes back.
        check("cublasLtMatmul", what, unsafe {
            sys::cublasLtMatmul(
                given(self.handle),
                given(call.operation.0),
                number(&alpha),
                place(a),
                given(call.a.0),
                place(b),
                given(call.b.0),
                number(&beta),
                place(d),
                given(call.d.0),
                place(d),
                given(call.d.0),
                &raw const algorithm,
                place(workspace.address()),
                workspace.bytes(),
                self.card.stream().cast(),
            )
        })
    }
}

fn nothing_found() -> Found {
    Found {
        algo: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
        workspaceSize: 0,
        state: Status::CUBLAS_STATUS_NOT_SUPPORTED,
        wavesCount: 0.0,
        reserved: [0; 4],
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.card.bind().is_ok() {
            // SAFETY: made once; cuBLASLt waits for the work that uses it.
            unsafe { sys::cublasLtDestroy(given(self.handle)) };
        }
    }
}
