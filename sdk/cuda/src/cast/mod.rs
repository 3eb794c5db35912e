//! Casts to FP8 on the card: codes in the layouts that products read, and the factors that undo their scales.
//!
//! FP8 is multiplied only along memory. So the cast of a matrix `[M, K]` is written as it lies ([`Layout::Rows`]) for
//! products over K, turned over ([`Layout::Turned`]) for products over M, or both, in one read. M, the tokens, may be
//! any number: codes are there for a multiple of 16 rows, and those after the last row of the matrix are zeros, which
//! change no sum. K is a multiple of 16.
//!
//! Scales never leave the card: they are made by the kernels that use them, from maxima of the matrix
//! ([`Scale::Current`]) or by somebody else before ([`Scale::Given`]). What is kept are their reciprocals, in the order
//! in which cuBLASLt reads them ([`Granularity::factor`]). Maxima are raised from zeros, which are made for many casts at
//! once ([`Zeros`]).
//!
//! | granularity | reads of the matrix in memory | kernels |
//! | --- | --- | --- |
//! | tensor, given scale | 1 | `cast_tile`, which finds the maximum too |
//! | tensor, current scale | 2 | `amax`, `cast_tile` |
//! | row | 1 | `cast_rows` |
//! | column; row and column | 2 | `amax_lines`, `cast_lines` |
//! | 1×128, 128×1, both, 128×128 | 1 | `cast_blocks` |

mod launch;
mod target;
mod zeros;

pub use launch::{SOURCES, amax, cast, repeat};
pub use target::{Counters, Element, Face, Granularity, Input, Layout, Scale, Target, codes, padded};
pub use zeros::Zeros;
