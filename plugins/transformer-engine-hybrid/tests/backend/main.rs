//! The backend against Transformer Engine's rules and numbers, and against the protocol.

#![cfg(test)]

mod blockwise;
mod casts;
mod common;
mod conformance;
mod current;
mod delayed;
mod options;
