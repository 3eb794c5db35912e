//! What can go wrong with a card.

use std::path::PathBuf;

use cudarc::driver::sys::CUresult;

/// The result of everything that asks a card.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a card cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A library that is needed is not there.
    #[error("{library} was not found; {advice}")]
    Missing {
        /// The library's file name.
        library: &'static str,
        /// What to install, or where to point.
        advice: &'static str,
    },
    /// A library is there and of no use.
    #[error("{} {problem}", path.display())]
    Unusable {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The driver says no.
    #[error("{call} failed: {name}{}", if text.is_empty() { String::new() } else { format!(" ({text})") })]
    Driver {
        /// The function of the driver.
        call: &'static str,
        /// The name of the code.
        name: String,
        /// The driver's own words.
        text: String,
    },
    /// There is no such card.
    #[error(
        "there is no card {ordinal}: the driver shows {count}; look at `fp8flow doctor` and CUDA_VISIBLE_DEVICES"
    )]
    NoCard {
        /// The one asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// A card that cannot do FP8.
    #[error("{name} has compute capability {major}.{minor}; FP8 needs Ada (8.9) or Hopper (9.0)")]
    TooOld {
        /// The card's name.
        name: String,
        /// Compute capability.
        major: u32,
        /// Its second number.
        minor: u32,
    },
    /// Not enough memory on the card.
    #[error("the card has no room for {wanted} bytes more: {free} of {total} bytes are free")]
    Full {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes that are free.
        free: usize,
        /// Bytes of the card.
        total: usize,
    },
    /// A kernel does not compile: a bug, or an NVRTC that this version does not know.
    #[error("NVRTC does not compile {kernel} for {architecture}: {log}")]
    Compile {
        /// The source.
        kernel: &'static str,
        /// What it was compiled for.
        architecture: &'static str,
        /// The compiler's words.
        log: String,
    },
    /// cuBLASLt says no.
    #[error("cuBLASLt's {call} failed for {what}: {status}")]
    Lt {
        /// The function.
        call: &'static str,
        /// The product.
        what: String,
        /// The status.
        status: String,
    },
    /// Something that this card, or this version, does not do.
    #[error("{0}")]
    Unsupported(String),
}

impl Error {
    /// The error of `call`, which came back with `code`.
    #[allow(unsafe_code)]
    pub(crate) fn driver(call: &'static str, code: CUresult) -> Self {
        use cudarc::driver::sys::{cuGetErrorName, cuGetErrorString};
        let words = |ask: unsafe fn(CUresult, *mut *const std::ffi::c_char) -> CUresult| {
            let mut text = std::ptr::null();
            // SAFETY: `text` is a place for a pointer; both functions were looked up when the driver was opened.
            let found = unsafe { ask(code, &raw mut text) };
            if found != CUresult::CUDA_SUCCESS || text.is_null() {
                return String::new();
            }
            // SAFETY: on success the driver gives a string that lives as long as it is loaded.
            unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        let name = Some(words(cuGetErrorName)).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| format!("code {}", code as u32));
        Self::Driver { call, name, text: words(cuGetErrorString) }
    }
}

/// Turns a code of the driver into a result.
pub(crate) fn check(call: &'static str, code: CUresult) -> Result<()> {
    if code == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(Error::driver(call, code)) }
}
