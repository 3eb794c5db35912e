//! NVIDIA's driver, its cards, and the libraries that FP8 needs.
//!
//! Nothing is linked: libraries are opened by name, every function is looked up, and every answer is checked, so that a
//! machine without a driver, or with half of one, is a finding like any other. A driver that crashes or hangs does so in
//! a child process ([`crate::probe`]).

mod calls;

use serde::{Deserialize, Serialize};

use crate::probe::{self, Probe, ProbeFailure};

/// Asks the child.
const VARIABLE: &str = "FP8FLOW_PROBE_CUDA";

/// What was found of CUDA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cuda {
    /// The driver.
    pub driver: Part,
    /// The cards that `CUDA_VISIBLE_DEVICES` leaves.
    pub cards: Vec<Card>,
    /// Scaled FP8 products.
    pub cublas_lt: Part,
    /// Compiles kernels when they are first needed.
    pub nvrtc: Part,
}

/// A library.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its file, if one was opened.
    pub path: Option<String>,
    /// Its version, major first; for the driver that of the newest CUDA it knows.
    pub version: Option<(u32, u32)>,
    /// Why it is of no use, if so.
    pub problem: Option<String>,
}

/// A card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Its name.
    pub name: String,
    /// Its compute capability, major first.
    pub capability: (u32, u32),
    /// Its memory in bytes.
    pub memory: u64,
}

impl Part {
    /// Whether it was found and answers.
    pub fn is_usable(&self) -> bool {
        self.path.is_some() && self.problem.is_none()
    }
}

impl Cuda {
    /// Looks, in a child process where this executable can be one. Fails if that does not survive the driver.
    pub fn look() -> Result<Self, ProbeFailure> {
        match Probe::this_executable() {
            Some(probe) => Self::look_with(&probe),
            None => Ok(calls::look()),
        }
    }

    /// Looks in a child that `probe` starts.
    pub fn look_with(probe: &Probe) -> Result<Self, ProbeFailure> {
        let lines = probe.ask(VARIABLE, "1")?;
        // The child is this very program: what it says is what is expected, or nothing.
        Ok(lines.last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default())
    }

    /// The version of the kernel's part of the driver, where there is one.
    pub fn kernel_module() -> Option<String> {
        let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
        text.split_whitespace().find(|word| is_version(word)).map(str::to_owned)
    }
}

/// Whether `word` is numbers between dots: `570.124.06`.
fn is_version(word: &str) -> bool {
    word.contains('.')
        && word.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// In the child, looks and says what was found.
pub(crate) fn run_if_child() {
    probe::answer(VARIABLE, |_| {
        probe::say("the driver");
        let found = calls::look();
        probe::say(&serde_json::to_string(&found).unwrap_or_default());
    });
}
