//! Kernels, and how they are launched.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys;

use crate::error::check;
use crate::{Card, Error, Result};

/// Bytes of dynamic shared memory that a block gets unasked: 48 KB, less than 16 of which kernels take as arrays.
const SHARED_UNASKED: u32 = 32 << 10;

/// Machine code that is loaded.
#[derive(Debug)]
pub(crate) struct Module {
    name: &'static str,
    handle: usize,
    /// Entry points that were asked for: a step asks for the same ones thousands of times.
    entries: Mutex<HashMap<String, usize>>,
}

impl Module {
    /// Loads a CUBIN. A card is current.
    pub(crate) fn load(name: &'static str, cubin: &[u8]) -> Result<Self> {
        let mut module = std::ptr::null_mut();
        // SAFETY: a whole CUBIN, which says its own length; the driver copies it.
        check("cuModuleLoadData", unsafe { sys::cuModuleLoadData(&raw mut module, cubin.as_ptr().cast()) })?;
        Ok(Self { name, handle: module.expose_provenance(), entries: Mutex::default() })
    }

    /// Its entry point of this name, on `card`.
    pub(crate) fn kernel(self: &Arc<Self>, card: &Card, entry: &str) -> Result<Kernel> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |function| Kernel { function, module: self.clone(), _card: card.clone() };
        if let Some(&function) = entries.get(entry) {
            return Ok(of(function));
        }
        let name = CString::new(entry)
            .map_err(|_| Error::Unsupported(format!("{} has no entry point {entry:?}", self.name)))?;
        let mut function = std::ptr::null_mut();
        // SAFETY: a live module and a string.
        check("cuModuleGetFunction", unsafe {
            sys::cuModuleGetFunction(
                &raw mut function,
                std::ptr::with_exposed_provenance_mut(self.handle),
                name.as_ptr(),
            )
        })?;
        let function = function.expose_provenance();
        entries.insert(entry.to_owned(), function);
        Ok(of(function))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: loaded once; kernels hold on to it and to the card, which is current and idle when it goes.
        unsafe { sys::cuModuleUnload(std::ptr::with_exposed_provenance_mut(self.handle)) };
    }
}

/// An entry point.
#[derive(Clone, Debug)]
pub struct Kernel {
    function: usize,
    module: Arc<Module>,
    /// Without its context there would be no module to unload.
    _card: Card,
}

/// How many threads run a kernel, and in what groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Blocks along x, y and z.
    pub blocks: [usize; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
}

impl Shape {
    /// `blocks` blocks of `threads` threads.
    pub const fn new(blocks: usize, threads: u32) -> Self {
        Self { blocks: [blocks, 1, 1], threads, shared: 0 }
    }

    /// A thread for each of `n` elements.
    pub const fn each(n: usize, threads: u32) -> Self {
        Self::new(n.div_ceil(threads as usize), threads)
    }
}

/// An argument of a kernel. Its type must be that of the parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// An address on the card: a pointer.
    Address(u64),
    /// `u32`.
    U32(u32),
    /// `u64`.
    U64(u64),
    /// `i32`.
    I32(i32),
    /// `float`.
    F32(f32),
    /// `double`.
    F64(f64),
}

impl Arg {
    fn place(&self) -> *mut c_void {
        match self {
            Self::Address(x) | Self::U64(x) => std::ptr::from_ref(x).cast_mut().cast(),
            Self::U32(x) => std::ptr::from_ref(x).cast_mut().cast(),
            Self::I32(x) => std::ptr::from_ref(x).cast_mut().cast(),
            Self::F32(x) => std::ptr::from_ref(x).cast_mut().cast(),
            Self::F64(x) => std::ptr::from_ref(x).cast_mut().cast(),
        }
    }
}

impl From<u32> for Arg {
    fn from(x: u32) -> Self {
        Self::U32(x)
    }
}

impl From<i32> for Arg {
    fn from(x: i32) -> Self {
        Self::I32(x)
    }
}

impl From<f32> for Arg {
    fn from(x: f32) -> Self {
        Self::F32(x)
    }
}

impl From<f64> for Arg {
    fn from(x: f64) -> Self {
        Self::F64(x)
    }
}

/// Counts are 64-bit in kernels.
impl From<usize> for Arg {
    fn from(x: usize) -> Self {
        Self::U64(x as u64)
    }
}

impl Kernel {
    /// Asks the stream of `card` to run it; nothing happens for a shape without blocks.
    ///
    /// # Safety
    /// There are as many `arguments` as the kernel has parameters, of their types; addresses are of memory on the card
    /// that is as large as the kernel takes it to be, and lives until the stream has come past this.
    pub unsafe fn launch(&self, card: &Card, shape: Shape, arguments: &[Arg]) -> Result<()> {
        if shape.blocks.contains(&0) {
            return Ok(());
        }
        let [x, y, z] = self.blocks(shape)?;
        card.bind()?;
        let function: sys::CUfunction = std::ptr::with_exposed_provenance_mut(self.function);
        if shape.shared > SHARED_UNASKED {
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: a live function; the driver checks the number.
            check("cuFuncSetAttribute", unsafe {
                sys::cuFuncSetAttribute(function, most, shape.shared as i32)
            })?;
        }
        let mut places: Vec<*mut c_void> = arguments.iter().map(Arg::place).collect();
        // SAFETY: the caller's, for the arguments; the driver copies them before it comes back.
        check("cuLaunchKernel", unsafe {
            sys::cuLaunchKernel(
                function,
                x,
                y,
                z,
                shape.threads,
                1,
                1,
                shape.shared,
                card.stream(),
                places.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        })
    }

    fn blocks(&self, shape: Shape) -> Result<[u32; 3]> {
        // What CUDA allows along x, and along y and z.
        const MOST: [usize; 3] = [(1 << 31) - 1, 65_535, 65_535];
        if shape.blocks.iter().zip(MOST).any(|(&n, most)| n > most) {
            let text =
                format!("{} would take {:?} blocks, more than a card runs", self.module.name, shape.blocks);
            return Err(Error::Unsupported(text));
        }
        Ok(shape.blocks.map(|n| n as u32))
    }
}
