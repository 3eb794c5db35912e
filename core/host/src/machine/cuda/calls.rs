//! The few functions of NVIDIA's libraries that a probe calls.
//!
//! Signatures are those of `cuda.h`, `cublasLt.h` and `nvrtc.h`, which have not changed since CUDA 3.2, 10.1 and 7.0. A
//! library stays open: a driver is not made to be closed.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint};

use fp8flow_cuda::Error;
use fp8flow_cuda::library::Needed;
use fp8flow_cuda::places::mapped;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::{Card, Cuda, Part};

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `…_MINOR`.
const CAPABILITY: [c_int; 2] = [75, 76];

/// More cards than a machine has.
const MOST_CARDS: c_int = 1024;

/// Everything, for what is there.
pub(super) fn look() -> Cuda {
    let mut cuda = Cuda {
        cublas_lt: part(Needed::CublasLt, "libcublasLt.so", |library| {
            // SAFETY: `size_t cublasLtGetVersion(void)`.
            let version =
                unsafe { function::<unsafe extern "C" fn() -> usize>(library, "cublasLtGetVersion")? };
            // SAFETY: it has no arguments.
            let version = unsafe { version() };
            Ok(((version / 10_000) as u32, (version / 100 % 100) as u32))
        }),
        nvrtc: part(Needed::Nvrtc, "libnvrtc.so", |library| {
            type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
            // SAFETY: `nvrtcResult nvrtcVersion(int *major, int *minor)`.
            let version = unsafe { function::<Version>(library, "nvrtcVersion")? };
            let (mut major, mut minor) = (0, 0);
            // SAFETY: both places are there for the length of the call.
            match unsafe { version(&raw mut major, &raw mut minor) } {
                0 => Ok((major.max(0) as u32, minor.max(0) as u32)),
                code => Err(format!("nvrtcVersion failed with code {code}")),
            }
        }),
        ..Cuda::default()
    };
    let mut cards = Vec::new();
    cuda.driver = part(Needed::Driver, "libcuda.so", |library| {
        let driver = Driver::start(library)?;
        let version = driver.version()?;
        cards = driver.cards()?;
        Ok(version)
    });
    cuda.cards = cards;
    cuda
}

/// The library that is `needed`, with what `ask` finds out about it; `stem` is how its file's name begins.
fn part(needed: Needed, stem: &str, ask: impl FnOnce(&Library) -> Result<(u32, u32), String>) -> Part {
    match needed.load(RTLD_NOW | RTLD_LOCAL) {
        Ok((library, name)) => {
            let path = Some(mapped(stem).unwrap_or_else(|| name.display().to_string()));
            let (version, problem) = match ask(&library) {
                Ok(version) => (Some(version), None),
                Err(problem) => (None, Some(problem)),
            };
            Part { path, version, problem }
        }
        Err(Error::Unusable { path, problem }) => Part {
            path: Some(path.display().to_string()),
            version: None,
            problem: Some(format!("it {problem}")),
        },
        Err(_) => Part::default(),
    }
}

/// The function called `name`, or that there is none.
///
/// # Safety
/// `F` is the type of that function.
unsafe fn function<F: Copy>(library: &Library, name: &str) -> Result<F, String> {
    // SAFETY: as the caller's.
    let symbol = unsafe { library.get::<F>(name) };
    symbol.map(|symbol| *symbol).map_err(|_| format!("it has no function {name}"))
}

/// The functions of a driver that has started.
struct Driver {
    version: unsafe extern "C" fn(*mut c_int) -> c_int,
    count: unsafe extern "C" fn(*mut c_int) -> c_int,
    device: unsafe extern "C" fn(*mut c_int, c_int) -> c_int,
    name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int,
    memory: unsafe extern "C" fn(*mut usize, c_int) -> c_int,
    attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int,
}

impl Driver {
    fn start(library: &Library) -> Result<Self, String> {
        // SAFETY: the signatures of `cuda.h`: `CUresult` is an enumeration of ints, `CUdevice` an int.
        let (start, driver) = unsafe {
            let start = function::<unsafe extern "C" fn(c_uint) -> c_int>(library, "cuInit")?;
            let driver = Self {
                version: function(library, "cuDriverGetVersion")?,
                count: function(library, "cuDeviceGetCount")?,
                device: function(library, "cuDeviceGet")?,
                name: function(library, "cuDeviceGetName")?,
                memory: function(library, "cuDeviceTotalMem_v2")?,
                attribute: function(library, "cuDeviceGetAttribute")?,
            };
            (start, driver)
        };
        // SAFETY: the flags must be 0.
        succeeded("cuInit", unsafe { start(0) })?;
        Ok(driver)
    }

    /// The newest CUDA that it knows.
    fn version(&self) -> Result<(u32, u32), String> {
        // SAFETY: a place for an int, there for the length of the call.
        let version = number("cuDriverGetVersion", |out| unsafe { (self.version)(out) })?;
        Ok(((version / 1000) as u32, (version % 1000 / 10) as u32))
    }

    fn cards(&self) -> Result<Vec<Card>, String> {
        // SAFETY: as in `version`.
        let count = number("cuDeviceGetCount", |out| unsafe { (self.count)(out) })?;
        (0..count.clamp(0, MOST_CARDS)).map(|ordinal| self.card(ordinal)).collect()
    }

    fn card(&self, ordinal: c_int) -> Result<Card, String> {
        // SAFETY: as in `version`; the ordinal is below the count.
        let device = number("cuDeviceGet", |out| unsafe { (self.device)(out, ordinal) })?;
        let mut name: [c_char; 256] = [0; 256];
        // SAFETY: the length is that of the array, less a byte that stays zero.
        let code = unsafe { (self.name)(name.as_mut_ptr(), name.len() as c_int - 1, device) };
        succeeded("cuDeviceGetName", code)?;
        // SAFETY: the last byte is zero.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().replace(char::is_control, " ");
        let mut memory = 0_usize;
        // SAFETY: a place for a size, there for the length of the call.
        succeeded("cuDeviceTotalMem_v2", unsafe { (self.memory)(&raw mut memory, device) })?;
        let attribute = |which| {
            // SAFETY: as in `version`.
            number("cuDeviceGetAttribute", |out| unsafe { (self.attribute)(out, which, device) })
        };
        let [major, minor] = CAPABILITY.map(attribute);
        Ok(Card { name, capability: (major?.max(0) as u32, minor?.max(0) as u32), memory: memory as u64 })
    }
}

/// The number that `call` writes.
fn number(name: &str, call: impl FnOnce(*mut c_int) -> c_int) -> Result<c_int, String> {
    let mut value = 0;
    succeeded(name, call(&raw mut value))?;
    Ok(value)
}

fn succeeded(name: &str, code: c_int) -> Result<(), String> {
    let meaning = match code {
        0 => return Ok(()),
        3 => "the driver is not initialised",
        34 => "it is the toolkit's stub, not a driver",
        35 => "the driver is older than the libraries",
        100 => "it finds no card",
        802 => "the system is not ready yet",
        803 => "driver and kernel module have different versions: restart the machine",
        804 => "this card does not run newer libraries on an older driver",
        999 => "an unknown error, often a kernel module that is not loaded",
        _ => "see CUresult in cuda.h",
    };
    Err(format!("{name} failed with code {code}: {meaning}"))
}
