//! Products with a factor a row, where cuBLASLt has none: `gemm_rowwise.cu`.

#![allow(unsafe_code)]

use fp8flow_kernels::Store;

use super::plan::Addresses;
use super::product::Product;
use crate::{Arg, Card, Kernel, Result, Shape, Source};

/// The kernel.
pub(super) const SOURCE: Source =
    Source { name: "gemm_rowwise", text: include_str!("../kernels/gemm_rowwise.cu") };

/// Rows and columns of `d` that a block makes, its threads, and its bytes of shared memory, as the kernel has them.
const TILE: usize = 128;
const THREADS: u32 = 256;
const SHARED: u32 = 3 * 2 * 128 * 64;

/// The kernel for a product's formats.
#[derive(Debug)]
pub(super) struct Rowwise(Kernel);

impl Rowwise {
    pub(super) fn new(card: &Card, product: &Product) -> Result<Self> {
        let sums = if product.fast { "fast_" } else { "" };
        let (a, b) = (product.a.format.name(), product.b.format.name());
        let entry = format!("gemm_{sums}{a}_{b}_{}", product.output.name());
        Ok(Self(card.kernel(SOURCE, &entry)?))
    }

    /// Asks the stream of `card` for `product`.
    ///
    /// # Safety
    /// It is the product that this was made for, within the rules, and its addresses are as
    /// [`Plan::run`](super::Plan::run) wants them.
    pub(super) unsafe fn run(&self, card: &Card, product: &Product, addresses: &Addresses) -> Result<()> {
        let &Product { m, n, k, a, b, stride, store, .. } = product;
        let shape =
            Shape { blocks: [m.div_ceil(TILE) * n.div_ceil(TILE), 1, 1], threads: THREADS, shared: SHARED };
        let arguments = [
            Arg::Address(addresses.a),
            Arg::Address(addresses.b),
            Arg::Address(addresses.d),
            Arg::Address(addresses.factor_a.unwrap_or(0)),
            Arg::Address(addresses.factor_b.unwrap_or(0)),
            m.into(),
            n.into(),
            k.into(),
            a.stride.into(),
            b.stride.into(),
            stride.into(),
            u32::from(store == Store::Accumulate).into(),
        ];
        // SAFETY: twelve arguments of the entry's types; the caller's, for the addresses, and the kernel stays within the
        // shape and strides that it is told.
        unsafe { self.0.launch(card, shape, &arguments) }
    }
}
