//! Finds, checks and loads backend plugins; the safe Rust face of the ABI.
