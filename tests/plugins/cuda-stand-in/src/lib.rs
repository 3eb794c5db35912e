//! An emulated card: `libcuda`, `libnvrtc` and `libcublasLt` in one library that runs on the processor, so that kernels
//! and matrix products are tested, through the product's own code, where there is no GPU.
//!
//! `FP8FLOW_TEST_CARDS` describes the machine. It holds words, separated by commas: a card as `ampere`, `ada`, `hopper`
//! or `small` (an Ada with 8 GB), as `hopper:300` with 300 MB, `old-driver` for CUDA 11.8, `error-N` for a driver that
//! starts with that code, `crash` and `hang`; `idle:NAME` makes a card that computes wrongly: kernels whose names begin so
//! do nothing. The library is looked for under the names `libcuda.so.1`, `libnvrtc.so.12` and `libcublasLt.so.12`; they
//! must be links to one file, or libraries that need it, since the three parts share what they know.
//!
//! # What is emulated
//!
//! * **Driver**: primary contexts, memory, streams, events, modules, launches, capture and graphs, the functions of
//!   which a loader asks by name and no others. Machine code is for its own compute capability.
//! * **NVRTC** ([`compile`](mod@compile)): the source and its headers, with the emulator's own `ptx.cuh` in the place of
//!   the product's, go through the machine's C++ compiler (`c++`, or `$CXX`); the CUBIN is a shared library. No system
//!   header is found, contraction is what `--fmad` says, unknown options are refused. Libraries are kept by content in
//!   the folder for temporary files. The log speaks as ptxas does, but its numbers of registers mean nothing.
//! * **Kernels** ([`block`](mod@block)): the threads of a block are fibers, each of which runs until it has to wait at a
//!   barrier or for its warp. Blocks run on two OS threads. `emulator/prelude.h` has the words of CUDA C,
//!   `emulator/ptx.cuh` the instructions: conversions with their exact bits, `cp.async`, `ldmatrix`, `mma` in the
//!   fragments of the PTX manual.
//! * **cuBLASLt** ([`lt`](mod@lt)): bf16, f32 and FP8 with one scale, scales by row, by 128 and by 128 x 128, with the
//!   rules of 12.9 on 8.9 and 9.0, summed in f64. Epilogues, factors on the card, f16, outputs in FP8 and orders other
//!   than by column are refused, though the real one has them.
//!
//! # Where it is stricter than a card
//!
//! * Queued work runs when somebody waits for it, not earlier, and only that of the stream that is waited for and of
//!   those that it waits for: what should have waited reads poison.
//! * Memory is fresh with 0xFF (NaN), closed to the host, ends at a page that nobody may touch, and is never given again;
//!   a write behind the end but before that page is found after the kernel that did it. Shared memory is poisoned for
//!   every block, a workspace by every product. Pointers that a kernel is given must be of the card.
//! * Threads at different barriers, or some at a barrier and others at their end, shuffles from lanes that take no part,
//!   misaligned accesses, indices out of an array's bounds and overruns of dynamic shared memory end the process; so does a
//!   fault. Standard error names kernel, block, thread and address.
//! * An asynchronous copy to shared memory happens when it is waited for. Even blocks run their threads upwards, odd ones
//!   downwards. A graph does not take copies from or to pageable memory.
//!
//! # What is not modelled
//!
//! Time, the order in which memory becomes visible, and races: a fiber is not interrupted between two waits, so threads
//! that race through shared memory are found only where one order of the two gives another result. Registers, occupancy,
//! limits of static shared memory, bank conflicts. NaN keep the bits that the processor gives them, where a card gives
//! 0x7fffffff. The last bits of `mma` and cuBLASLt. Fast math. The real NVRTC has to see each source too: this one takes
//! calls of host functions and the like.

#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

#[macro_use]
mod codes;
mod block;
mod cards;
mod compile;
mod context;
mod copies;
mod entries;
mod event;
mod fault;
mod fiber;
mod graph;
mod launch;
mod lt;
mod memory;
mod module;
mod nvrtc;
mod operation;
mod options;
mod say;
mod shared;
mod state;
mod stream;
