//! A card: its primary context, one stream, and what has been compiled for it.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};

use crate::error::check;
use crate::launch::{Kernel, Module};
use crate::library::Needed;
use crate::staging::Staging;
use crate::{Error, Memory, Result, Source, cache};

/// What kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// L4, L40S, RTX 40: compute capability 8.9.
    Ada,
    /// H100, H200: compute capability 9.0.
    Hopper,
}

impl Architecture {
    /// All, the oldest first.
    pub const ALL: [Self; 2] = [Self::Ada, Self::Hopper];

    /// The name that NVRTC knows. `sm_90a` has what only Hopper has.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ada => "sm_89",
            Self::Hopper => "sm_90a",
        }
    }
}

/// What a card says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Its name.
    pub name: String,
    /// What to compile for.
    pub architecture: Architecture,
    /// Whether it has the products of Hopper's warp groups, and what goes with them.
    pub warp_groups: bool,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of shared memory that a block may ask for.
    pub shared_memory: u32,
    /// Bytes of memory.
    pub memory: usize,
    /// The newest CUDA that its driver knows, major first.
    pub cuda: (u32, u32),
}

/// A card and a stream of it. Clones are the same.
#[derive(Clone, Debug)]
pub struct Card(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ordinal: usize,
    device: c_int,
    context: Handle,
    stream: Handle,
    /// Whether the stream is destroyed with this.
    owns_stream: bool,
    properties: Properties,
    modules: Mutex<HashMap<&'static str, Arc<Module>>>,
    /// For large copies; there once one was asked for.
    staging: Mutex<Option<Staging>>,
}

/// An object of the driver, which any thread may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Handle(usize);

impl Handle {
    fn of<T>(pointer: *mut T) -> Self {
        Self(pointer.expose_provenance())
    }

    fn get<T>(self) -> *mut T {
        std::ptr::with_exposed_provenance_mut(self.0)
    }
}

impl Card {
    /// How many cards the driver shows.
    pub fn count() -> Result<usize> {
        start()?;
        let mut count = 0;
        // SAFETY: a place for an int; the driver has started.
        check("cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&raw mut count) })?;
        Ok(count.max(0) as usize)
    }

    /// The card of this number, with a stream of its own. Libraries other than the driver are looked for when they are
    /// needed.
    pub fn open(ordinal: usize) -> Result<Self> {
        Self::with_stream(ordinal, None)
    }

    /// The card of this number and a stream that somebody else made and keeps (a `CUstream`): what a plugin is given.
    pub fn on_stream(ordinal: usize, stream: u64) -> Result<Self> {
        Self::with_stream(ordinal, Some(Handle(stream as usize)))
    }

    fn with_stream(ordinal: usize, stream: Option<Handle>) -> Result<Self> {
        let count = Self::count()?;
        if ordinal >= count {
            return Err(Error::NoCard { ordinal, count });
        }
        let mut device = 0;
        // SAFETY: a place for an int; the ordinal is below the count.
        check("cuDeviceGet", unsafe { sys::cuDeviceGet(&raw mut device, ordinal as c_int) })?;
        let properties = properties(device)?;
        let mut context = std::ptr::null_mut();
        // SAFETY: a place for a pointer; the device was just given by the driver. The primary context is shared by all
        // that use the card in this process, and released when the last has gone.
        check("cuDevicePrimaryCtxRetain", unsafe {
            sys::cuDevicePrimaryCtxRetain(&raw mut context, device)
        })?;
        // SAFETY: the context was just retained.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(context) })?;
        let owns_stream = stream.is_none();
        let stream = stream.map_or_else(new_stream, Ok)?;
        Ok(Self(Arc::new(Inner {
            ordinal,
            device,
            context: Handle::of(context),
            stream,
            owns_stream,
            properties,
            modules: Mutex::default(),
            staging: Mutex::default(),
        })))
    }

    /// Its number.
    pub fn ordinal(&self) -> usize {
        self.0.ordinal
    }

    /// What it says about itself.
    pub fn properties(&self) -> &Properties {
        &self.0.properties
    }

    /// The stream, as a number that crosses borders (a `CUstream`).
    pub fn stream_id(&self) -> u64 {
        self.0.stream.0 as u64
    }

    pub(crate) fn stream(&self) -> sys::CUstream {
        self.0.stream.get()
    }

    /// Makes the card current on this thread, as every call of the driver needs.
    pub(crate) fn bind(&self) -> Result<()> {
        // SAFETY: the context is retained as long as this lives.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.0.context.get()) })
    }

    /// Makes no card current on this thread, as on one that has never asked the driver for anything.
    pub fn leave(&self) -> Result<()> {
        // SAFETY: no context is one that can be made current.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(std::ptr::null_mut()) })
    }

    /// Waits until all that was asked of the stream is done; an error is of anything that was asked since the last wait.
    pub fn synchronize(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream lives as long as this.
        check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.stream()) })
    }

    /// Copies something large by way of pinned memory. The card is current.
    pub(crate) fn staged(&self, copy: impl FnOnce(&Staging, sys::CUstream) -> Result<()>) -> Result<()> {
        let mut staging = self.0.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if staging.is_none() {
            *staging = Some(Staging::new()?);
        }
        staging.as_ref().map_or(Ok(()), |staging| copy(staging, self.stream()))
    }

    /// Free and all bytes of its memory.
    pub fn memory_info(&self) -> Result<(usize, usize)> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: places for two sizes, and a current context.
        check("cuMemGetInfo", unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) })?;
        Ok((free, total))
    }

    /// `bytes` of its memory, as they are.
    pub fn take(&self, bytes: usize) -> Result<Memory> {
        Memory::take(self, bytes)
    }

    /// The entry point `entry` of `source`, compiled for this card if it never was.
    pub fn kernel(&self, source: Source, entry: &str) -> Result<Kernel> {
        self.bind()?;
        let mut modules = self.0.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(source.name) {
            return module.kernel(self, entry);
        }
        let cubin = cache::cubin(source, self.properties().architecture)?;
        let module = Arc::new(Module::load(source.name, &cubin)?);
        modules.insert(source.name, module.clone());
        module.kernel(self, entry)
    }
}

