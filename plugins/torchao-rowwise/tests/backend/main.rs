//! The backend against torchao's numbers, and against the protocol.

mod common;
mod decisions;
mod golden;
mod protocol;
mod table;
