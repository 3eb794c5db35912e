//! A card of the emulated driver, called as C calls it.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libloading::Library;

/// The headers that sources may include.
const HEADERS: [(&str, &str); 2] = [
    ("types.cuh", include_str!("../../../../../sdk/cuda/src/kernels/types.cuh")),
    ("ptx.cuh", include_str!("../../../../../sdk/cuda/src/kernels/ptx.cuh")),
];

/// A driver with a current context on a Hopper.
pub(crate) struct Rig {
    library: Library,
    pub(crate) stream: usize,
}

/// Calls a function of the library by name; the types of the arguments are those that stand there.
macro_rules! call {
    ($rig:expr, $name:ident($($arg:expr => $type:ty),* $(,)?)) => {
        unsafe { ($rig.symbol::<unsafe extern "C" fn($($type),*) -> std::ffi::c_int>(stringify!($name)))($($arg),*) }
    };
}
pub(crate) use call;

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub(crate) enum Arg {
    Pointer(usize),
    U32(u32),
    U64(u64),
    F32(f32),
}

impl Arg {
    fn place(&self) -> *const c_void {
        match self {
            Self::Pointer(x) => std::ptr::from_ref(x).cast(),
            Self::U32(x) => std::ptr::from_ref(x).cast(),
            Self::U64(x) => std::ptr::from_ref(x).cast(),
            Self::F32(x) => std::ptr::from_ref(x).cast(),
        }
    }
}

pub(crate) fn compiler() -> bool {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    Command::new(compiler).arg("--version").output().is_ok()
}

