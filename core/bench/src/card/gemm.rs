//! The three GEMMs of a linear layer on a card, with scales of every kind, by the plans that training uses.
//!
//! For `x: [m, k]` and `W: [n, k]`, all `2·m·n·k` FLOPs:
//!
//! | case | sides | contraction | result |
//! | --- | --- | --- | --- |
//! | `fprop` | `x`, `W` | k | bf16, fast sums |
//! | `dgrad` | `dy`, `Wᵀ` | n | bf16 |
//! | `wgrad` | `dyᵀ`, `xᵀ` | m | f32, added to |
//!
//! | scales | what is cast how |
//! | --- | --- |
//! | `none` | nothing: bf16 |
//! | `tensor` | one scale each; `dy` in E5M2, all else in E4M3 |
//! | `row` | one along each contraction, E4M3 |
//! | `blocks` | 1 × 128 along the contraction, W in 128 × 128, E4M3 |
//!
//! Casts are done before; only the product is timed.

#![allow(unsafe_code)]

use fp8flow_cuda::Error;
use fp8flow_cuda::cast::Granularity;
use fp8flow_cuda::gemm::{Output, Product};
use fp8flow_kernels::Fp8;

use super::line::{CardLine, Extent};
use super::operand::{Side, Sides, sets};
use super::{CardBench, Name, Sizes, Work};
use crate::BenchError;
use crate::line::{Line, Shape};

/// `[m, k, n]` where nobody asks for another shape: those of the CPU, a cube, and Llama-3-8B's layers with 8192 tokens: q
/// and o, k and v, gate and up, down.
const SHAPES: [[usize; 3]; 10] = [
    [256, 256, 256],
    [512, 64, 512],
    [1024, 1024, 1024],
    [2048, 2048, 2048],
    [2048, 1024, 4096],
    [8192, 8192, 8192],
    [8192, 4096, 4096],
    [8192, 4096, 1024],
    [8192, 4096, 14_336],
    [8192, 14_336, 4096],
];
const SMALL: [[usize; 3]; 1] = [[48, 128, 64]];

/// A GEMM of a layer: its name, its two sides by their scales in blocks, and its shape `[m, n, k]` from the layer's.
#[derive(Clone, Copy)]
struct Pass {
    what: &'static str,
    /// Whether the left side is a gradient.
    gradient: bool,
    /// Whether the right side is a weight.
    weight: bool,
    /// Whether each side lies across the contraction in bf16.
    turned: [bool; 2],
    shape: fn([usize; 3]) -> [usize; 3],
}

const PASSES: [Pass; 3] = [
    Pass {
        what: "fprop",
        gradient: false,
        weight: true,
        turned: [false, false],
        shape: |[m, k, n]| [m, n, k],
    },
    Pass { what: "dgrad", gradient: true, weight: true, turned: [false, true], shape: |[m, k, n]| [m, k, n] },
    Pass { what: "wgrad", gradient: true, weight: false, turned: [true, true], shape: |[m, k, n]| [n, k, m] },
];

const SCALES: [&str; 4] = ["none", "tensor", "row", "blocks"];

impl Pass {
    /// How both sides are cast; none in bf16.
    fn casts(self, scales: &str) -> Option<[(Fp8, Granularity); 2]> {
        let all = |granularity| [(Fp8::E4m3, granularity); 2];
        match scales {
            "tensor" => {
                let left = if self.gradient { Fp8::E5m2 } else { Fp8::E4m3 };
                Some([(left, Granularity::Tensor), (Fp8::E4m3, Granularity::Tensor)])
            }
            "row" => Some(all(Granularity::Row)),
            "blocks" if self.weight => {
                Some([(Fp8::E4m3, Granularity::RowBlocks), (Fp8::E4m3, Granularity::Squares)])
            }
            "blocks" => Some(all(Granularity::RowBlocks)),
            _ => None,
        }
    }
}

