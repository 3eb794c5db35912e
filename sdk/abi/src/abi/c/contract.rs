//! `fp8flow_plugin.h` in Rust, struct for struct; what fields mean is said there.
//!
//! A test compiles the header and compares every size and offset with these.

use std::ffi::{CStr, c_char, c_void};

use crate::tensor::RawTensor;
use crate::{Error, ErrorKind, Result};

/// `FP8FLOW_C_ABI`.
pub const C_ABI: u32 = 1;

/// The function that hands over the table.
pub const ENTRY: &str = "fp8flow_c_backend";

/// `fp8flow_status`.
pub type Status = u32;

/// `FP8FLOW_OK`.
pub(super) const OK: Status = 0;

/// What follows `FP8FLOW_OK`, in order.
const KINDS: [ErrorKind; 5] = [
    ErrorKind::Internal,
    ErrorKind::Invalid,
    ErrorKind::Unsupported,
    ErrorKind::Protocol,
    ErrorKind::Cancelled,
];

/// `fp8flow_error`.
#[repr(C)]
pub struct CError {
    pub size: usize,
    pub message: [c_char; 1024],
    pub help: [c_char; 512],
}

impl CError {
    fn new() -> Self {
        Self { size: size_of::<Self>(), message: [0; 1024], help: [0; 512] }
    }

    fn of(&self, status: Status) -> Error {
        let kind = (status as usize).checked_sub(1).and_then(|place| KINDS.get(place).copied());
        let message = match text(&self.message) {
            message if message.is_empty() => format!("it returned the status {status} without a message"),
            message => message,
        };
        let error = Error::new(kind.unwrap_or(ErrorKind::Internal), message);
        match text(&self.help) {
            help if help.is_empty() => error,
            help => error.with_help(help),
        }
    }

    /// What `error` says, for the other side; its status is returned.
    pub(super) fn fill(&mut self, error: &Error) -> Status {
        write_text(&mut self.message, &error.message);
        write_text(&mut self.help, error.help.as_deref().unwrap_or(""));
        KINDS.iter().position(|kind| *kind == error.kind).map_or(1, |place| place as Status + 1)
    }
}

/// Calls a function of the plugin's with room for an error.
pub(super) fn checked(call: impl FnOnce(*mut CError) -> Status) -> Result<()> {
    let mut error = CError::new();
    match call(&raw mut error) {
        OK => Ok(()),
        status => Err(error.of(status)),
    }
}

/// Whether the `size` of a struct that a plugin has filled is what it was.
pub(super) fn size_is_kept(name: &str, now: usize, before: usize) -> Result<()> {
    if now == before {
        return Ok(());
    }
    let message = format!(
        "it has overwritten the `size` of `{name}`, {before}, with {now}: fill the fields of such a struct one by one, \
         and never assign it as a whole"
    );
    Err(Error::invalid(message))
}

/// What stands before the first zero, or everything.
pub(super) fn text(chars: &[c_char]) -> String {
    let bytes: Vec<u8> = chars.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// As much of `text` as there is room for, ended by a zero.
fn write_text(chars: &mut [c_char], text: &str) {
    let room = chars.len() - 1;
    let end = (0..=room.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    chars.fill(0);
    for (to, &from) in chars.iter_mut().zip(&text.as_bytes()[..end]) {
        *to = from as c_char;
    }
}

/// A text of the plugin's.
///
/// # Safety
/// `pointer` is null or leads to a text that ends with a zero and lives through the call.
pub(super) unsafe fn text_at(pointer: *const c_char) -> Option<String> {
    // SAFETY: promised by the caller.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

/// `fp8flow_bytes`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CBytes {
    pub data: *mut u8,
    pub len: usize,
}

impl From<&mut [u8]> for CBytes {
    fn from(bytes: &mut [u8]) -> Self {
        Self { data: bytes.as_mut_ptr(), len: bytes.len() }
    }
}

/// `fp8flow_const_bytes`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CConstBytes {
    pub data: *const u8,
    pub len: usize,
}

impl From<&[u8]> for CConstBytes {
    fn from(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), len: bytes.len() }
    }
}

