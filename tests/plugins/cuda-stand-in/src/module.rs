//! Modules: shared libraries that the emulated NVRTC made, loaded from memory.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

use crate::block::{HOST, Host, Thread};
use crate::cards::card;
use crate::codes::{
    Code, INVALID_HANDLE, INVALID_IMAGE, INVALID_PTX, INVALID_VALUE, NO_BINARY_FOR_GPU, NOT_FOUND,
};
use crate::context;
use crate::say;
use crate::shared::thread_locals;
use crate::state::{State, known};
use crate::stream;

/// Shared memory of a block that is not asked for.
pub(crate) const SHARED_UNASKED: usize = 48 << 10;

/// Runs a kernel on one fiber.
pub(crate) type Run = unsafe extern "C" fn(*const *const c_void);

/// `EmuEntry` of `prelude.h`.
#[repr(C)]
struct Entry {
    name: *const c_char,
    run: Run,
    sizes: *const c_uint,
    count: c_uint,
    most_threads: c_int,
}

/// A loaded library.
pub(crate) struct Module {
    library: *mut c_void,
    /// Its bytes, open as long as it is: the loader knows it by this name.
    file: c_int,
    pub(crate) slot: unsafe extern "C" fn() -> *mut *const Thread,
    /// Bytes of its static shared arrays, of all kernels together.
    fixed: usize,
}

// SAFETY: a library's handle and a function.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: both were opened once; whoever runs its code holds it.
        unsafe {
            libc::dlclose(self.library);
            libc::close(self.file);
        }
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub(crate) struct Parameter {
    pub(crate) bytes: usize,
    pub(crate) is_pointer: bool,
}

/// A kernel.
#[derive(Clone)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) module: Arc<Module>,
    handle: usize,
    pub(crate) run: Run,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) most_threads: usize,
    pub(crate) most_shared: usize,
}

/// The length of a 64-bit ELF file, which ends with its section headers.
unsafe fn length(image: *const u8) -> Option<usize> {
    if std::slice::from_raw_parts(image, 4) != b"\x7fELF" {
        return None;
    }
    let offset = image.add(0x28).cast::<u64>().read_unaligned() as usize;
    let size = image.add(0x3A).cast::<u16>().read_unaligned();
    let count = image.add(0x3C).cast::<u16>().read_unaligned();
    Some(offset + usize::from(size) * usize::from(count))
}

unsafe fn symbol(library: *mut c_void, name: &CStr) -> Option<*mut c_void> {
    let found = libc::dlsym(library, name.as_ptr());
    (!found.is_null()).then_some(found)
}

unsafe fn load(image: &[u8], device: c_int) -> Result<Module, Code> {
    let file = libc::memfd_create(c"kernels".as_ptr(), libc::MFD_CLOEXEC);
    let mut rest = image;
    while !rest.is_empty() {
        match usize::try_from(libc::write(file, rest.as_ptr().cast(), rest.len())) {
            Ok(n) if n > 0 => rest = &rest[n..],
            _ => return Err(INVALID_IMAGE),
        }
    }
    let path = CString::new(format!("/proc/self/fd/{file}")).map_err(|_| INVALID_IMAGE)?;
    let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
    if library.is_null() {
        libc::close(file);
        return Err(INVALID_IMAGE);
    }
    let (host, slot, target) =
        (symbol(library, c"emu_host"), symbol(library, c"emu_slot"), symbol(library, c"emu_target"));
    let (Some(host), Some(slot), Some(target)) = (host, slot, target) else {
        libc::dlclose(library);
        libc::close(file);
        return Err(INVALID_IMAGE);
    };
    host.cast::<*const Host>().write(&raw const HOST);
    let slot: unsafe extern "C" fn() -> *mut *const Thread = std::mem::transmute(slot);
    let fixed = thread_locals(slot() as usize).1 - size_of::<usize>();
    let module = Module { library, file, slot, fixed };
    // 890, 900; exactly that one where the architecture's own features are used.
    let [target, exact] = target.cast::<[c_int; 2]>().read();
    let card = card(device)?;
    let has = card.major * 100 + card.minor * 10;
    if target / 100 != card.major || target > has || (exact != 0 && target != has) {
        return Err(NO_BINARY_FOR_GPU);
    }
    Ok(module)
}

