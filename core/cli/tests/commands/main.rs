//! The program from outside: what it prints, what it leaves, its exit codes.

// As the snapshots are written.
#![allow(clippy::needless_raw_string_hashes)]

mod authoring;
mod bench;
mod events;
mod looking;
mod measuring;
mod packages;
mod reporting;
mod running;
mod stopping;
mod watching;
