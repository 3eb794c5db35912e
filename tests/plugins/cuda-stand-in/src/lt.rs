//! cuBLASLt's functions: descriptors, algorithms that fit a problem, and products in a stream.

mod number;
mod problem;
mod product;

use std::collections::{HashMap, HashSet};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::{Arc, LazyLock, Mutex};

use crate::cards::card;
use crate::operation::Operation;
use crate::state::{State, locked};
use crate::{context, stream};

use problem::{Descriptor, Layout, Problem};
pub(crate) use product::Product;

/// A `cublasStatus_t` other than success.
type Status = c_int;
const NOT_INITIALIZED: Status = 1;
const INVALID_VALUE: Status = 7;
const EXECUTION_FAILED: Status = 13;
const NOT_SUPPORTED: Status = 15;

/// Version 12.9.1.
const VERSION: usize = 120_901;
/// What the first algorithm of a problem works in, where it may.
const WORKSPACE: usize = 1 << 20;
/// First word of an algorithm.
const ALGORITHM: u64 = 0x656d_756c_0000_0000 + VERSION as u64;

/// `cublasLtMatmulAlgo_t`: a mark, the problem it is for, its number, the bytes it works in.
#[repr(C)]
#[derive(Clone, Copy)]
struct Algorithm([u64; 8]);

impl Algorithm {
    /// The bytes that it works in, if it is one of these and for `problem`.
    fn bytes_for(&self, problem: &Problem) -> Result<usize, Status> {
        let [mark, digest, _, bytes, ..] = self.0;
        if mark != ALGORITHM {
            return Err(INVALID_VALUE);
        }
        if digest == problem.digest() { Ok(bytes as usize) } else { Err(NOT_SUPPORTED) }
    }
}

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
struct Heuristic {
    algorithm: Algorithm,
    workspace: usize,
    state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

/// What lives behind handles.
#[derive(Default)]
struct Known {
    handles: HashSet<usize>,
    descriptors: HashMap<usize, Descriptor>,
    layouts: HashMap<usize, Layout>,
    /// The most bytes to work in.
    preferences: HashMap<usize, usize>,
    last: usize,
}

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

impl Known {
    fn handle(&mut self) -> usize {
        self.last += 0x10;
        0xB000_0000 + self.last
    }

    fn require(&self, handle: usize) -> Result<(), Status> {
        if self.handles.contains(&handle) { Ok(()) } else { Err(NOT_INITIALIZED) }
    }

