//! Streams, events, graphs, modules, and the compiler's log.

use std::ffi::{c_char, c_int, c_uint};

use crate::rig::{Arg, Rig, call};

const ADD: &str = r#"
extern "C" __global__ void add(float* x, float y, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] += y;
}
"#;

const OPTIONS: [&str; 3] = ["--gpu-architecture=sm_90a", "--std=c++17", "--fmad=false"];

#[test]
fn work_is_done_when_somebody_waits() {
    let Some(rig) = Rig::take() else { return };
    let kernel = rig.kernel(ADD, "add");
    let x = rig.give(&[1.0_f32; 8]);
    let mut pinned = 0_usize;
    assert_eq!(call!(rig, cuMemHostAlloc(&raw mut pinned => *mut usize, 32 => usize, 0 => c_uint)), 0);
    let host = pinned as *mut [f32; 8];
    // SAFETY: page-locked memory of that size.
    unsafe { host.write([0.0; 8]) };
    assert_eq!(rig.launch(kernel, 1, 8, 0, &[Arg::Pointer(x), Arg::F32(2.0), Arg::U32(8)]), 0);
    let code =
        call!(rig, cuMemcpyDtoHAsync_v2(pinned => usize, x => usize, 32 => usize, rig.stream => usize));
    assert_eq!(code, 0);
    assert_eq!(call!(rig, cuStreamQuery(rig.stream => usize)), 600);
    // SAFETY: as above.
    assert_eq!(unsafe { host.read() }, [0.0; 8], "nobody has waited");
    assert_eq!(rig.wait(), 0);
    // SAFETY: as above.
    assert_eq!(unsafe { host.read() }, [3.0; 8]);
    assert_eq!(call!(rig, cuStreamQuery(rig.stream => usize)), 0);
    assert_eq!(call!(rig, cuMemFreeHost(pinned => usize)), 0);
}

#[test]
fn page_locked_memory_is_read_when_the_copy_runs_and_other_memory_at_the_call() {
    let Some(rig) = Rig::take() else { return };
    let (x, y) = (rig.alloc(4), rig.alloc(4));
    let mut pinned = 0_usize;
    assert_eq!(call!(rig, cuMemHostAlloc(&raw mut pinned => *mut usize, 4 => usize, 0 => c_uint)), 0);
    let mut pageable = [1_u32];
    // SAFETY: page-locked memory of that size.
    unsafe { (pinned as *mut u32).write(1) };
    let code = call!(rig, cuMemcpyHtoDAsync_v2(x => usize, pinned => usize, 4 => usize, rig.stream => usize));
    assert_eq!((code, rig.write(y, &pageable)), (0, 0));
    // SAFETY: as above.
    unsafe { (pinned as *mut u32).write(2) };
    pageable[0] = 2;
    assert_eq!((rig.read::<u32>(x, 1), rig.read::<u32>(y, 1)), (vec![2], vec![1]));
    assert_eq!(pageable, [2]);
    assert_eq!(call!(rig, cuMemFreeHost(pinned => usize)), 0);
}

#[test]
fn fresh_memory_is_full_of_ones_and_fills_fill() {
    let Some(rig) = Rig::take() else { return };
    let x = rig.alloc(12);
    assert_eq!(rig.read::<u32>(x, 3), [u32::MAX; 3]);
    let stream = rig.stream;
    assert_eq!(call!(rig, cuMemsetD8Async(x => usize, 7 => u8, 12 => usize, stream => usize)), 0);
    assert_eq!(call!(rig, cuMemsetD32Async(x + 4 => usize, 9 => u32, 1 => usize, stream => usize)), 0);
    assert_eq!(rig.read::<u32>(x, 3), [0x0707_0707, 9, 0x0707_0707]);
}

