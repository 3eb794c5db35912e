//! Products on a card, and what must stand aside where a result cannot be written in place.

#![allow(unsafe_code)]

use fp8flow_cuda::gemm::{Addresses, Factors, Output, Product};

use super::bench::Bench;
use super::on_card;
use super::spot::{Cursor, Spot};
use crate::scaled::cast::Cast;
use crate::{DType, Error, Result};

/// What rows of a product are a multiple of where the left side has factors for blocks.
const BLOCK_ROWS: usize = 4;

/// The type of a result, if it has this type and shape.
pub(super) fn output(what: &str, found: (DType, &[u64]), dtype: DType, shape: [usize; 2]) -> Result<Output> {
    crate::scaled::shapes::expect(what, found, (dtype, shape))?;
    match dtype {
        DType::BF16 => Ok(Output::Bf16),
        DType::F32 => Ok(Output::F32),
        other => Err(Error::invalid(format!("{what}: expected bf16 or f32, found {}", other.name()))),
    }
}

/// Bytes that a result of `rows × cols` may need aside, of a left side with this cast.
pub(super) fn aside(cast: Cast, rows: usize, cols: usize) -> usize {
    let blocks = matches!(on_card(cast), Ok(fp8flow_cuda::cast::Granularity::RowBlocks));
    if blocks {
        (rows.next_multiple_of(BLOCK_ROWS) * cols * size_of::<f32>()).next_multiple_of(256)
    } else {
        0
    }
}

/// Asks for `product` of what lies at `a` and `b`, into `d`.
pub(super) fn run(bench: &Bench, product: Product, a: Spot, b: Spot, d: u64, scratch: Cursor) -> Result<()> {
    let blocks = product.a.factors == Factors::Block1x128;
    if blocks && !product.m.is_multiple_of(BLOCK_ROWS) {
        return run_aside(bench, product, a, b, d, scratch);
    }
    ask(bench, &product, a, b, d)
}

fn ask(bench: &Bench, product: &Product, a: Spot, b: Spot, d: u64) -> Result<()> {
    let addresses = Addresses { a: a.codes, b: b.codes, d, factor_a: a.factors, factor_b: b.factors };
    // SAFETY: operands were cast, and results are as large, as the product says; all of it is the engine's, for this call,
    // or the layer's own.
    unsafe { bench.gemm.plan(product)?.run(&addresses)? };
    Ok(())
}

/// The same into rows that are more than the result has: codes of the rows that fill up are zeros.
fn run_aside(bench: &Bench, product: Product, a: Spot, b: Spot, d: u64, mut scratch: Cursor) -> Result<()> {
    let m = product.m.next_multiple_of(BLOCK_ROWS);
    let row = product.n * product.output.bytes();
    let at = scratch.take(m * row)?;
    let (aside, result) = (bench.lent(at, m * row), bench.lent(d, product.m * row));
    if product.store == fp8flow_kernels::Store::Accumulate {
        aside.fill(0, m * row, 0)?;
        aside.copy(0, &result, 0, product.m * row)?;
    }
    ask(bench, &Product { m, ..product }, a, b, at)?;
    Ok(result.copy(0, &aside, 0, product.m * row)?)
}