impl fmt::Display for Card {
    /// `cuda:0 (NVIDIA H100 80GB HBM3, sm_90a)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Properties { name, architecture, .. } = self.properties();
        write!(f, "cuda:{} ({name}, {})", self.ordinal(), architecture.name())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: the context is retained until the last line, and current where it is needed; the stream is destroyed
        // by whom it was made, so that one of somebody else's may be gone by now: all streams are waited for then.
        // Errors of a card that is lost have nobody left to hear of them.
        unsafe {
            sys::cuCtxSetCurrent(self.context.get());
            if self.owns_stream {
                sys::cuStreamSynchronize(self.stream.get());
            } else {
                sys::cuCtxSynchronize();
            }
            self.modules.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
            self.staging.get_mut().unwrap_or_else(PoisonError::into_inner).take();
            if self.owns_stream {
                sys::cuStreamDestroy_v2(self.stream.get());
            }
            sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

/// A stream of the current context, which waits for no other.
fn new_stream() -> Result<Handle> {
    let mut stream = std::ptr::null_mut();
    let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING;
    // SAFETY: a place for a pointer.
    check("cuStreamCreate", unsafe { sys::cuStreamCreate(&raw mut stream, flags as u32) })?;
    Ok(Handle::of(stream))
}

/// Starts the driver.
fn start() -> Result<()> {
    Needed::Driver.open()?;
    // SAFETY: the flags must be 0; starting again does nothing.
    check("cuInit", unsafe { sys::cuInit(0) })
}

fn properties(device: c_int) -> Result<Properties> {
    let attribute = |which| {
        let mut value = 0;
        // SAFETY: a place for an int; the device was given by the driver.
        let code = unsafe { sys::cuDeviceGetAttribute(&raw mut value, which, device) };
        check("cuDeviceGetAttribute", code).map(|()| value.max(0) as u32)
    };
    let mut name: [c_char; 256] = [0; 256];
    // SAFETY: the length is that of the array, less a byte that stays zero.
    let code = unsafe { sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int - 1, device) };
    check("cuDeviceGetName", code)?;
    // SAFETY: the last byte is zero.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().replace(char::is_control, " ");
    let mut memory = 0;
    // SAFETY: a place for a size.
    check("cuDeviceTotalMem", unsafe { sys::cuDeviceTotalMem_v2(&raw mut memory, device) })?;
    let mut cuda = 0;
    // SAFETY: a place for an int.
    check("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&raw mut cuda) })?;
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let architecture = match (major, minor) {
        (8, 9) => Architecture::Ada,
        (9, 0) => Architecture::Hopper,
        (..=8, _) => return Err(Error::TooOld { name, major, minor }),
        _ => {
            let text =
                format!("{name} has compute capability {major}.{minor}; kernels are written for 8.9 and 9.0");
            return Err(Error::Unsupported(text));
        }
    };
    Ok(Properties {
        name,
        architecture,
        // Tensor maps came to cards together with those products, which no attribute tells of.
        warp_groups: architecture == Architecture::Hopper
            && attribute(Attribute::CU_DEVICE_ATTRIBUTE_TENSOR_MAP_ACCESS_SUPPORTED)? != 0,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_memory: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        memory,
        cuda: ((cuda / 1000).max(0) as u32, (cuda % 1000 / 10).max(0) as u32),
    })
}
