//! The operations, one file each, forward and backward together.
//!
//! Every kernel is plain Rust compiled for each instruction set (`multiversion!`), so all paths give the same bits.
//! Work is cut into tasks by shape alone.

pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod cross_entropy;
pub(crate) mod elementwise;
pub(crate) mod embedding;
pub(crate) mod linear;
pub(crate) mod reduce;
pub(crate) mod rms_norm;
pub(crate) mod rope;
pub(crate) mod swiglu;
pub(crate) mod tile;

/// Rows a task of a row-wise operation takes.
const ROWS_PER_TASK: usize = 16;

/// Elements a task of an element-wise operation takes.
const ELEMENTS_PER_TASK: usize = 1 << 14;

/// Tokens whose contributions are added before they join a sum over all tokens; part of the numerics revision.
pub(crate) const TOKEN_BLOCK: usize = 64;