    fn problem(&self, descriptor: usize, layouts: [usize; 4]) -> Result<Problem, Status> {
        let layout = |handle: usize| self.layouts.get(&handle).copied().ok_or(INVALID_VALUE);
        let [a, b, c, d] = layouts;
        let descriptor = self.descriptors.get(&descriptor).ok_or(INVALID_VALUE)?.clone();
        let card = context::device().and_then(card).map_err(|_| NOT_INITIALIZED)?;
        Problem::new(descriptor, layout(a)?, layout(b)?, layout(c)?, layout(d)?, &card)
    }
}

fn known<T>(table: &mut HashMap<usize, T>, handle: usize) -> Result<&mut T, Status> {
    table.get_mut(&handle).ok_or(INVALID_VALUE)
}

/// The value of an attribute, which must have the length of its type.
unsafe fn value<T: Copy>(from: *const c_void, bytes: usize) -> Result<T, Status> {
    if from.is_null() || bytes != size_of::<T>() {
        return Err(INVALID_VALUE);
    }
    Ok(from.cast::<T>().read_unaligned())
}

driver! {
    fn cublasLtCreate(handle: *mut usize) {
        context::device().map_err(|_| NOT_INITIALIZED)?;
        let mut all = locked(&KNOWN);
        let made = all.handle();
        all.handles.insert(made);
        handle.write(made);
        Ok(())
    }

    fn cublasLtDestroy(handle: usize) {
        if locked(&KNOWN).handles.remove(&handle) { Ok(()) } else { Err(NOT_INITIALIZED) }
    }

    fn cublasLtMatmulDescCreate(descriptor: *mut usize, compute: c_int, scale: c_int) {
        let mut all = locked(&KNOWN);
        let made = all.handle();
        all.descriptors.insert(made, Descriptor::new(compute, scale)?);
        descriptor.write(made);
        Ok(())
    }

    fn cublasLtMatmulDescDestroy(descriptor: usize) {
        locked(&KNOWN).descriptors.remove(&descriptor).map(|_| ()).ok_or(INVALID_VALUE)
    }

    fn cublasLtMatmulDescSetAttribute(descriptor: usize, attribute: c_int, from: *const c_void, bytes: usize) {
        let mut all = locked(&KNOWN);
        let found = known(&mut all.descriptors, descriptor)?;
        match attribute {
            // Pointers to alpha and beta on the card are not emulated.
            2 if value::<c_int>(from, bytes)? == 0 => {}
            3 | 4 => found.transposed[attribute as usize - 3] = match value::<c_int>(from, bytes)? {
                0 => false,
                1 | 2 => true,
                _ => return Err(INVALID_VALUE),
            },
            // The default epilogue; others are not emulated.
            7 if value::<c_uint>(from, bytes)? == 1 => {}
            17 | 18 => found.scales[attribute as usize - 17] = value(from, bytes)?,
            19..=21 if value::<usize>(from, bytes)? == 0 => {}
            // Sums are exact here, fast or not.
            25 => found.fast = value::<i8>(from, bytes)? != 0,
            31 | 32 if context::device().and_then(card).is_ok_and(|card| !card.scale_modes) => {
                return Err(INVALID_VALUE);
            }
            31 | 32 => found.set_mode(attribute as usize - 31, value(from, bytes)?)?,
            _ => return Err(NOT_SUPPORTED),
        }
        Ok(())
    }

    fn cublasLtMatrixLayoutCreate(layout: *mut usize, element: c_int, rows: u64, columns: u64, leading: i64) {
        let mut all = locked(&KNOWN);
        let made = all.handle();
        all.layouts.insert(made, Layout::new(element, rows as usize, columns as usize, leading)?);
        layout.write(made);
        Ok(())
    }

    fn cublasLtMatrixLayoutDestroy(layout: usize) {
        locked(&KNOWN).layouts.remove(&layout).map(|_| ()).ok_or(INVALID_VALUE)
    }

    fn cublasLtMatrixLayoutSetAttribute(layout: usize, attribute: c_int, from: *const c_void, bytes: usize) {
        let mut all = locked(&KNOWN);
        let found = known(&mut all.layouts, layout)?;
        match attribute {
            // Columns one after the other; the other orders are not emulated.
            1 if value::<c_int>(from, bytes)? == 0 => {}
            5 => found.batches = usize::try_from(value::<c_int>(from, bytes)?).map_err(|_| INVALID_VALUE)?.max(1),
            6 => found.stride = usize::try_from(value::<i64>(from, bytes)?).map_err(|_| INVALID_VALUE)?,
            _ => return Err(NOT_SUPPORTED),
        }
        Ok(())
    }

    fn cublasLtMatmulPreferenceCreate(preference: *mut usize) {
        let mut all = locked(&KNOWN);
        let made = all.handle();
        all.preferences.insert(made, 0);
        preference.write(made);
        Ok(())
    }

    fn cublasLtMatmulPreferenceDestroy(preference: usize) {
        locked(&KNOWN).preferences.remove(&preference).map(|_| ()).ok_or(INVALID_VALUE)
    }

    fn cublasLtMatmulPreferenceSetAttribute(preference: usize, attribute: c_int, from: *const c_void, bytes: usize) {
        let mut all = locked(&KNOWN);
        let found = known(&mut all.preferences, preference)?;
        match attribute {
            1 => *found = value(from, bytes)?,
            // Search mode, reduction schemes and alignments choose among algorithms; here all do the same.
            0 | 3 | 5..=8 => drop(value::<u32>(from, bytes)?),
            9 => drop(value::<f32>(from, bytes)?),
            _ => return Err(NOT_SUPPORTED),
        }
        Ok(())
    }

    fn cublasLtMatmulAlgoGetHeuristic(
        handle: usize,
        descriptor: usize,
        a: usize,
        b: usize,
        c: usize,
        d: usize,
        preference: usize,
        wanted: c_int,
        results: *mut Heuristic,
        count: *mut c_int,
    ) {
        let mut all = locked(&KNOWN);
        all.require(handle)?;
        let most = *known(&mut all.preferences, preference)?;
        count.write(0);
        if wanted < 1 {
            return Err(INVALID_VALUE);
        }
        let problem = all.problem(descriptor, [a, b, c, d])?;
        let workspaces = [WORKSPACE, WORKSPACE / 4, 0];
        let fitting = workspaces.into_iter().enumerate().filter(|(_, workspace)| *workspace <= most);
        for (i, (number, workspace)) in fitting.take(wanted as usize).enumerate() {
            let words = [ALGORITHM, problem.digest(), number as u64, workspace as u64, 0, 0, 0, 0];
            let (state, waves, reserved) = (0, 1.0, [0; 4]);
            results.add(i).write(Heuristic { algorithm: Algorithm(words), workspace, state, waves, reserved });
            count.write(i as c_int + 1);
        }
        Ok(())
    }

    fn cublasLtMatmulAlgoCheck(
        handle: usize,
        descriptor: usize,
        a: usize,
        b: usize,
        c: usize,
        d: usize,
        algorithm: *const Algorithm,
        result: *mut Heuristic,
    ) {
        let all = locked(&KNOWN);
        all.require(handle)?;
        let problem = all.problem(descriptor, [a, b, c, d])?;
        let result = &mut *result;
        (result.workspace, result.state, result.waves) = ((*algorithm).bytes_for(&problem)?, 0, 1.0);
        Ok(())
    }

    fn cublasLtMatmul(
        handle: usize,
        descriptor: usize,
        alpha: *const f32,
        a: usize,
        a_layout: usize,
        b: usize,
        b_layout: usize,
        beta: *const f32,
        c: usize,
        c_layout: usize,
        d: usize,
        d_layout: usize,
        algorithm: *const Algorithm,
        workspace: usize,
        workspace_bytes: usize,
        stream: usize,
    ) {
        let all = locked(&KNOWN);
        all.require(handle)?;
        let problem = all.problem(descriptor, [a_layout, b_layout, c_layout, d_layout])?;
        drop(all);
        if alpha.is_null() || beta.is_null() {
            return Err(INVALID_VALUE);
        }
        let needed = if algorithm.is_null() { 0 } else { (*algorithm).bytes_for(&problem)? };
        if needed > workspace_bytes || !workspace.is_multiple_of(256) {
            return Err(INVALID_VALUE);
        }
        let product = Product { problem, alpha: *alpha, beta: *beta, a, b, c, d, workspace: (workspace, needed) };
        product.check()?;
        let mut state = State::enter().map_err(|_| NOT_INITIALIZED)?;
        let operation = Operation::Product(Arc::new(product));
        stream::push(&mut state, stream, operation, Vec::new()).map_err(|_| EXECUTION_FAILED)?;
        Ok(())
    }
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtGetVersion() -> usize {
    VERSION
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtGetStatusName(status: c_int) -> *const c_char {
    let name = match status {
        0 => c"CUBLAS_STATUS_SUCCESS",
        NOT_INITIALIZED => c"CUBLAS_STATUS_NOT_INITIALIZED",
        INVALID_VALUE => c"CUBLAS_STATUS_INVALID_VALUE",
        EXECUTION_FAILED => c"CUBLAS_STATUS_EXECUTION_FAILED",
        NOT_SUPPORTED => c"CUBLAS_STATUS_NOT_SUPPORTED",
        _ => c"CUBLAS_STATUS unknown",
    };
    name.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtGetStatusString(status: c_int) -> *const c_char {
    let text = match status {
        0 => c"success",
        NOT_INITIALIZED => c"the library was not initialized",
        INVALID_VALUE => c"an unsupported value or parameter was passed to the function",
        EXECUTION_FAILED => c"the function failed to launch on the GPU",
        NOT_SUPPORTED => c"the functionality requested is not supported",
        _ => c"unknown status",
    };
    text.as_ptr()
}