#[test]
fn streams_wait_for_each_other_through_events_alone() {
    let Some(rig) = Rig::take() else { return };
    let kernel = rig.kernel(ADD, "add");
    let (mut other, mut start, mut end) = (0_usize, 0_usize, 0_usize);
    assert_eq!(call!(rig, cuStreamCreate(&raw mut other => *mut usize, 1 => c_uint)), 0);
    for event in [&mut start, &mut end] {
        assert_eq!(call!(rig, cuEventCreate(&raw mut *event => *mut usize, 0 => c_uint)), 0);
    }
    let x = rig.give(&[1.0_f32]);
    assert_eq!(call!(rig, cuEventRecord(start => usize, rig.stream => usize)), 0);
    assert_eq!(rig.launch(kernel, 1, 1, 0, &[Arg::Pointer(x), Arg::F32(1.0), Arg::U32(1)]), 0);
    // A copy in the other stream that waits for nothing comes too early.
    let mut seen = [0.0_f32; 2];
    let read = |to: *mut f32| call!(rig, cuMemcpyDtoHAsync_v2(to => *mut f32, x => usize, 4 => usize, other => usize));
    assert_eq!(read(&raw mut seen[0]), 0);
    assert_eq!(call!(rig, cuEventRecord(end => usize, rig.stream => usize)), 0);
    let mut milliseconds = 0.0_f32;
    let elapsed =
        |to: *mut f32| call!(rig, cuEventElapsedTime_v2(to => *mut f32, start => usize, end => usize));
    assert_eq!(elapsed(&raw mut milliseconds), 600);
    assert_eq!(call!(rig, cuStreamWaitEvent(other => usize, end => usize, 0 => c_uint)), 0);
    assert_eq!(read(&raw mut seen[1]), 0);
    assert!(seen[0].is_nan(), "not yet written: {seen:?}");
    assert_eq!(seen[1], 2.0);
    assert_eq!(elapsed(&raw mut milliseconds), 0);
    assert!(milliseconds >= 0.0);
    assert_eq!(call!(rig, cuStreamDestroy_v2(other => usize)), 0);
    assert_eq!(call!(rig, cuStreamSynchronize(other => usize)), 400);
}

#[test]
fn a_graph_does_what_was_recorded_again_and_again() {
    let Some(rig) = Rig::take() else { return };
    let kernel = rig.kernel(ADD, "add");
    let (x, y) = (rig.give(&[1.0_f32; 4]), rig.alloc(16));
    assert_eq!(rig.wait(), 0);
    let (mut graph, mut executable) = (0_usize, 0_usize);
    let stream = rig.stream;
    assert_eq!(call!(rig, cuStreamBeginCapture_v2(stream => usize, 1 => c_int)), 0);
    assert_eq!(rig.launch(kernel, 1, 4, 0, &[Arg::Pointer(x), Arg::F32(1.0), Arg::U32(4)]), 0);
    let copy = || call!(rig, cuMemcpyDtoDAsync_v2(y => usize, x => usize, 16 => usize, stream => usize));
    assert_eq!(copy(), 0);
    assert_eq!(call!(rig, cuStreamEndCapture(stream => usize, &raw mut graph => *mut usize)), 0);
    assert_eq!(rig.read::<f32>(x, 4), [1.0; 4], "recorded, not done");
    let code =
        call!(rig, cuGraphInstantiateWithFlags(&raw mut executable => *mut usize, graph => usize, 0 => u64));
    assert_eq!(code, 0);
    assert_eq!(call!(rig, cuGraphDestroy(graph => usize)), 0);
    for _ in 0..3 {
        assert_eq!(call!(rig, cuGraphLaunch(executable => usize, stream => usize)), 0);
    }
    assert_eq!(rig.read::<f32>(y, 4), [4.0; 4]);
    assert_eq!(call!(rig, cuGraphExecDestroy(executable => usize)), 0);
    assert_eq!(call!(rig, cuGraphLaunch(executable => usize, stream => usize)), 400);
}

#[test]
fn what_may_not_be_called_while_a_stream_is_captured_spoils_the_capture() {
    let Some(rig) = Rig::take() else { return };
    let stream = rig.stream;
    let (x, mut graph) = (rig.alloc(4), 1_usize);
    let begin = || assert_eq!(call!(rig, cuStreamBeginCapture_v2(stream => usize, 1 => c_int)), 0);
    let mut spoilt = |code: c_int, what: &str| {
        assert_eq!(code, 900, "{what}");
        assert_eq!(
            call!(rig, cuStreamEndCapture(stream => usize, &raw mut graph => *mut usize)),
            901,
            "{what}"
        );
        assert_eq!(graph, 0);
    };
    begin();
    spoilt(rig.wait(), "a wait");
    begin();
    spoilt(call!(rig, cuMemAlloc_v2(&raw const x => *const usize, 4 => usize)), "an allocation");
    begin();
    spoilt(rig.write(x, &[1_u32]), "a copy from pageable memory");
    assert_eq!(call!(rig, cuStreamEndCapture(stream => usize, &raw mut graph => *mut usize)), 903);
}

