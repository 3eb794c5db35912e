//! Mistakes that the emulated card finds: an error where CUDA gives one, else the end of the process, in a child here.

use std::ffi::{c_int, c_uint};

use crate::rig::{Arg, Rig, call, dies};

#[test]
fn nothing_works_without_a_context() {
    let Some(rig) = Rig::take() else { return };
    assert_eq!(call!(rig, cuCtxSetCurrent(0 => usize)), 0);
    let mut x = 0_usize;
    assert_eq!(call!(rig, cuMemAlloc_v2(&raw mut x => *mut usize, 4 => usize)), 201);
    assert_eq!(call!(rig, cuStreamCreate(&raw mut x => *mut usize, 0 => c_uint)), 201);
    assert_eq!(rig.wait(), 201);
    assert_eq!(call!(rig, cuCtxSetCurrent(77 => usize)), 201);
    let elsewhere = std::thread::scope(|scope| scope.spawn(|| rig.wait()).join().unwrap());
    assert_eq!(elsewhere, 201, "a context is current in one thread");
}

#[test]
fn ranges_outside_an_allocation_are_refused() {
    let Some(rig) = Rig::take() else { return };
    let x = rig.alloc(100);
    let host = [0_u8; 200];
    assert_eq!(rig.write(x, &host[..100]), 0);
    assert_eq!(rig.write(x, &host[..101]), 1);
    assert_eq!(rig.write(x + 50, &host[..51]), 1);
    assert_eq!(rig.write(x - 1, &host[..1]), 1);
    let fill = |at: usize, n: usize| call!(rig, cuMemsetD32Async(at => usize, 0 => u32, n => usize, rig.stream => usize));
    assert_eq!((fill(x, 25), fill(x, 26), fill(x + 2, 1)), (0, 1, 1));
    let copy = |to: usize, from: usize| call!(rig, cuMemcpyDtoDAsync_v2(to => usize, from => usize, 10 => usize, rig.stream => usize));
    assert_eq!((copy(x, x + 10), copy(x, x + 9), copy(x, host.as_ptr().addr())), (0, 1, 1));
    assert_eq!(
        call!(rig, cuMemcpyHtoDAsync_v2(x => usize, x + 50 => usize, 4 => usize, rig.stream => usize)),
        1
    );
    assert_eq!(call!(rig, cuMemFree_v2(x + 4 => usize)), 1);
    assert_eq!(call!(rig, cuMemFree_v2(x => usize)), 0);
    assert_eq!(call!(rig, cuMemFree_v2(x => usize)), 1);
    assert_eq!(rig.write(x, &host[..100]), 1);
    assert_eq!(x % 256, 0);
}

#[test]
fn memory_ends() {
    let Some(rig) = Rig::take() else { return };
    let (mut x, mut free, mut total) = (0_usize, 0_usize, 0_usize);
    let mut info = || {
        assert_eq!(call!(rig, cuMemGetInfo_v2(&raw mut free => *mut usize, &raw mut total => *mut usize)), 0);
        (free, total)
    };
    let (before, total) = info();
    assert_eq!(call!(rig, cuMemAlloc_v2(&raw mut x => *mut usize, total + 1 => usize)), 2);
    let x = rig.alloc(1000);
    assert_eq!(before - info().0, 1000);
    assert_eq!(call!(rig, cuMemFree_v2(x => usize)), 0);
    assert_eq!(info().0, before);
}

