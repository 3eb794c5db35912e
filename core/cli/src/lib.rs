//! The `fp8flow` command line.
