//! The engine from outside, with toy stages.

// As the snapshots are written.
#![allow(clippy::needless_raw_string_hashes)]

mod cache;
mod findings;
mod hostile;
mod named;
mod overrides;
mod runs;
mod tables;
mod toys;
