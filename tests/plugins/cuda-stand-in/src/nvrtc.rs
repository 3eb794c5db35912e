//! NVRTC's functions: programs, their logs, and what was compiled.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int};
use std::sync::{LazyLock, Mutex};

use crate::compile::{self, Compiled, Failure};
use crate::state::locked;

/// What the log says of every kernel: the emulated card has as many as anyone wants.
pub(crate) const REGISTERS: u32 = 32;

const INVALID_INPUT: c_int = 3;
const INVALID_PROGRAM: c_int = 4;
const INVALID_OPTION: c_int = 5;
const COMPILATION: c_int = 6;

/// Text to be compiled, then what came of it.
#[derive(Default)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) text: String,
    /// Name and text of each header.
    pub(crate) headers: Vec<(String, String)>,
    log: String,
    compiled: Compiled,
}

static PROGRAMS: LazyLock<Mutex<HashMap<usize, Program>>> = LazyLock::new(Mutex::default);

unsafe fn text(pointer: *const c_char) -> Result<String, c_int> {
    if pointer.is_null() {
        return Err(INVALID_INPUT);
    }
    Ok(CStr::from_ptr(pointer).to_string_lossy().into_owned())
}

/// Gives something of a program.
fn with<T>(program: usize, give: impl FnOnce(&Program) -> T) -> Result<T, c_int> {
    locked(&PROGRAMS).get(&program).map(give).ok_or(INVALID_PROGRAM)
}

unsafe fn write(bytes: &[u8], to: *mut u8) {
    to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
}

fn with_zero(text: &str) -> Vec<u8> {
    text.bytes().chain([0]).collect()
}

driver! {
    fn nvrtcVersion(major: *mut c_int, minor: *mut c_int) {
        major.write(12);
        minor.write(9);
        Ok(())
    }

    fn nvrtcCreateProgram(
        program: *mut usize,
        source: *const c_char,
        name: *const c_char,
        count: c_int,
        headers: *const *const c_char,
        names: *const *const c_char,
    ) {
        let mut made = Program { text: text(source)?, name: "default_program".to_owned(), ..Program::default() };
        if !name.is_null() {
            made.name = text(name)?;
        }
        for i in 0..usize::try_from(count).map_err(|_| INVALID_INPUT)? {
            made.headers.push((text(names.add(i).read())?, text(headers.add(i).read())?));
        }
        let names = made.headers.iter().map(|(name, _)| name).chain([&made.name]);
        if names.into_iter().any(|name| name.is_empty() || name.starts_with('/') || name.contains("..")) {
            return Err(INVALID_INPUT);
        }
        let mut programs = locked(&PROGRAMS);
        let handle = programs.keys().max().copied().unwrap_or(0xF000_0000) + 0x10;
        programs.insert(handle, made);
        program.write(handle);
        Ok(())
    }

    fn nvrtcDestroyProgram(program: *mut usize) {
        locked(&PROGRAMS).remove(&program.read()).ok_or(INVALID_PROGRAM)?;
        program.write(0);
        Ok(())
    }

    fn nvrtcCompileProgram(program: usize, count: c_int, options: *const *const c_char) {
        let count = usize::try_from(count).map_err(|_| INVALID_INPUT)?;
        let options = (0..count).map(|i| text(options.add(i).read())).collect::<Result<Vec<_>, _>>()?;
        // Other threads compile meanwhile.
        let mut taken = locked(&PROGRAMS).remove(&program).ok_or(INVALID_PROGRAM)?;
        let (code, log) = match compile::compile(&taken, &options) {
            Ok((compiled, log)) => {
                taken.compiled = compiled;
                (0, log)
            }
            Err(Failure::Option(log)) => (INVALID_OPTION, log),
            Err(Failure::Source(log)) => (COMPILATION, log),
        };
        taken.log = log;
        locked(&PROGRAMS).insert(program, taken);
        if code == 0 { Ok(()) } else { Err(code) }
    }

    fn nvrtcGetProgramLogSize(program: usize, size: *mut usize) {
        size.write(with(program, |program| program.log.len() + 1)?);
        Ok(())
    }

    fn nvrtcGetProgramLog(program: usize, log: *mut u8) {
        with(program, |program| write(&with_zero(&program.log), log))
    }

    fn nvrtcGetCUBINSize(program: usize, size: *mut usize) {
        size.write(with(program, |program| program.compiled.cubin.len())?);
        Ok(())
    }

    fn nvrtcGetCUBIN(program: usize, cubin: *mut u8) {
        with(program, |program| write(&program.compiled.cubin, cubin))
    }

    fn nvrtcGetPTXSize(program: usize, size: *mut usize) {
        size.write(with(program, |program| program.compiled.ptx.len() + 1)?);
        Ok(())
    }

    fn nvrtcGetPTX(program: usize, ptx: *mut u8) {
        with(program, |program| write(&with_zero(&program.compiled.ptx), ptx))
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetErrorString(code: c_int) -> *const c_char {
    let text = match code {
        0 => c"NVRTC_SUCCESS",
        INVALID_INPUT => c"NVRTC_ERROR_INVALID_INPUT",
        INVALID_PROGRAM => c"NVRTC_ERROR_INVALID_PROGRAM",
        INVALID_OPTION => c"NVRTC_ERROR_INVALID_OPTION",
        COMPILATION => c"NVRTC_ERROR_COMPILATION",
        _ => c"NVRTC_ERROR unknown",
    };
    text.as_ptr()
}