/// `fp8flow_named_tensor`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CNamedTensor {
    pub name: *const c_char,
    pub tensor: RawTensor,
}

/// `fp8flow_quantize`.
#[repr(C)]
pub struct CQuantize {
    pub size: usize,
    pub x: RawTensor,
    pub format: u32,
    pub axis: u32,
    pub power_of_two: u32,
    pub codes: RawTensor,
    pub scales: RawTensor,
}

/// `fp8flow_scaled_gemm`.
#[repr(C)]
pub struct CScaledGemm {
    pub size: usize,
    pub a: RawTensor,
    pub transpose_a: u32,
    pub transpose_b: u32,
    pub b: RawTensor,
    pub scale_a: RawTensor,
    pub scale_b: RawTensor,
    pub out: RawTensor,
    pub accumulate: u32,
}

/// The body of a parallel loop.
pub type Body = unsafe extern "C" fn(*mut c_void, usize);

/// `fp8flow_host`.
#[repr(C)]
pub struct CHost {
    pub size: usize,
    pub context: *mut c_void,
    pub isa: unsafe extern "C" fn(*const CHost) -> u32,
    pub threads: unsafe extern "C" fn(*const CHost) -> usize,
    pub parallel_for: unsafe extern "C" fn(*const CHost, usize, Option<Body>, *mut c_void) -> Status,
    pub log_enabled: unsafe extern "C" fn(*const CHost, u32, *const c_char) -> u32,
    pub log: unsafe extern "C" fn(*const CHost, u32, *const c_char, *const c_char),
    pub reduce_amax: unsafe extern "C" fn(*const CHost, *mut f32, usize) -> Status,
    pub cancelled: unsafe extern "C" fn(*const CHost) -> u32,
    pub quantize: unsafe extern "C" fn(*const CHost, *const CQuantize, *mut CError) -> Status,
    pub scaled_gemm: unsafe extern "C" fn(*const CHost, *const CScaledGemm, *mut CError) -> Status,
}

/// `fp8flow_options`.
#[repr(C)]
pub struct COptions {
    pub size: usize,
    pub context: *const c_void,
    pub boolean: unsafe extern "C" fn(*const COptions, *const c_char, *mut u32) -> Status,
    pub integer: unsafe extern "C" fn(*const COptions, *const c_char, *mut i64) -> Status,
    pub number: unsafe extern "C" fn(*const COptions, *const c_char, *mut f64) -> Status,
    pub choice: unsafe extern "C" fn(*const COptions, *const c_char, *mut *const c_char) -> Status,
}

/// `fp8flow_layer`.
#[repr(C)]
pub struct CLayer {
    pub size: usize,
    pub name: *const c_char,
    pub in_features: u64,
    pub out_features: u64,
    pub tokens: u64,
    pub block: i64,
    pub group: *const *const c_char,
    pub group_len: usize,
}

/// `fp8flow_decision`.
#[repr(C)]
pub struct CDecision {
    pub size: usize,
    pub fp8: u32,
    pub fp8_gemms: [u32; 3],
    pub reason: [c_char; 512],
}

/// `fp8flow_memory`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct CMemory {
    pub size: usize,
    pub shared_saved: u64,
    pub shared_forward: u64,
    pub saved: u64,
    pub forward_scratch: u64,
    pub backward_scratch: u64,
    pub own: u64,
    pub keep_input: u64,
}

/// `fp8flow_counters`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct CCounters {
    pub size: usize,
    pub fprop: u64,
    pub dgrad: u64,
    pub wgrad: u64,
    pub high_precision: u64,
    pub cast: [u64; 3],
    pub saturated: [u64; 3],
    pub underflowed: [u64; 3],
    pub non_finite: [u64; 3],
    pub amax: [f64; 3],
    pub scale_age: [u64; 3],
}

