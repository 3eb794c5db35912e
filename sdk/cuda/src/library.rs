//! NVIDIA's libraries, opened before anything of them is called.
//!
//! cudarc looks a function up when it is first called and panics where it is missing, and it knows few names of files.
//! So each library is opened here first, by the path that was found, with its symbols global: cudarc's own look-up by
//! name then gets that very library. Every function that this crate calls is looked up once, here.

#![allow(unsafe_code)]

use std::ffi::{OsString, c_int};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::places::{beside, candidates};
use crate::{Error, Result};

/// A library of NVIDIA's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// The driver.
    Driver,
    /// The compiler of kernels.
    Nvrtc,
    /// Products of matrices.
    CublasLt,
}

/// Opens what NVRTC opens by name alone when it compiles, from the folder that it lies in: that of CUDA 13 looks nowhere
/// but where the system does. Where this fails NVRTC says what it lacks.
fn open_builtins(nvrtc: &Path) {
    for name in beside(nvrtc, "libnvrtc-builtins.so") {
        // SAFETY: as in `load`, of a library that has functions alone.
        if let Ok(library) = unsafe { Library::open(Some(&name), RTLD_NOW | RTLD_GLOBAL) } {
            std::mem::forget(library);
        }
    }
}

/// The function `name` of a library that was opened.
///
/// # Safety
///
/// `F` is the type of that function.
pub(crate) unsafe fn function<F: Copy>(name: &'static str) -> Result<F> {
    // SAFETY: the caller's promise; libraries are opened with their symbols global, and never closed.
    let found = unsafe { Library::this().get::<F>(name.as_bytes()).map(|symbol| *symbol) };
    found.map_err(|_| Error::Unusable {
        path: PathBuf::from("NVIDIA's libraries"),
        problem: format!("none of those open has the function {name}"),
    })
}

impl Needed {
    /// File names, the best first.
    pub const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Driver => &["libcuda.so.1", "libcuda.so"],
            Self::Nvrtc => &["libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so"],
            Self::CublasLt => &["libcublasLt.so.12", "libcublasLt.so.13", "libcublasLt.so"],
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::Driver => "install NVIDIA's driver (525 or later), or run on the CPU",
            Self::Nvrtc | Self::CublasLt => {
                "install the libraries of CUDA 12.9 or later, or name their folder in FP8FLOW_CUDA_DIR"
            }
        }
    }

    const fn functions(self) -> &'static [&'static str] {
        match self {
            Self::Driver => &[
                "cuInit",
                "cuDriverGetVersion",
                "cuDeviceGet",
                "cuDeviceGetCount",
                "cuDeviceGetName",
                "cuDeviceTotalMem_v2",
                "cuDeviceGetAttribute",
                "cuDevicePrimaryCtxRetain",
                "cuDevicePrimaryCtxRelease_v2",
                "cuCtxSetCurrent",
                "cuCtxSynchronize",
                "cuMemGetInfo_v2",
                "cuMemAlloc_v2",
                "cuMemFree_v2",
                "cuMemHostAlloc",
                "cuMemFreeHost",
                "cuMemcpyHtoDAsync_v2",
                "cuMemcpyDtoHAsync_v2",
                "cuMemcpyDtoDAsync_v2",
                "cuMemsetD8Async",
                "cuStreamCreate",
                "cuStreamSynchronize",
                "cuStreamDestroy_v2",
                "cuModuleLoadData",
                "cuModuleUnload",
                "cuModuleGetFunction",
                "cuFuncSetAttribute",
                "cuLaunchKernel",
                "cuEventCreate",
                "cuEventRecord",
                "cuEventSynchronize",
                "cuEventElapsedTime",
                "cuEventDestroy_v2",
                "cuGetErrorName",
                "cuGetErrorString",
            ],
            Self::Nvrtc => &[
                "nvrtcVersion",
                "nvrtcCreateProgram",
                "nvrtcCompileProgram",
                "nvrtcGetProgramLogSize",
                "nvrtcGetProgramLog",
                "nvrtcGetCUBINSize",
                "nvrtcGetCUBIN",
                "nvrtcDestroyProgram",
                "nvrtcGetErrorString",
            ],
            Self::CublasLt => &[
                "cublasLtGetVersion",
                "cublasLtCreate",
                "cublasLtDestroy",
                "cublasLtMatmulDescCreate",
                "cublasLtMatmulDescDestroy",
                "cublasLtMatmulDescSetAttribute",
                "cublasLtMatrixLayoutCreate",
                "cublasLtMatrixLayoutDestroy",
                "cublasLtMatmulPreferenceCreate",
                "cublasLtMatmulPreferenceDestroy",
                "cublasLtMatmulPreferenceSetAttribute",
                "cublasLtMatmulAlgoGetHeuristic",
                "cublasLtMatmulAlgoCheck",
                "cublasLtMatmul",
            ],
        }
    }

    /// Opens it, once in a process. From then on cudarc's functions of it may be called.
    pub fn open(self) -> Result<()> {
        static OPENED: [OnceLock<()>; 3] = [const { OnceLock::new() }; 3];
        let opened = &OPENED[self as usize];
        if opened.get().is_none() {
            self.expect_functions()?;
            let _ = opened.set(());
        }
        Ok(())
    }

    fn expect_functions(self) -> Result<()> {
        let (library, name) = self.load(RTLD_NOW | RTLD_GLOBAL)?;
        if self == Self::Nvrtc {
            open_builtins(Path::new(&name));
        }
        let missing = self.functions().iter().find(|function| {
            // SAFETY: the symbol is looked at, not called.
            unsafe { library.get::<unsafe extern "C" fn()>(function.as_bytes()) }.is_err()
        });
        let problem = match missing {
            Some(function) => format!("has no function {function}: CUDA 12.9 or later is needed"),
            None if self.is_known_by_name() => return Ok(()),
            None => format!(
                "bears another name inside than NVIDIA gives it: `readelf -d` must show the SONAME {}; take the library as \
                 NVIDIA ships it",
                self.names()[0]
            ),
        };
        Err(Error::Unusable { path: PathBuf::from(name), problem })
    }

    /// Whether cudarc, which asks the loader by name, will get what is open.
    fn is_known_by_name(self) -> bool {
        // SAFETY: opens what is open already, or else a library that has NVIDIA's name where the system looks.
        unsafe {
            match self {
                Self::Driver => cudarc::driver::sys::is_culib_present(),
                Self::Nvrtc => cudarc::nvrtc::sys::is_culib_present(),
                Self::CublasLt => cudarc::cublaslt::sys::is_culib_present(),
            }
        }
    }

    /// The first that can be opened, with what it was opened by: a file, or a name that the system has looked up. It is
    /// never closed: a driver is not made for that, and its threads run on.
    pub fn load(self, flags: c_int) -> Result<(ManuallyDrop<Library>, OsString)> {
        let mut refused = None;
        for name in candidates(self.names(), self == Self::Driver) {
            // SAFETY: opening runs the library's constructors: NVIDIA's library under its own name, in the places where
            // libraries of the system and of this user lie.
            match unsafe { Library::open(Some(&name), flags) } {
                Ok(library) => return Ok((ManuallyDrop::new(library), name)),
                // That there is no such file says nothing; that there is one, and it cannot be opened, does.
                Err(error) if Path::new(&name).is_absolute() => {
                    let problem = format!("cannot be opened: {error}");
                    refused.get_or_insert(Error::Unusable { path: PathBuf::from(name), problem });
                }
                Err(_) => {}
            }
        }
        Err(refused.unwrap_or(Error::Missing { library: self.names()[0], advice: self.advice() }))
    }
}
