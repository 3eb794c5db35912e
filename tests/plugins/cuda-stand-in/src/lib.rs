//! Stands in for `libcuda`, `libcublasLt` and `libnvrtc` in tests, on a machine that the environment variable
//! `FP8FLOW_TEST_CARDS` describes.
//!
//! It holds words, separated by commas: a card as `ampere`, `ada`, `hopper` or `small` (an Ada with 8 GB), `old-driver`
//! for CUDA 11.8, `error-N` for a driver that starts with that code, `crash` and `hang`.

#![allow(unsafe_code, unsafe_op_in_unsafe_fn, clippy::missing_safety_doc)]

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
mod memory;
mod module;
mod nvrtc;
mod operation;
mod options;
mod say;
mod shared;
mod state;
mod stream;

#[unsafe(no_mangle)]
extern "C" fn cublasLtGetVersion() -> usize {
    120_901
}
