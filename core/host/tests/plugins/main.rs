//! Plugins through all doors: the shipped one gives the bits of its linked crate, broken ones give one clear error each.

mod common;
mod shipped;