#[test]
fn launches_over_the_limits_are_refused() {
    let Some(rig) = Rig::take() else { return };
    let source = "extern \"C\" __global__ void any(float* x) {}\nextern \"C\" __global__ void __launch_bounds__(64, 2) few(float* x) {}";
    let (any, few) = (rig.kernel(source, "any"), rig.kernel(source, "few"));
    let x = rig.alloc(4);
    let launch =
        |kernel, blocks, threads, shared| rig.launch(kernel, blocks, threads, shared, &[Arg::Pointer(x)]);
    assert_eq!(
        (launch(any, 1, 1024, 0), launch(any, 1, 1025, 0), launch(any, 1, 0, 0), launch(any, 0, 1, 0)),
        (0, 1, 1, 1)
    );
    assert_eq!((launch(few, 1, 64, 0), launch(few, 1, 65, 0)), (0, 1));
    let most = 227 << 10;
    let allow = |bytes: c_int| call!(rig, cuFuncSetAttribute(any => usize, 8 => c_int, bytes => c_int));
    assert_eq!((launch(any, 1, 1, 48 << 10), launch(any, 1, 1, (48 << 10) + 1)), (0, 1));
    assert_eq!((allow(most + 1), allow(most)), (1, 0));
    assert_eq!((launch(any, 1, 1, most as u32), launch(any, 1, 1, most as u32 + 1)), (0, 1));
    assert_eq!(rig.wait(), 0);
    // A pointer to nothing on the card, and one past the end of something.
    let host = 0.0_f32;
    assert_eq!(rig.launch(any, 1, 1, 0, &[Arg::Pointer((&raw const host).addr())]), 700);
    assert_eq!(rig.launch(any, 1, 1, 0, &[Arg::Pointer(x + 4)]), 0);
    assert_eq!(rig.wait(), 0);
}

/// A test that ends its process, and the words that it ends with.
macro_rules! dying {
    ($($name:ident, $child:ident: $words:expr => |$rig:ident| $body:block)*) => {$(
        #[test]
        fn $name() {
            dies(concat!("mistakes::", stringify!($child)), &$words);
        }

        #[test]
        #[ignore = "ends its process; a test runs it in a child"]
        fn $child() {
            let Some($rig) = Rig::take() else { return };
            $body
            $rig.wait();
        }
    )*};
}

fn run(rig: &Rig, source: &str, name: &str, blocks: u32, threads: u32, shared: u32, args: &[Arg]) {
    assert_eq!(rig.launch(rig.kernel(source, name), blocks, threads, shared, args), 0);
}

