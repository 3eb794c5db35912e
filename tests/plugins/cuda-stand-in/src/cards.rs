//! The machine that `FP8FLOW_TEST_CARDS` describes, and what a probe asks of it.

use std::ffi::{c_char, c_int, c_uint};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::codes::{Code, INVALID_DEVICE};

/// A card's published figures.
#[derive(Clone, Copy)]
pub(crate) struct Card {
    word: &'static str,
    name: &'static str,
    pub(crate) major: c_int,
    pub(crate) minor: c_int,
    pub(crate) bytes: usize,
    multiprocessors: c_int,
    l2_bytes: c_int,
    /// Shared memory that a block may have when it asks for more than 48 KB.
    pub(crate) shared_opt_in: c_int,
    clock_khz: c_int,
    memory_khz: c_int,
    bus_bits: c_int,
    /// Whether cuBLASLt knows of other scales than one for an operand, as it does since 12.9.
    pub(crate) scale_modes: bool,
    /// Whether cuBLASLt adds products with a scale a row to what there is.
    pub(crate) adds_scaled_rows: bool,
}

const CARDS: [Card; 6] = [
    Card {
        word: "ampere",
        name: "NVIDIA A100-SXM4-80GB",
        major: 8,
        minor: 0,
        bytes: 85_100_000_000,
        multiprocessors: 108,
        l2_bytes: 40 << 20,
        shared_opt_in: 163 << 10,
        clock_khz: 1_410_000,
        memory_khz: 1_593_000,
        bus_bits: 5120,
        scale_modes: true,
        adds_scaled_rows: true,
    },
    Card {
        word: "ada",
        name: "NVIDIA GeForce RTX 4090",
        major: 8,
        minor: 9,
        bytes: 25_400_000_000,
        multiprocessors: 128,
        l2_bytes: 72 << 20,
        shared_opt_in: 99 << 10,
        clock_khz: 2_520_000,
        memory_khz: 10_501_000,
        bus_bits: 384,
        scale_modes: true,
        adds_scaled_rows: true,
    },
    Card {
        word: "hopper",
        name: "NVIDIA H100 80GB HBM3",
        major: 9,
        minor: 0,
        bytes: 85_000_000_000,
        multiprocessors: 132,
        l2_bytes: 50 << 20,
        shared_opt_in: 227 << 10,
        clock_khz: 1_980_000,
        memory_khz: 2_619_000,
        bus_bits: 5120,
        scale_modes: true,
        adds_scaled_rows: true,
    },
    Card {
        word: "hopper-old-cublaslt",
        name: "NVIDIA H100 80GB HBM3",
        major: 9,
        minor: 0,
        bytes: 85_000_000_000,
        multiprocessors: 132,
        l2_bytes: 50 << 20,
        shared_opt_in: 227 << 10,
        clock_khz: 1_980_000,
        memory_khz: 2_619_000,
        bus_bits: 5120,
        scale_modes: false,
        adds_scaled_rows: true,
    },
    Card {
        word: "hopper-adding-no-rows",
        name: "NVIDIA H100 80GB HBM3",
        major: 9,
        minor: 0,
        bytes: 85_000_000_000,
        multiprocessors: 132,
        l2_bytes: 50 << 20,
        shared_opt_in: 227 << 10,
        clock_khz: 1_980_000,
        memory_khz: 2_619_000,
        bus_bits: 5120,
        scale_modes: true,
        adds_scaled_rows: false,
    },
    Card {
        word: "small",
        name: "NVIDIA GeForce RTX 4060",
        major: 8,
        minor: 9,
        bytes: 8_200_000_000,
        multiprocessors: 24,
        l2_bytes: 24 << 20,
        shared_opt_in: 99 << 10,
        clock_khz: 2_460_000,
        memory_khz: 8_501_000,
        bus_bits: 128,
        scale_modes: true,
        adds_scaled_rows: true,
    },
];

