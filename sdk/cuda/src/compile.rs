//! NVRTC: from CUDA C to machine code for one architecture.

#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int};

use cudarc::nvrtc::sys;

use crate::card::Architecture;
use crate::library::Needed;
use crate::source::HEADERS;
use crate::{Error, Result, Source};

/// How every source is compiled: nothing is fused, rounded or flushed that the text does not say, so that a kernel has
/// the bits of its specification. The report of registers goes to the log.
const OPTIONS: [&str; 3] = ["--std=c++17", "--fmad=false", "--ptxas-options=-v"];

/// Machine code, and what the compiler says about it.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// A CUBIN.
    pub cubin: Vec<u8>,
    /// The log: warnings, and the resources of each entry point.
    pub log: String,
}

/// The resources of an entry point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Its name.
    pub entry: String,
    /// Registers a thread.
    pub registers: u32,
    /// Bytes that registers are stored to memory with, and loaded from it.
    pub spills: u32,
}

/// The version of NVRTC, major first.
pub fn version() -> Result<(u32, u32)> {
    Needed::Nvrtc.open()?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both places are there for the length of the call, and the library is open.
    let status = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    succeeded(status, "nvrtcVersion")?;
    Ok((major.max(0) as u32, minor.max(0) as u32))
}

/// The options for `architecture`.
pub(crate) fn options(architecture: Architecture) -> Vec<String> {
    let target = format!("--gpu-architecture={}", architecture.name());
    OPTIONS.into_iter().map(str::to_owned).chain([target]).collect()
}

/// Compiles `source` for `architecture`. No card is needed.
pub fn compile(source: Source, architecture: Architecture) -> Result<Compiled> {
    Needed::Nvrtc.open()?;
    let program = Program::new(source)?;
    let options: Vec<CString> = options(architecture).into_iter().map(c_string).collect();
    let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
    // SAFETY: a live program, and as many strings as are said, which outlive the call.
    let status = unsafe { sys::nvrtcCompileProgram(program.0, pointers.len() as c_int, pointers.as_ptr()) };
    let log = program.log()?;
    if status != sys::nvrtcResult::NVRTC_SUCCESS {
        let log = if log.trim().is_empty() { words(status) } else { log };
        return Err(Error::Compile { kernel: source.name, architecture: architecture.name(), log });
    }
    Ok(Compiled { cubin: program.cubin()?, log })
}

impl Compiled {
    /// What each entry point takes, as the log tells it.
    pub fn resources(&self) -> Vec<Resources> {
        resources(&self.log)
    }
}

fn resources(log: &str) -> Vec<Resources> {
    let mut found: Vec<Resources> = Vec::new();
    for line in log.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            let entry = rest.split('\'').next().unwrap_or_default().to_owned();
            found.push(Resources { entry, ..Resources::default() });
        }
        let Some(last) = found.last_mut() else { continue };
        if line.contains("bytes spill stores") {
            last.spills += before(line, "bytes spill stores") + before(line, "bytes spill loads");
        }
        if let Some(rest) = line.split("Used ").nth(1) {
            last.registers = before(rest, "registers");
        }
    }
    found
}

/// The number that stands before `words` in `line`; 0 if none does.
fn before(line: &str, words: &str) -> u32 {
    let head = line.find(words).map_or("", |at| &line[..at]);
    head.split_whitespace().last().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// A program, destroyed when dropped.
struct Program(sys::nvrtcProgram);

impl Program {
    fn new(source: Source) -> Result<Self> {
        let text = c_string(source.text.to_owned());
        let name = c_string(format!("{}.cu", source.name));
        let strings = |pick: fn(&(&str, &str)) -> String| -> Vec<CString> {
            HEADERS.iter().map(|header| c_string(pick(header))).collect()
        };
        let (names, texts) = (strings(|header| header.0.to_owned()), strings(|header| header.1.to_owned()));
        let pointers =
            |strings: &[CString]| strings.iter().map(|text| text.as_ptr()).collect::<Vec<*const c_char>>();
        let (names, texts) = (pointers(&names), pointers(&texts));
        let mut program = std::ptr::null_mut();
        // SAFETY: all strings end with a zero and outlive the call, in which NVRTC copies them; there are as many headers
        // as are said.
        let status = unsafe {
            sys::nvrtcCreateProgram(
                &raw mut program,
                text.as_ptr(),
                name.as_ptr(),
                names.len() as c_int,
                texts.as_ptr(),
                names.as_ptr(),
            )
        };
        succeeded(status, "nvrtcCreateProgram")?;
        Ok(Self(program))
    }

    fn log(&self) -> Result<String> {
        let bytes = self.read("nvrtcGetProgramLog", sys::nvrtcGetProgramLogSize, sys::nvrtcGetProgramLog)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
    }

    fn cubin(&self) -> Result<Vec<u8>> {
        self.read("nvrtcGetCUBIN", sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN)
    }

    fn read(
        &self,
        call: &'static str,
        size: unsafe fn(sys::nvrtcProgram, *mut usize) -> sys::nvrtcResult,
        read: unsafe fn(sys::nvrtcProgram, *mut c_char) -> sys::nvrtcResult,
    ) -> Result<Vec<u8>> {
        let mut len = 0;
        // SAFETY: a live program, a place for a size.
        succeeded(unsafe { size(self.0, &raw mut len) }, call)?;
        let mut bytes = vec![0_u8; len];
        // SAFETY: a live program, and room for as many bytes as NVRTC has just said.
        succeeded(unsafe { read(self.0, bytes.as_mut_ptr().cast()) }, call)?;
        Ok(bytes)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `nvrtcCreateProgram` and destroyed once.
        unsafe { sys::nvrtcDestroyProgram(&raw mut self.0) };
    }
}

/// A string of ours for C; none of them has a zero within.
fn c_string(text: String) -> CString {
    CString::new(text).unwrap_or_default()
}

fn words(status: sys::nvrtcResult) -> String {
    // SAFETY: any code has a static text.
    let text = unsafe { sys::nvrtcGetErrorString(status) };
    if text.is_null() {
        return format!("code {}", status as u32);
    }
    // SAFETY: a string of the library's, which stays open.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn succeeded(status: sys::nvrtcResult, call: &'static str) -> Result<()> {
    if status == sys::nvrtcResult::NVRTC_SUCCESS {
        return Ok(());
    }
    Err(Error::Driver { call, name: words(status), text: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_read_from_the_log() {
        let log = "ptxas info    : 0 bytes gmem\n\
                   ptxas info    : Compiling entry function 'add_bf16' for 'sm_90a'\n\
                   ptxas info    : Function properties for add_bf16\n    \
                   0 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n\
                   ptxas info    : Used 32 registers, used 0 barriers\n\
                   ptxas info    : Compiling entry function 'add_f32' for 'sm_90a'\n    \
                   0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
                   ptxas info    : Used 16 registers, used 1 barriers, 1024 bytes smem\n";
        let of = |entry: &str, registers, spills| Resources { entry: entry.into(), registers, spills };
        assert_eq!(resources(log), [of("add_bf16", 32, 20), of("add_f32", 16, 0)]);
    }
}
