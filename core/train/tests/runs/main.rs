//! Whole runs of a tiny model.

#![cfg(test)]

mod checkpoints;
mod common;
mod fp8;
mod meddling;
mod parameters;
mod stopping;
mod toy;
