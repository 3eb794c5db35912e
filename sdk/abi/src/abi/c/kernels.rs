//! Cast and GEMM, either way: the engine's for a plugin, a plugin's for the engine.

use std::ffi::c_void;
use std::sync::Arc;

use super::backend::BackendHandle;
use super::contract::{CError, CHost, CQuantize, CScaledGemm, Status, checked};
use super::host::LentHost;
use crate::abi::wire;
use crate::{Kernels, Quantize, Result, ScaledGemm, TensorMut, TensorRef};

impl CQuantize {
    fn send(call: &Quantize<'_>) -> Self {
        Self {
            size: size_of::<Self>(),
            x: call.x.raw(),
            format: crate::DType::of(call.format).0,
            axis: wire::axis_code(call.axis),
            power_of_two: call.power_of_two.into(),
            codes: call.codes.raw(),
            scales: call.scales.raw(),
        }
    }

    /// # Safety
    /// The tensors are valid for `'a`, and `codes` and `scales` are used by nobody else meanwhile.
    pub(super) unsafe fn receive<'a>(&self) -> Result<Quantize<'a>> {
        // SAFETY: promised by the caller.
        unsafe {
            Ok(Quantize {
                x: TensorRef::from_raw(self.x),
                format: crate::DType(self.format).fp8()?,
                axis: wire::axis(self.axis)?,
                power_of_two: self.power_of_two != 0,
                codes: TensorMut::from_raw(self.codes),
                scales: TensorMut::from_raw(self.scales),
            })
        }
    }
}

impl CScaledGemm {
    fn send(call: &ScaledGemm<'_>) -> Self {
        Self {
            size: size_of::<Self>(),
            a: call.a.raw(),
            transpose_a: call.transpose_a.into(),
            transpose_b: call.transpose_b.into(),
            b: call.b.raw(),
            scale_a: call.scale_a.raw(),
            scale_b: call.scale_b.raw(),
            out: call.out.raw(),
            accumulate: call.accumulate.into(),
        }
    }

    /// # Safety
    /// The tensors are valid for `'a`, and `out` is used by nobody else meanwhile.
    pub(super) unsafe fn receive<'a>(&self) -> ScaledGemm<'a> {
        // SAFETY: promised by the caller.
        unsafe {
            ScaledGemm {
                a: TensorRef::from_raw(self.a),
                transpose_a: self.transpose_a != 0,
                scale_a: TensorRef::from_raw(self.scale_a),
                b: TensorRef::from_raw(self.b),
                transpose_b: self.transpose_b != 0,
                scale_b: TensorRef::from_raw(self.scale_b),
                out: TensorMut::from_raw(self.out),
                accumulate: self.accumulate != 0,
            }
        }
    }
}

/// A plugin's primitives.
pub(super) struct CKernels {
    quantize: unsafe extern "C" fn(*mut c_void, *const CHost, *const CQuantize, *mut CError) -> Status,
    scaled_gemm: unsafe extern "C" fn(*mut c_void, *const CHost, *const CScaledGemm, *mut CError) -> Status,
    host: LentHost,
    backend: Arc<BackendHandle>,
}

impl CKernels {
    /// None where the plugin offers none.
    pub(super) fn new(backend: Arc<BackendHandle>, host: LentHost) -> Option<Self> {
        let (quantize, scaled_gemm) = backend.table.all.quantize.zip(backend.table.all.scaled_gemm)?;
        Some(Self { quantize, scaled_gemm, host, backend })
    }
}

impl Kernels for CKernels {
    fn quantize(&self, call: Quantize<'_>) -> Result<()> {
        let call = CQuantize::send(&call);
        let (backend, host) = (self.backend.object, self.host.pointer());
        // SAFETY: the tensors were borrowed by the caller for the length of this call.
        checked(|error| unsafe { (self.quantize)(backend, host, &raw const call, error) })
    }

    fn scaled_gemm(&self, call: ScaledGemm<'_>) -> Result<()> {
        let call = CScaledGemm::send(&call);
        let (backend, host) = (self.backend.object, self.host.pointer());
        // SAFETY: as above.
        checked(|error| unsafe { (self.scaled_gemm)(backend, host, &raw const call, error) })
    }
}