impl Card {
    /// A number by its `CUdevice_attribute`.
    fn attribute(&self, attribute: c_int) -> Option<c_int> {
        let hopper = self.major == 9;
        Some(match attribute {
            1..=3 | 111 => 1024,
            4 => 64,
            5 => c_int::MAX,
            6 | 7 => 65_535,
            8 => 48 << 10,
            10 => 32,
            12 | 82 => 65_536,
            13 => self.clock_khz,
            16 => self.multiprocessors,
            // Unified addressing, concurrent kernels, stream priorities, compute preemption.
            31 | 41 | 78 | 90 => 1,
            36 => self.memory_khz,
            37 => self.bus_bits,
            38 => self.l2_bytes,
            39 => [1536, 2048][usize::from(hopper || self.minor == 0)],
            75 => self.major,
            76 => self.minor,
            81 => self.shared_opt_in + 1024,
            97 => self.shared_opt_in,
            106 => [32, 24][usize::from(self.minor == 9)],
            // Bus numbers; memory pools and tensor maps: neither asynchronous allocation nor the products of Hopper's
            // warp groups, which came with the maps, are emulated.
            33 | 34 | 50 | 115 | 127 => 0,
            _ => return None,
        })
    }
}

fn words() -> Vec<String> {
    let text = std::env::var("FP8FLOW_TEST_CARDS").unwrap_or_default();
    text.split(',').map(str::to_owned).collect()
}

fn cards() -> Vec<Card> {
    words().iter().filter_map(|word| described(word)).collect()
}

/// A card by its word, with as many megabytes as stand behind a colon.
fn described(word: &str) -> Option<Card> {
    let (word, megabytes) = word.split_once(':').map_or((word, None), |(word, n)| (word, Some(n)));
    let card = *CARDS.iter().find(|card| card.word == word)?;
    let Some(megabytes) = megabytes else { return Some(card) };
    Some(Card { bytes: megabytes.parse::<usize>().ok()? * 1_000_000, ..card })
}

/// Whether the card leaves this kernel out.
pub(crate) fn leaves_out(entry: &str) -> bool {
    words().iter().any(|word| word.strip_prefix("idle:").is_some_and(|idle| entry.starts_with(idle)))
}

/// A card by its number.
pub(crate) fn card(device: c_int) -> Result<Card, Code> {
    usize::try_from(device).ok().and_then(|i| cards().get(i).copied()).ok_or(INVALID_DEVICE)
}

static STARTED: AtomicBool = AtomicBool::new(false);

/// Whether `cuInit` has been called with success.
pub(crate) fn started() -> bool {
    STARTED.load(Ordering::Relaxed)
}

driver! {
    fn cuInit(_flags: c_uint) {
        for word in words() {
            match word.as_str() {
                "crash" => std::process::abort(),
                "hang" => std::thread::sleep(Duration::from_mins(10)),
                _ => {}
            }
            if let Some(code) = word.strip_prefix("error-").and_then(|code| code.parse().ok()) {
                return Err(code);
            }
        }
        STARTED.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn cuDriverGetVersion(version: *mut c_int) {
        let old = words().iter().any(|word| word == "old-driver");
        version.write(if old { 11_080 } else { 12_090 });
        Ok(())
    }

    fn cuDeviceGetCount(count: *mut c_int) {
        count.write(cards().len() as c_int);
        Ok(())
    }

    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) {
        card(ordinal)?;
        device.write(ordinal);
        Ok(())
    }

    fn cuDeviceGetName(name: *mut c_char, len: c_int, device: c_int) {
        let text = card(device)?.name;
        let room = usize::try_from(len).unwrap_or(0);
        for (i, byte) in text.bytes().chain([0]).take(room).enumerate() {
            name.add(i).write(c_char::from_ne_bytes([byte]));
        }
        Ok(())
    }

    fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: c_int) {
        let card = card(device)?;
        let mut id = *b"emulated card 00";
        id[14] = b'0' + card.major as u8;
        id[15] = b'0' + device as u8;
        uuid.write(id);
        Ok(())
    }

    fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) {
        bytes.write(card(device)?.bytes);
        Ok(())
    }

    fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int) {
        value.write(card(device)?.attribute(attribute).ok_or(crate::codes::INVALID_VALUE)?);
        Ok(())
    }
}