driver! {
    fn cuModuleLoadData(module: *mut usize, image: *const u8) {
        let mut state = State::enter()?;
        state.forbid_in_capture()?;
        if image.is_null() {
            return Err(INVALID_VALUE);
        }
        let length = length(image).ok_or(INVALID_PTX)?;
        let loaded = load(std::slice::from_raw_parts(image, length), context::device()?)?;
        let handle = state.handle();
        state.modules.insert(handle, Arc::new(loaded));
        module.write(handle);
        Ok(())
    }

    fn cuModuleUnload(module: usize) {
        if context::device().is_err() {
            say::stop("cuModuleUnload of a module that went with its context");
        }
        let mut state = State::enter()?;
        state.forbid_in_capture()?;
        known(&state.modules, module)?;
        stream::finish_all(&mut state);
        state.functions.retain(|_, function| function.handle != module);
        state.modules.remove(&module).map(|_| ()).ok_or(INVALID_HANDLE)
    }

    fn cuModuleGetFunction(function: *mut usize, module: usize, name: *const c_char) {
        let mut state = State::enter()?;
        let handle = module;
        let module = Arc::clone(known(&state.modules, handle)?);
        let wanted = CStr::from_ptr(name);
        let entries = symbol(module.library, c"emu_entries").ok_or(NOT_FOUND)?.cast::<Entry>();
        let count = symbol(module.library, c"emu_entry_count").ok_or(NOT_FOUND)?.cast::<c_uint>().read();
        let entries = std::slice::from_raw_parts(entries, count as usize);
        let entry = entries.iter().find(|entry| CStr::from_ptr(entry.name) == wanted).ok_or(NOT_FOUND)?;
        let sizes = std::slice::from_raw_parts(entry.sizes, entry.count as usize);
        let parameter = |size: &c_uint| Parameter { bytes: (size & 0x7FFF_FFFF) as usize, is_pointer: size >> 31 == 1 };
        let parameters = sizes.iter().map(parameter).collect();
        let name = wanted.to_string_lossy().into_owned();
        let most_threads = entry.most_threads as usize;
        let run = entry.run;
        let most_shared = SHARED_UNASKED;
        let made = state.handle();
        state.functions.insert(made, Function { name, module, handle, run, parameters, most_threads, most_shared });
        function.write(made);
        Ok(())
    }

    fn cuFuncSetAttribute(function: usize, attribute: c_int, value: c_int) {
        let mut state = State::enter()?;
        let most = card(context::device()?)?.shared_opt_in;
        let function = state.functions.get_mut(&function).ok_or(INVALID_HANDLE)?;
        match attribute {
            8 if (0..=most).contains(&value) => function.most_shared = value as usize,
            // The carve-out is a hint.
            9 if (-1..=100).contains(&value) => {}
            _ => return Err(INVALID_VALUE),
        }
        Ok(())
    }

    fn cuFuncGetAttribute(value: *mut c_int, attribute: c_int, function: usize) {
        let state = State::enter()?;
        let function = known(&state.functions, function)?;
        value.write(match attribute {
            0 => function.most_threads as c_int,
            1 => function.module.fixed as c_int,
            2 | 3 | 7 => 0,
            4 => crate::nvrtc::REGISTERS as c_int,
            5 | 6 => card(context::device()?)?.major * 10 + card(context::device()?)?.minor,
            8 => function.most_shared as c_int,
            9 => -1,
            _ => return Err(INVALID_VALUE),
        });
        Ok(())
    }
}