/// Measures every case for `shape`, or for the usual ones.
pub fn gemm(
    bench: &CardBench,
    shape: Option<[usize; 3]>,
    show: &mut dyn FnMut(Line),
) -> Result<(), BenchError> {
    let usual: &[[usize; 3]] = match bench.sizes {
        Sizes::Usual => &SHAPES,
        Sizes::Small => &SMALL,
    };
    for &shape in shape.as_ref().map_or(usual, std::slice::from_ref) {
        for scales in SCALES {
            for pass in PASSES {
                show(case(bench, shape, pass, scales)?);
            }
        }
    }
    Ok(())
}

fn case(bench: &CardBench, layer: [usize; 3], pass: Pass, scales: &'static str) -> Result<Line, BenchError> {
    let [m, k, n] = layer;
    let extent = Extent::Matrix(Shape { m, k, n: Some(n) });
    let name = Name { what: pass.what, scales: Some(scales), extent };
    let [m, n, k] = (pass.shape)(layer);
    let casts = pass.casts(scales);
    let wide = if casts.is_some() { 1 } else { 2 };
    let output = if pass.weight { Output::Bf16 } else { Output::F32 };
    let set = wide * (m * k + n * k) + output.bytes() * m * n;
    // What is cast is there in bf16 for a while.
    if let Some(why) = bench.objection(sets(set) * set + 2 * k * m.max(n))? {
        return Ok(CardBench::left_out(name, why));
    }
    let card = &bench.card;
    let made = (|| match casts {
        None => {
            let turn = |side: Side, rows, turned| if turned { side.turned(rows) } else { side };
            let a = turn(Side::normal(card, [m, k], 0)?, m, pass.turned[0]);
            Ok((a, turn(Side::normal(card, [n, k], 1)?, n, pass.turned[1])))
        }
        Some([(left, by_left), (right, by_right)]) => {
            Ok((Side::cast(card, [m, k], 0, left, by_left)?, Side::cast(card, [n, k], 1, right, by_right)?))
        }
    })();
    let planned = made.and_then(|(a, b)| {
        let mut product = Product::new([m, n, k], a.operand, b.operand, output);
        product.fast = casts.is_some() && pass.what == "fprop";
        let product = if pass.weight { product } else { product.accumulated() };
        let d = card.take(output.bytes() * m * n)?;
        d.fill(0, d.bytes(), 0)?;
        Ok((bench.gemm.plan(&product)?, Sides { a, b, d }))
    });
    let (plan, first) = match planned {
        Err(Error::Unsupported(why)) => return Ok(CardBench::left_out(name, why)),
        other => other?,
    };
    let others = (1..sets(set)).map(|_| first.copied()).collect::<Result<Vec<_>, _>>()?;
    let all: Vec<_> = std::iter::once(&first).chain(&others).map(Sides::addresses).collect();
    let flops = plan.product().flops() as f64;
    let work = if casts.is_some() { Work::Fp8(flops) } else { Work::Bf16(flops) };
    // SAFETY: every set has both operands, their factors and a result as large as the product says, and lives on.
    let mut line = bench.case(name, work, |i| unsafe { plan.run(&all[i % all.len()]) })?;
    // SAFETY: as above.
    let times = unsafe { plan.tune(&all[0])? };
    let best = times.iter().copied().fold(f32::INFINITY, f32::min);
    line.best_algorithm = best.is_finite().then_some(1e3 * f64::from(best) / line.us);
    Ok(Line::Card(CardLine::Case(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gemm_of_a_layer_has_its_flops() {
        for pass in PASSES {
            let [m, n, k] = (pass.shape)([8, 3, 5]);
            assert_eq!(m * n * k, 120, "{}", pass.what);
        }
        let [_, dgrad, wgrad] = PASSES.map(|pass| (pass.shape)([8, 3, 5]));
        assert_eq!([dgrad, wgrad], [[8, 3, 5], [5, 3, 8]]);
    }
}
