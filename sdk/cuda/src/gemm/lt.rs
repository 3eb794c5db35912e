//! cuBLASLt's own calls on a card.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fmt::Display;

use cudarc::cublaslt::sys::{self, cublasLtMatmulHeuristicResult_t as Found, cublasStatus_t as Status};

use super::descriptors::{Layout, Operation, Preference};

use crate::library::Needed;
use crate::{Card, Error, Memory, Result};

/// How a product is carried out: cuBLASLt's own 64 bytes, good for the same version, card and product.
pub type Algorithm = [u64; 8];

/// The version of cuBLASLt, such as 120903.
pub fn version() -> Result<usize> {
    Needed::CublasLt.open()?;
    // SAFETY: the library is open.
    Ok(unsafe { sys::cublasLtGetVersion() })
}

pub(super) fn check(call: &'static str, what: &dyn Display, status: Status) -> Result<()> {
    if status == Status::CUBLAS_STATUS_SUCCESS {
        return Ok(());
    }
    Err(Error::Lt { call, what: what.to_string(), status: format!("{status:?}") })
}

/// A pointer of cuBLASLt's that any thread may use.
pub(super) fn kept<T>(pointer: *mut T) -> usize {
    pointer.expose_provenance()
}

pub(super) fn given<T>(kept: usize) -> *mut T {
    std::ptr::with_exposed_provenance_mut(kept)
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
                call.operation.raw(),
                call.a.raw(),
                call.b.raw(),
                call.d.raw(),
                call.d.raw(),
                preference.raw(),
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
                call.operation.raw(),
                call.a.raw(),
                call.b.raw(),
                call.d.raw(),
                call.d.raw(),
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
                call.operation.raw(),
                number(&alpha),
                place(a),
                call.a.raw(),
                place(b),
                call.b.raw(),
                number(&beta),
                place(d),
                call.d.raw(),
                place(d),
                call.d.raw(),
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