#[test]
fn a_source_that_is_wrong_comes_back_with_file_and_line() {
    let Some(rig) = Rig::take() else { return };
    let (code, cubin, log) = rig.compile("#include \"types.cuh\"\n\nint f() { return nothing; }\n", &OPTIONS);
    assert_eq!((code, cubin.len()), (6, 0));
    assert!(log.contains("test.cu:3:") && log.contains("nothing"), "{log}");
    let (code, _, log) = rig.compile("#include <cstdint>\n", &OPTIONS);
    assert_eq!(code, 6, "a card has no standard library");
    assert!(log.contains("cstdint"), "{log}");
    let (code, _, log) = rig.compile(
        "extern \"C\" __device__ float missing(float);\nextern \"C\" __global__ void k(float* x) { *x = missing(*x); }",
        &OPTIONS,
    );
    assert_eq!(code, 6, "{log}");
}

#[test]
fn options_that_nvrtc_does_not_know_are_refused() {
    let Some(rig) = Rig::take() else { return };
    for option in ["--nope", "--gpu-architecture=sm_90z", "--std=c++99", "-O3", "--use_fast_math"] {
        let (code, _, log) = rig.compile(ADD, &[option]);
        assert_eq!(code, 5, "{option}");
        assert!(log.starts_with("nvrtc: error: "), "{log}");
    }
}

#[test]
fn the_log_tells_of_every_kernel_and_macros_are_seen() {
    let Some(rig) = Rig::take() else { return };
    let source = "#define KERNEL(name) extern \"C\" __global__ void __launch_bounds__(N, 2) name\n#if __CUDA_ARCH__ >= 900\n\
                  KERNEL(two)(float* x) { *x = N; }\n#else\nKERNEL(three)(float* x) {}\n#endif\n\
                  /* extern \"C\" __global__ void no(float* x) {} */\n";
    let options = [&OPTIONS[..], &["--ptxas-options=-v", "-DN=64"]].concat();
    let (code, _, log) = rig.compile(source, &options);
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("Compiling entry function 'two' for 'sm_90a'\n"), "{log}");
    assert!(!log.contains("three") && !log.contains("no'"), "{log}");
    assert!(
        log.contains("0 bytes spill stores, 0 bytes spill loads") && log.contains(" registers, used "),
        "{log}"
    );
    let virtually = rig.compile(ADD, &["--gpu-architecture=compute_90"]);
    assert_eq!((virtually.0, virtually.1.len()), (0, 0), "no machine code for a virtual architecture");
}

#[test]
fn machine_code_is_for_its_own_card() {
    let Some(rig) = Rig::take() else { return };
    let load = |cubin: &[u8]| {
        let mut module = 0_usize;
        call!(rig, cuModuleLoadData(&raw mut module => *mut usize, cubin.as_ptr() => *const u8))
    };
    let (_, hopper, _) = rig.compile(ADD, &OPTIONS);
    let (_, ada, _) = rig.compile(ADD, &["--gpu-architecture=sm_89"]);
    assert_eq!((load(&hopper), load(&ada)), (0, 209));
    assert_eq!(call!(rig, cuCtxSetCurrent(rig.context(1) => usize)), 0);
    assert_eq!((load(&hopper), load(&ada)), (209, 0));
    assert_eq!(load(b".version 8.8\n.target sm_90a\n"), 218);
}

#[test]
fn kernels_are_known_by_name_and_die_with_their_module() {
    let Some(rig) = Rig::take() else { return };
    let (_, cubin, _) = rig.compile(ADD, &OPTIONS);
    let (mut module, mut function, mut value) = (0_usize, 0_usize, 0);
    assert_eq!(call!(rig, cuModuleLoadData(&raw mut module => *mut usize, cubin.as_ptr() => *const u8)), 0);
    let mut find = |name: &std::ffi::CStr| call!(rig, cuModuleGetFunction(&raw mut function => *mut usize, module => usize, name.as_ptr() => *const c_char));
    assert_eq!((find(c"ad"), find(c"add")), (500, 0));
    assert_eq!(
        call!(rig, cuFuncGetAttribute(&raw mut value => *mut c_int, 0 => c_int, function => usize)),
        0
    );
    assert_eq!(value, 1024);
    assert_eq!(call!(rig, cuModuleUnload(module => usize)), 0);
    assert_eq!(rig.launch(function, 1, 1, 0, &[]), 400);
}

#[test]
fn a_card_tells_its_numbers() {
    let Some(rig) = Rig::take() else { return };
    let number = |attribute: c_int, device: c_int| {
        let mut value = 0;
        assert_eq!(
            call!(rig, cuDeviceGetAttribute(&raw mut value => *mut c_int, attribute => c_int, device => c_int)),
            0
        );
        value
    };
    let numbers = [75, 76, 16, 97, 10, 38].map(|attribute| (number(attribute, 0), number(attribute, 1)));
    assert_eq!(numbers, [(9, 8), (0, 9), (132, 128), (227 << 10, 99 << 10), (32, 32), (50 << 20, 72 << 20)]);
}
