//! Stands in for `libcuda`, `libcublasLt` and `libnvrtc` in tests: the few functions that a probe calls, on a machine
//! that the environment variable `FP8FLOW_TEST_CARDS` describes.
//!
//! It holds words, separated by commas: a card as `ampere`, `ada`, `hopper` or `small` (an Ada with 8 GB), `old-driver`
//! for CUDA 11.8, `error-N` for a driver that starts with that code, `crash` and `hang`.

#![allow(unsafe_code, clippy::missing_safety_doc)]

use std::ffi::{c_char, c_int, c_uint};
use std::time::Duration;

/// Name, compute capability, bytes.
type Card = (&'static str, c_int, c_int, usize);

const CARDS: [(&str, Card); 4] = [
    ("ampere", ("NVIDIA A100-SXM4-80GB", 8, 0, 85_100_000_000)),
    ("ada", ("NVIDIA GeForce RTX 4090", 8, 9, 25_400_000_000)),
    ("hopper", ("NVIDIA H100 80GB HBM3", 9, 0, 85_000_000_000)),
    ("small", ("NVIDIA GeForce RTX 4060", 8, 9, 8_200_000_000)),
];

fn words() -> Vec<String> {
    let text = std::env::var("FP8FLOW_TEST_CARDS").unwrap_or_default();
    text.split(',').map(str::to_owned).collect()
}

fn cards() -> Vec<Card> {
    let card = |word: String| CARDS.iter().find(|(name, _)| *name == word).map(|(_, card)| *card);
    words().into_iter().filter_map(card).collect()
}

fn card(device: c_int) -> Option<Card> {
    cards().get(usize::try_from(device).ok()?).copied()
}

const INVALID: c_int = 101;

/// Writes `value`, if there is one.
///
/// # Safety
/// `out` is a place for it.
unsafe fn give<T>(out: *mut T, value: Option<T>) -> c_int {
    let Some(value) = value else { return INVALID };
    // SAFETY: the caller has a place for it.
    unsafe { out.write(value) };
    0
}

/// Starts the driver.
#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_: c_uint) -> c_int {
    for word in words() {
        match word.as_str() {
            "crash" => std::process::abort(),
            "hang" => std::thread::sleep(Duration::from_mins(10)),
            _ => {}
        }
        if let Some(code) = word.strip_prefix("error-").and_then(|code| code.parse().ok()) {
            return code;
        }
    }
    0
}

/// The newest CUDA that the driver knows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    let old = words().iter().any(|word| word == "old-driver");
    // SAFETY: as the caller's.
    unsafe { give(version, Some(if old { 11_080 } else { 12_090 })) }
}

/// How many cards there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    // SAFETY: as the caller's.
    unsafe { give(count, c_int::try_from(cards().len()).ok()) }
}

/// The handle of a card.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    // SAFETY: as the caller's.
    unsafe { give(device, card(ordinal).map(|_| ordinal)) }
}

/// The name of a card.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, device: c_int) -> c_int {
    let Some((text, ..)) = card(device) else { return INVALID };
    let room = usize::try_from(len).unwrap_or(0);
    for (i, byte) in text.bytes().chain([0]).take(room).enumerate() {
        // SAFETY: `i` is below the length that the caller gave.
        unsafe { name.add(i).write(c_char::from_ne_bytes([byte])) };
    }
    0
}

/// The memory of a card.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> c_int {
    // SAFETY: as the caller's.
    unsafe { give(bytes, card(device).map(|(.., bytes)| bytes)) }
}

/// A number of a card.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int) -> c_int {
    let number = card(device).and_then(|(_, major, minor, _)| match attribute {
        75 => Some(major),
        76 => Some(minor),
        _ => None,
    });
    // SAFETY: as the caller's.
    unsafe { give(value, number) }
}

/// The version of cuBLASLt.
#[unsafe(no_mangle)]
pub extern "C" fn cublasLtGetVersion() -> usize {
    120_901
}

/// The version of NVRTC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvrtcVersion(major: *mut c_int, minor: *mut c_int) -> c_int {
    // SAFETY: as the caller's.
    unsafe { give(major, Some(12)) + give(minor, Some(9)) }
}
