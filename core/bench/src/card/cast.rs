//! Casts from bf16 to FP8 on a card, in the layouts that its products read.
//!
//! | case | scales | codes | bytes an element |
//! | --- | --- | --- | --- |
//! | `cast_tensor_delayed` | one that is there; the maximum beside it | both ways | 2 read, 2 written |
//! | `cast_tensor` | one, from the matrix | both ways | 2 read, 2 written |
//! | `cast_row` | one a row | as the matrix lies | 2 read, 1 written |
//! | `cast_col` | one a column | turned over | 2 read, 1 written |
//! | `cast_row_col` | these two | both ways | 2 read, 2 written |
//! | `cast_blocks` | 1 × 128 and 128 × 1 | both ways | 2 read, 2 written |
//! | `cast_squares` | 128 × 128 | both ways | 2 read, 2 written |
//!
//! Bytes are those that have to move: `cast_tensor` and `cast_col` go over the matrix twice. Scales are not counted.

#![allow(unsafe_code)]

use fp8flow_cuda::cast::{self, Counters, Element, Face, Granularity, Input, Layout, Scale, Target, Zeros};
use fp8flow_cuda::{Card, Memory};
use fp8flow_kernels::Fp8;

use super::line::{CardLine, Extent};
use super::operand::{normal, rule, sets};
use super::{CardBench, Name, Sizes, Work};
use crate::BenchError;
use crate::line::{Line, Shape};

/// `[m, k]` where nobody asks for another shape: those of the CPU, and Llama-3-8B's with 8192 tokens.
const SHAPES: [[usize; 2]; 4] = [[2048, 2048], [4096, 1024], [8192, 4096], [8192, 14_336]];
const SMALL: [[usize; 2]; 1] = [[160, 144]];

/// A case: its name, what shares a scale, whether the scale is given.
struct Kind {
    what: &'static str,
    scales: &'static str,
    by: &'static [Granularity],
    given: bool,
}

const KINDS: [Kind; 7] = [
    Kind { what: "cast_tensor_delayed", scales: "tensor", by: &[Granularity::Tensor], given: true },
    Kind { what: "cast_tensor", scales: "tensor", by: &[Granularity::Tensor], given: false },
    Kind { what: "cast_row", scales: "row", by: &[Granularity::Row], given: false },
    Kind { what: "cast_col", scales: "col", by: &[Granularity::Col], given: false },
    Kind {
        what: "cast_row_col",
        scales: "row, col",
        by: &[Granularity::Row, Granularity::Col],
        given: false,
    },
    Kind {
        what: "cast_blocks",
        scales: "blocks",
        by: &[Granularity::RowBlocks, Granularity::ColBlocks],
        given: false,
    },
    Kind { what: "cast_squares", scales: "squares", by: &[Granularity::Squares], given: false },
];

/// Measures every case for `shape`, or for the usual ones.
pub fn cast(
    bench: &CardBench,
    shape: Option<[usize; 2]>,
    show: &mut dyn FnMut(Line),
) -> Result<(), BenchError> {
    let usual: &[[usize; 2]] = match bench.sizes {
        Sizes::Usual => &SHAPES,
        Sizes::Small => &SMALL,
    };
    for &shape in shape.as_ref().map_or(usual, std::slice::from_ref) {
        for kind in &KINDS {
            show(case(bench, shape, kind)?);
        }
    }
    Ok(())
}

fn case(bench: &CardBench, [m, k]: [usize; 2], kind: &Kind) -> Result<Line, BenchError> {
    let extent = Extent::Matrix(Shape { m, k, n: None });
    let name = Name { what: kind.what, scales: Some(kind.scales), extent };
    let moved = (2 + kind.faces()) * m * k;
    // Room for both ways, and for factors.
    let set = 5 * m * k;
    if let Some(why) = bench.objection(sets(set) * set)? {
        return Ok(CardBench::left_out(name, why));
    }
    if !k.is_multiple_of(16) {
        let why = format!("a card casts matrices whose columns are a multiple of 16, not {k}");
        return Ok(CardBench::left_out(name, why));
    }
    let card = &bench.card;
    let x = normal(card, m * k, 0)?;
    let all = (0..sets(set)).map(|_| Set::new(card, &x, [m, k], kind)).collect::<Result<Vec<_>, _>>()?;
    let line = bench.case(name, Work::Bytes(moved as f64), |i| all[i % all.len()].cast(card))?;
    Ok(Line::Card(CardLine::Case(line)))
}

impl Kind {
    /// How many ways codes are written.
    fn faces(&self) -> usize {
        let ways = |by: &Granularity| {
            [Layout::Rows, Layout::Turned].into_iter().filter(|way| by.serves(*way)).count()
        };
        self.by.iter().map(ways).sum()
    }
}

/// A matrix, and all that its cast writes.
struct Set {
    input: Input,
    targets: Vec<Target>,
    counters: u64,
    zeros: Zeros,
    /// What the addresses above are of.
    _memory: Vec<Memory>,
}

impl Set {
    fn new(card: &Card, x: &Memory, [rows, cols]: [usize; 2], kind: &Kind) -> fp8flow_cuda::Result<Self> {
        let mut memory = Vec::new();
        let mut take = |bytes: usize| {
            let taken = card.take(bytes)?;
            taken.fill(0, bytes, 0)?;
            let address = taken.address();
            memory.push(taken);
            Ok::<_, fp8flow_cuda::Error>(address)
        };
        let copy = card.take(x.bytes())?;
        copy.copy(0, x, 0, x.bytes())?;
        let input = Input { address: copy.address(), element: Element::Bf16, rows, cols };
        let counters = take(Counters::BYTES)?;
        let mut targets = Vec::new();
        for &granularity in kind.by {
            let mut face = |layout| {
                let factors = granularity.factors(layout, rows, cols);
                let wanted = granularity.serves(layout);
                let make = || Ok(Face { codes: take(cast::codes(rows, cols))?, factors: take(4 * factors)? });
                wanted.then(make).transpose()
            };
            let (by_rows, turned) = (face(Layout::Rows)?, face(Layout::Turned)?);
            let scale = if kind.given {
                // Normal numbers reach to about 5, and E4M3 to 448.
                Scale::Given { scale: 64.0, amax: take(4)? }
            } else {
                // Zeros for the maxima are taken for each cast.
                Scale::Current { rule: rule(granularity), space: 0 }
            };
            targets.push(Target { format: Fp8::E4m3, granularity, scale, rows: by_rows, turned });
        }
        memory.push(copy);
        Ok(Self { input, targets, counters, zeros: Zeros::default(), _memory: memory })
    }

    fn cast(&self, card: &Card) -> fp8flow_cuda::Result<()> {
        let Input { rows, cols, .. } = self.input;
        let mut targets = self.targets.clone();
        for target in &mut targets {
            if let Scale::Current { space, .. } = &mut target.scale {
                *space = self.zeros.take(card, target.granularity.space(rows, cols))?;
            }
        }
        let targets = [targets.first(), targets.get(1)];
        // SAFETY: all addresses are of this set's memory, as large as the cast's documentation says.
        unsafe { cast::cast(card, &self.input, targets, self.counters, false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_the_ways_that_the_table_says() {
        assert_eq!(KINDS.each_ref().map(Kind::faces), [2, 2, 1, 1, 2, 2, 2]);
    }
}