impl Rig {
    /// One for all tests of this process, one test at a time; none where nothing can be compiled, which is said.
    pub(crate) fn take() -> Option<MutexGuard<'static, Self>> {
        static RIG: OnceLock<Option<Mutex<Rig>>> = OnceLock::new();
        let rig = RIG.get_or_init(|| {
            if !compiler() {
                println!("skipped: there is no C++ compiler to emulate a card with");
                return None;
            }
            // SAFETY: nothing else reads it but the library, which is loaded below.
            unsafe { std::env::set_var("FP8FLOW_TEST_CARDS", "hopper,ada") };
            Some(Mutex::new(Self::new()))
        });
        let rig = rig.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let context = rig.context(0);
        assert_eq!(call!(rig, cuCtxSetCurrent(context => usize)), 0);
        Some(rig)
    }

    fn new() -> Self {
        let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let path: PathBuf = folder.join("libcuda_stand_in.so");
        // SAFETY: the library under test.
        let library = unsafe { Library::new(path).unwrap() };
        let mut rig = Self { library, stream: 0 };
        assert_eq!(call!(rig, cuInit(0 => c_uint)), 0);
        let context = rig.context(0);
        assert_eq!(call!(rig, cuCtxSetCurrent(context => usize)), 0);
        let mut stream = 0_usize;
        assert_eq!(call!(rig, cuStreamCreate(&raw mut stream => *mut usize, 1 => c_uint)), 0);
        rig.stream = stream;
        rig
    }

    pub(crate) fn symbol<T: Copy>(&self, name: &str) -> T {
        // SAFETY: the caller says what type it has.
        unsafe { *self.library.get::<T>(name.as_bytes()).unwrap() }
    }

    /// The primary context of a card.
    pub(crate) fn context(&self, device: c_int) -> usize {
        let mut context = 0_usize;
        assert_eq!(call!(self, cuDevicePrimaryCtxRetain(&raw mut context => *mut usize, device => c_int)), 0);
        context
    }

    /// Compiles; the log in any case.
    pub(crate) fn compile(&self, source: &str, options: &[&str]) -> (c_int, Vec<u8>, String) {
        let c = |text: &str| CString::new(text).unwrap();
        let (source, name) = (c(source), c("test.cu"));
        let (names, texts): (Vec<_>, Vec<_>) = HEADERS.iter().map(|(name, text)| (c(name), c(text))).unzip();
        let pointers =
            |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<*const c_char>>();
        let mut program = 0_usize;
        let code = call!(self, nvrtcCreateProgram(
            &raw mut program => *mut usize, source.as_ptr() => *const c_char, name.as_ptr() => *const c_char,
            HEADERS.len() as c_int => c_int, pointers(&texts).as_ptr() => *const *const c_char,
            pointers(&names).as_ptr() => *const *const c_char,
        ));
        assert_eq!(code, 0);
        let options: Vec<CString> = options.iter().map(|option| c(option)).collect();
        let code = call!(self, nvrtcCompileProgram(
            program => usize, options.len() as c_int => c_int, pointers(&options).as_ptr() => *const *const c_char,
        ));
        let read = |size: &str, get: &str| {
            let mut len = 0_usize;
            let size: unsafe extern "C" fn(usize, *mut usize) -> c_int = self.symbol(size);
            let get: unsafe extern "C" fn(usize, *mut u8) -> c_int = self.symbol(get);
            // SAFETY: a live program, and as much room as it asks for.
            unsafe {
                assert_eq!(size(program, &raw mut len), 0);
                let mut bytes = vec![0_u8; len];
                assert_eq!(get(program, bytes.as_mut_ptr()), 0);
                bytes
            }
        };
        let cubin = read("nvrtcGetCUBINSize", "nvrtcGetCUBIN");
        let log = read("nvrtcGetProgramLogSize", "nvrtcGetProgramLog");
        assert_eq!(call!(self, nvrtcDestroyProgram(&raw mut program => *mut usize)), 0);
        (code, cubin, String::from_utf8(log).unwrap().trim_end_matches('\0').to_owned())
    }

    /// A kernel of a source that must compile.
    pub(crate) fn kernel(&self, source: &str, name: &str) -> usize {
        let options = ["--gpu-architecture=sm_90a", "--std=c++17", "--fmad=false"];
        let (code, cubin, log) = self.compile(source, &options);
        assert_eq!(code, 0, "{log}");
        let (mut module, mut function) = (0_usize, 0_usize);
        assert_eq!(
            call!(self, cuModuleLoadData(&raw mut module => *mut usize, cubin.as_ptr() => *const u8)),
            0
        );
        let name = CString::new(name).unwrap();
        let code = call!(self, cuModuleGetFunction(
            &raw mut function => *mut usize, module => usize, name.as_ptr() => *const c_char,
        ));
        assert_eq!(code, 0);
        function
    }

    /// Asks for a launch.
    pub(crate) fn launch(
        &self,
        function: usize,
        blocks: u32,
        threads: u32,
        shared: u32,
        args: &[Arg],
    ) -> c_int {
        let places: Vec<*const c_void> = args.iter().map(Arg::place).collect();
        call!(self, cuLaunchKernel(
            function => usize, blocks => c_uint, 1 => c_uint, 1 => c_uint, threads => c_uint, 1 => c_uint, 1 => c_uint,
            shared => c_uint, self.stream => usize, places.as_ptr() => *const *const c_void, 0 => usize,
        ))
    }

    /// Memory of the card with these contents.
    pub(crate) fn give<T: Copy>(&self, data: &[T]) -> usize {
        let address = self.alloc(size_of_val(data));
        assert_eq!(self.write(address, data), 0);
        address
    }

    pub(crate) fn alloc(&self, bytes: usize) -> usize {
        let mut address = 0_usize;
        assert_eq!(call!(self, cuMemAlloc_v2(&raw mut address => *mut usize, bytes => usize)), 0);
        address
    }

    pub(crate) fn write<T: Copy>(&self, to: usize, data: &[T]) -> c_int {
        call!(self, cuMemcpyHtoDAsync_v2(
            to => usize, data.as_ptr() => *const T, size_of_val(data) => usize, self.stream => usize,
        ))
    }

    /// What lies there, after all work of the stream.
    pub(crate) fn read<T: Copy + Default>(&self, from: usize, count: usize) -> Vec<T> {
        let mut data = vec![T::default(); count];
        let bytes = size_of_val(data.as_slice());
        let code = call!(self, cuMemcpyDtoHAsync_v2(
            data.as_mut_ptr() => *mut T, from => usize, bytes => usize, self.stream => usize,
        ));
        assert_eq!(code, 0);
        data
    }

    pub(crate) fn wait(&self) -> c_int {
        call!(self, cuStreamSynchronize(self.stream => usize))
    }
}

/// Runs the test `name` of this binary once more in a process that may die, and gives what it left.
pub(crate) fn in_child(name: &str) -> Option<Output> {
    if !compiler() {
        println!("skipped: there is no C++ compiler to emulate a card with");
        return None;
    }
    let arguments = [name, "--exact", "--ignored", "--nocapture", "--test-threads=1"];
    Some(Command::new(std::env::current_exe().unwrap()).args(arguments).output().unwrap())
}

/// The same, where the process has to end with these words.
pub(crate) fn dies(name: &str, words: &[&str]) {
    let Some(output) = in_child(name) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{name} lives: {said}");
    for word in words {
        assert!(said.contains(word), "{name} says nothing of {word:?}: {said}");
    }
}