dying! {
    the_host_cannot_reach_into_the_card, child_reaches: [] => |rig| {
        let x = rig.give(&[1.0_f32; 4]);
        rig.wait();
        // SAFETY: it is not, and that is the point.
        println!("{}", unsafe { (x as *const f32).read_volatile() });
        // Were it read, the process would live.
    }

    a_kernel_that_runs_off_its_memory_is_named, child_runs_off:
        ["kernel `run_off`, block (2, 0, 0), thread (4, 0, 0)", "0 bytes past the end of an allocation of 4096"] => |rig|
    {
        let source = "extern \"C\" __global__ void run_off(float* x) { if (blockIdx.x == 2 && threadIdx.x == 4) x[1024] = 1; }";
        let x = rig.alloc(4096);
        run(&rig, source, "run_off", 3, 8, 0, &[Arg::Pointer(x)]);
    }

    a_write_between_the_end_and_the_guard_is_seen, child_overruns:
        ["kernel `overrun`", "4 bytes past the end of an allocation of 100"] => |rig|
    {
        let source = "extern \"C\" __global__ void overrun(float* x) { x[26] = 1; }";
        let x = rig.alloc(100);
        run(&rig, source, "overrun", 1, 1, 0, &[Arg::Pointer(x)]);
    }

    freed_memory_is_gone, child_uses_freed: ["kernel `deep`", "in no allocation"] => |rig| {
        let source = "extern \"C\" __global__ void deep(float** x) { **x = 1; }";
        let inner = rig.alloc(1 << 22);
        let outer = rig.give(&[inner + (2 << 20)]);
        assert_eq!(call!(rig, cuMemFree_v2(inner => usize)), 0);
        run(&rig, source, "deep", 1, 1, 0, &[Arg::Pointer(outer)]);
    }

    a_barrier_that_some_threads_miss_is_told, child_misses:
        ["kernel `miss`", "40 threads wait at the barrier test.cu:2", "24 threads have ended, thread 40 first"] => |rig|
    {
        let source = "extern \"C\" __global__ void miss(float* x) { if (threadIdx.x >= 40) return;\n__syncthreads(); *x = 1; }";
        let x = rig.alloc(4);
        run(&rig, source, "miss", 1, 64, 0, &[Arg::Pointer(x)]);
    }

    two_barriers_are_not_one, child_diverges:
        ["threads wait at the barrier test.cu:1", "threads wait at the barrier test.cu:2"] => |rig|
    {
        let source = "extern \"C\" __global__ void two(float* x) { if (threadIdx.x % 2) __syncthreads();\nelse __syncthreads(); }";
        let x = rig.alloc(4);
        run(&rig, source, "two", 1, 64, 0, &[Arg::Pointer(x)]);
    }

    a_shuffle_that_lanes_miss_is_told, child_shuffles: ["31 threads wait for lanes 0xffffffff"] => |rig| {
        let source = "extern \"C\" __global__ void part(unsigned* x) {\n\
                      if (threadIdx.x == 5) __syncthreads();\n\
                      x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, threadIdx.x, 1); }";
        let x = rig.alloc(128);
        run(&rig, source, "part", 1, 32, 0, &[Arg::Pointer(x)]);
    }

    a_shuffle_from_a_lane_that_is_not_there_is_told, child_reads_nobody:
        ["a shuffle reads a lane that takes no part in it"] => |rig|
    {
        let source = "extern \"C\" __global__ void nobody(unsigned* x) {\n\
                      x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, threadIdx.x, 16); }";
        let x = rig.alloc(128);
        run(&rig, source, "nobody", 1, 16, 0, &[Arg::Pointer(x)]);
    }

    misaligned_accesses_are_told, child_misaligns: ["kernel `wide`", "misaligned"] => |rig| {
        let source = "extern \"C\" __global__ void wide(float* x) { *reinterpret_cast<float4*>(x + 1) = make_float4(1, 2, 3, 4); }";
        let x = rig.alloc(64);
        run(&rig, source, "wide", 1, 1, 0, &[Arg::Pointer(x)]);
    }

    an_index_out_of_a_shared_array_is_told, child_leaves_array: ["kernel `beyond`", "out of an array's bounds"] => |rig| {
        let source = "extern \"C\" __global__ void beyond(float* x, unsigned i) { __shared__ float s[4]; s[i] = *x; *x = s[0]; }";
        let x = rig.alloc(64);
        run(&rig, source, "beyond", 1, 1, 0, &[Arg::Pointer(x), Arg::U32(4)]);
    }

    dynamic_shared_memory_ends, child_overruns_shared: ["wrote 4 bytes past its dynamic shared memory"] => |rig| {
        let source = "#include \"types.cuh\"\nextern \"C\" __global__ void past(float* x, u64 i) { reinterpret_cast<float*>(dynamic_shared())[i] = *x; }";
        let x = rig.give(&[1.0_f32]);
        run(&rig, source, "past", 1, 1, 400, &[Arg::Pointer(x), Arg::U64(100)]);
    }

    page_locked_memory_that_a_graph_reads_must_live, child_frees_early: ["meets memory that is gone"] => |rig| {
        let (x, mut pinned, mut graph, mut executable) = (rig.alloc(4), 0_usize, 0_usize, 0_usize);
        let stream = rig.stream;
        call!(rig, cuMemHostAlloc(&raw mut pinned => *mut usize, 4 => usize, 0 => c_uint));
        call!(rig, cuStreamBeginCapture_v2(stream => usize, 1 => c_int));
        call!(rig, cuMemcpyHtoDAsync_v2(x => usize, pinned => usize, 4 => usize, stream => usize));
        call!(rig, cuStreamEndCapture(stream => usize, &raw mut graph => *mut usize));
        call!(rig, cuGraphInstantiateWithFlags(&raw mut executable => *mut usize, graph => usize, 0 => u64));
        assert_eq!(call!(rig, cuMemFreeHost(pinned => usize)), 0);
        assert_eq!(call!(rig, cuGraphLaunch(executable => usize, stream => usize)), 0);
    }
}
