//! What `[backend]` and `layers.filter` say of a workflow, with the plugin as Cargo has built it beside these tests.

#![cfg(test)]

mod backend;
mod bench;
mod filter;
