//! Plugins through all doors: the shipped one gives the bits of its linked crate, broken ones give one clear error each.

#![cfg(test)]

mod cards;
mod common;
mod doors;
mod hostile;
mod lent;
mod packages;
mod panics;
mod places;
mod probing;
mod shipped;
