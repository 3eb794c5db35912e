//! Rows by number.

#![allow(unsafe_code)]

use fp8flow_cuda::{Card, Result, Shape, Source, source};

use super::Indices;
use super::launch::{activations, count, launch};
use crate::Tensor;

pub(super) const SOURCE: Source = source!("gather");

/// Threads of a block.
const THREADS: u32 = 128;

/// `out[i] = x[rows[i]]`.
pub fn gather(card: &Card, x: &Tensor, rows: Indices<'_>, out: &mut Tensor) -> Result<()> {
    move_rows(card, "gather", x, rows, out, rows.len() == out.rows() && rows.bound() <= x.rows())
}

/// `out[rows[i]] = x[i]`, other rows stay; no number may come twice.
pub fn scatter(card: &Card, x: &Tensor, rows: Indices<'_>, out: &mut Tensor) -> Result<()> {
    move_rows(card, "scatter", x, rows, out, rows.len() == x.rows() && rows.bound() <= out.rows())
}

fn move_rows(
    card: &Card,
    op: &str,
    x: &Tensor,
    rows: Indices<'_>,
    out: &mut Tensor,
    within: bool,
) -> Result<()> {
    let dtype = activations(card, &[x, out]);
    assert_eq!(x.cols(), out.cols(), "rows of one width");
    assert!(within, "numbers of rows");
    let arguments = [x.address(), rows.address(), out.address(), count(x.cols())];
    // SAFETY: a block has a number, and both rows that it moves between are there.
    unsafe { launch(card, SOURCE, op, dtype, Shape::new(rows.len(), THREADS), &arguments) }
}
