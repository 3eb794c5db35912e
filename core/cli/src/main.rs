//! The `fp8flow` command.

fn main() {}
