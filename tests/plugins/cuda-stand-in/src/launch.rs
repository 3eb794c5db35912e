//! Launches: looked at when they are asked for, run later.

use std::ffi::{c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::block::Worker;
use crate::cards;
use crate::codes::{Code, ILLEGAL_ADDRESS, INVALID_VALUE, NOT_SUPPORTED};
use crate::fault;
use crate::memory;
use crate::module::{Function, Module, Run};
use crate::operation::Operation;
use crate::state::{State, known};
use crate::stream;

/// Threads of a launch from which on two OS threads share its blocks.
const WORTH_SHARING: u64 = 4096;

/// A kernel with its arguments.
pub(crate) struct Launch {
    pub(crate) name: String,
    pub(crate) module: Arc<Module>,
    pub(crate) entry: Run,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: usize,
    /// The arguments' bytes, each from a multiple of 16 on.
    arguments: Vec<u128>,
    places: Vec<usize>,
}

impl Launch {
    pub(crate) fn threads(&self) -> usize {
        self.block.iter().map(|n| *n as usize).product()
    }

    pub(crate) fn argument_places(&self) -> Vec<*const c_void> {
        self.places.iter().map(|i| (&raw const self.arguments[*i]).cast()).collect()
    }

    /// Runs all blocks. The card's memory is open.
    pub(crate) fn run(&self) {
        fault::watch();
        let blocks: u64 = self.grid.iter().map(|n| u64::from(*n)).product();
        let next = AtomicU64::new(0);
        let work = || {
            let mut worker = Worker::new(self);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= blocks {
                    break;
                }
                worker.run(number);
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if cores == 1 || blocks == 1 || blocks * (self.threads() as u64) < WORTH_SHARING {
            work();
        } else {
            std::thread::scope(|scope| {
                scope.spawn(work);
                work();
            });
        }
    }
}

/// What CUDA's programming guide lists.
fn fits(function: &Function, grid: [u32; 3], block: [u32; 3], shared: usize) -> bool {
    let threads: u64 = block.iter().map(|n| u64::from(*n)).product();
    grid.iter().chain(&block).all(|n| *n > 0)
        && i32::try_from(grid[0]).is_ok()
        && grid[1] <= 65_535
        && grid[2] <= 65_535
        && block[2] <= 64
        && threads <= function.most_threads as u64
        && shared <= function.most_shared
}

unsafe fn copy(function: &Function, given: *const *const u8) -> Result<(Vec<u128>, Vec<usize>), Code> {
    let (mut arguments, mut places) = (Vec::new(), Vec::new());
    for (i, parameter) in function.parameters.iter().enumerate() {
        let argument = given.add(i).read();
        if argument.is_null() {
            return Err(INVALID_VALUE);
        }
        let place = arguments.len();
        places.push(place);
        arguments.resize(place + parameter.bytes.div_ceil(16), 0_u128);
        arguments[place..].as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(argument, parameter.bytes);
        let address = arguments[place] as usize;
        if parameter.is_pointer && address != 0 && memory::place(address, 0).is_none() {
            eprintln!(
                "emulated card: argument {i} of kernel `{}` is {address:#x}{}",
                function.name,
                memory::describe(address)
            );
            return Err(ILLEGAL_ADDRESS);
        }
    }
    Ok((arguments, places))
}

driver! {
    fn cuLaunchKernel(
        function: usize,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared: c_uint,
        stream: usize,
        arguments: *const *const u8,
        extra: *const *const u8,
    ) {
        let mut state = State::enter()?;
        let function = known(&state.functions, function)?.clone();
        if !extra.is_null() {
            return Err(NOT_SUPPORTED);
        }
        let (grid, block, shared) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z], shared as usize);
        if !fits(&function, grid, block, shared) || (arguments.is_null() && !function.parameters.is_empty()) {
            return Err(INVALID_VALUE);
        }
        let (arguments, places) = copy(&function, arguments)?;
        if cards::leaves_out(&function.name) {
            return Ok(());
        }
        let Function { name, module, run: entry, .. } = function;
        let launch = Launch { name, module, entry, grid, block, shared, arguments, places };
        stream::push(&mut state, stream, Operation::Launch(Arc::new(launch)), Vec::new())?;
        Ok(())
    }
}
