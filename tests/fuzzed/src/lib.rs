//! Everything that reads what a stranger may have written, as functions of bytes: `fuzz/` calls them with bytes that it
//! makes up, the test beside this with every input that was ever of interest.
//!
//! A target may answer any bytes with an error. It may not panic, and it may not hold more memory at once than its
//! [`Bound`] allows for an input of that size: a few bytes that ask for gigabytes are as bad as a crash.
//!
//! Where several files are read together, the input is all of them: a line `--- NAME` begins the file `NAME`.

mod allocator;
mod engine;
mod panics;
mod parts;
mod room;
mod targets;

use std::path::PathBuf;

pub use allocator::Bound;
pub use panics::{keep_panics, last_panic};
pub use room::Room;

/// Something that reads bytes.
pub struct Target {
    /// Its name, and that of its folders in `fuzz/corpus` and `fuzz/regressions`.
    pub name: &'static str,
    /// Reads an input.
    pub read: fn(&Room, &[u8]),
    /// Most memory that it may hold at once.
    pub bound: Bound,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    targets::workflow::TARGET,
    targets::safetensors::TARGET,
    targets::config::TARGET,
    targets::tokenizer::TARGET,
    targets::dataset::TARGET,
    targets::checkpoint::TARGET,
    targets::runs::TARGET,
    targets::store::TARGET,
    targets::lock::TARGET,
    targets::sidecar::TARGET,
];

impl Target {
    /// The target `name`.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Reads `input`, and returns the bytes of memory that it held at most beyond those held before.
    ///
    /// # Panics
    ///
    /// If the target panics, or holds more than it may.
    pub fn check(&self, room: &Room, input: &[u8]) -> usize {
        let held = allocator::peak(|| (self.read)(room, input));
        let most = self.bound.most(input.len());
        assert!(
            held <= most,
            "{}: {} bytes of input took {held} bytes, at most {most}",
            self.name,
            input.len()
        );
        held
    }

    /// The folders of inputs that are kept.
    pub fn kept(&self) -> [PathBuf; 2] {
        let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        ["corpus", "regressions"].map(|folder| fuzz.join(folder).join(self.name))
    }
}
