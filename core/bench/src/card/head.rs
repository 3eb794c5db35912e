//! The card, its libraries, and what it can do: measured before all else, which warms it up too.

#![allow(unsafe_code)]

use fp8flow_cuda::gemm::{Format, Operand, Output, Product};
use fp8flow_cuda::{compile, gemm};
use fp8flow_host::machine::Cuda;

use super::line::Head;
use super::operand::{Side, Sides};
use super::time::time;
use super::{CardBench, Ceilings, Sizes};
use crate::BenchError;

/// Rows and columns of the matrices, and bytes of the copy.
const fn sizes(sizes: Sizes) -> (usize, usize) {
    match sizes {
        Sizes::Usual => (8192, 1 << 30),
        Sizes::Small => (64, 1 << 16),
    }
}

/// Measures both; what the card has no room for is NaN.
pub(super) fn ceilings(bench: &CardBench) -> Result<Ceilings, BenchError> {
    let (side, bytes) = sizes(bench.sizes);
    let (bf16, copy) = (6 * side * side, 2 * bytes);
    let fits = |bytes| bench.objection(bytes).map(|objection| objection.is_none());
    Ok(Ceilings {
        bf16: if fits(bf16)? { product(bench, side)? } else { f64::NAN },
        copy: if fits(copy)? { self::copy(bench, bytes)? } else { f64::NAN },
    })
}

/// Operations a second.
fn product(bench: &CardBench, side: usize) -> Result<f64, BenchError> {
    let operand = Operand::rows(Format::Bf16, side);
    let product = Product::new([side; 3], operand, operand, Output::Bf16);
    let sides = Sides {
        a: Side::normal(&bench.card, [side, side], 0)?,
        b: Side::normal(&bench.card, [side, side], 1)?,
        d: bench.card.take(2 * side * side)?,
    };
    let plan = bench.gemm.plan(&product)?;
    // SAFETY: three dense matrices of the product's sides, which live until the events were waited for.
    let seconds = time(&bench.card, bench.repeats, |_| unsafe { plan.run(&sides.addresses()) })?;
    Ok(product.flops() as f64 / seconds)
}

/// Bytes a second, read and written.
fn copy(bench: &CardBench, bytes: usize) -> Result<f64, BenchError> {
    let (from, to) = (bench.card.take(bytes)?, bench.card.take(bytes)?);
    from.fill(0, bytes, 0x5a)?;
    let seconds = time(&bench.card, bench.repeats, |_| to.copy(0, &from, 0, bytes))?;
    Ok(2.0 * bytes as f64 / seconds)
}

pub(super) fn head(bench: &CardBench) -> Result<Head, BenchError> {
    let properties = bench.card.properties();
    let (free, total) = bench.card.memory_info()?;
    let pair = |(major, minor): (u32, u32)| format!("{major}.{minor}");
    let version = gemm::version()?;
    let tera = |rate: f64| rate.is_finite().then_some(rate / 1e12);
    Ok(Head {
        what: "card",
        card: properties.name.clone(),
        architecture: properties.architecture.name(),
        multiprocessors: properties.multiprocessors,
        memory_gb: total as f64 / 1e9,
        free_gb: free as f64 / 1e9,
        driver: Cuda::kernel_module(),
        cuda: pair(properties.cuda),
        nvrtc: pair(compile::version()?),
        cublaslt: format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100),
        sheet: bench.sheet,
        bf16_tflops: tera(bench.ceilings.bf16),
        copy_tbps: tera(bench.ceilings.copy),
    })
}
