//! The backend against torchao's numbers, and against the protocol.

#![cfg(test)]

mod common;
mod conformance;
mod decisions;
mod golden;
mod numerics;
mod protocol;
mod table;
