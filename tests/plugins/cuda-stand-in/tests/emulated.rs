//! The emulated card: what it computes, and the mistakes that it finds.

#![allow(unsafe_code, clippy::unwrap_used)]

#[path = "emulated/matrices.rs"]
mod matrices;
#[path = "emulated/mistakes.rs"]
mod mistakes;
#[path = "emulated/products.rs"]
mod products;
#[path = "emulated/rig.rs"]
mod rig;
#[path = "emulated/threads.rs"]
mod threads;
#[path = "emulated/work.rs"]
mod work;