/// `fp8flow_cast`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CCast {
    pub codes: RawTensor,
    pub scales: RawTensor,
}

/// `fp8flow_forward`.
#[repr(C)]
pub struct CForward {
    pub size: usize,
    pub pass: u32,
    pub telemetry: u32,
    pub x: RawTensor,
    pub x_by_row: *const CCast,
    pub x_by_col: *const CCast,
    pub weight: RawTensor,
    pub y: RawTensor,
    pub group_ready: u32,
    pub reserved: u32,
    pub group_saved: CBytes,
    pub group_forward: CBytes,
    pub saved: CBytes,
    pub scratch: CBytes,
}

/// `fp8flow_backward`.
#[repr(C)]
pub struct CBackward {
    pub size: usize,
    pub telemetry: u32,
    pub accumulate_dx: u32,
    pub accumulate_dw: u32,
    pub reserved: u32,
    pub dy: RawTensor,
    pub weight: RawTensor,
    pub x: *const RawTensor,
    pub dx: *const RawTensor,
    pub dw: RawTensor,
    pub group_saved: CConstBytes,
    pub saved: CConstBytes,
    pub scratch: CBytes,
}

/// `fp8flow_text_sink`.
#[repr(C)]
pub struct CTextSink {
    pub size: usize,
    pub context: *mut c_void,
    pub write: unsafe extern "C" fn(*const CTextSink, *const c_char, usize),
}

/// `fp8flow_state_sink`.
#[repr(C)]
pub struct CStateSink {
    pub size: usize,
    pub context: *mut c_void,
    pub put: unsafe extern "C" fn(*const CStateSink, *const c_char, *const RawTensor) -> Status,
}

/// A function of the plugin's.
macro_rules! function {
    (($($argument:ty),*) -> $result:ty) => { Option<unsafe extern "C" fn($($argument),*) -> $result> };
    (($($argument:ty),*)) => { Option<unsafe extern "C" fn($($argument),*)> };
}

/// `fp8flow_plugin`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CPlugin {
    pub size: usize,
    pub abi: u32,
    pub reserved: u32,
    pub recipes: *const c_char,
    pub start: function!((*const CHost, *mut *mut c_void, *mut CError) -> Status),
    pub stop: function!((*mut c_void)),
    pub recipe_new: function!(
        (*mut c_void, *const CHost, *const c_char, *const COptions, *mut *mut c_void, *mut CError) -> Status
    ),
    pub recipe_free: function!((*mut c_void)),
    pub recipe_describe: function!((*mut c_void, *const CTextSink, *mut CError) -> Status),
    pub recipe_decide: function!((*mut c_void, *const CLayer, *mut CDecision, *mut CError) -> Status),
    pub recipe_linear: function!((*mut c_void, *const CLayer, *mut *mut c_void, *mut CError) -> Status),
    pub recipe_on: function!((*mut c_void, u32, *mut CError) -> Status),
    pub recipe_state: function!((*mut c_void, *const CStateSink, *mut CError) -> Status),
    pub recipe_restore: function!((*mut c_void, *const CNamedTensor, usize, *mut CError) -> Status),
    pub linear_free: function!((*mut c_void)),
    pub linear_memory: function!((*mut c_void, u64, *mut CMemory, *mut CError) -> Status),
    pub linear_input_formats: function!((*mut c_void) -> *const c_char),
    pub linear_forward: function!((*mut c_void, *const CForward, *mut CError) -> Status),
    pub linear_backward: function!((*mut c_void, *const CBackward, *mut CError) -> Status),
    pub linear_counters: function!((*mut c_void, *mut CCounters, *mut CError) -> Status),
    pub quantize: function!((*mut c_void, *const CHost, *const CQuantize, *mut CError) -> Status),
    pub scaled_gemm: function!((*mut c_void, *const CHost, *const CScaledGemm, *mut CError) -> Status),
}
