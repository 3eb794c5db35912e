//! What `[backend]`, `layers.filter` and `checkpoint.export` say of a workflow, with the plugin as Cargo has built it beside these tests.

#![cfg(test)]

mod backend;
mod bench;
mod exports;
mod filter;
mod keys;
