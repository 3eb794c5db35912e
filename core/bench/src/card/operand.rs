//! Operands on a card: normal numbers, as they are or cast as in training, in as many sets as no cache holds.

#![allow(unsafe_code)]

use fp8flow_cuda::cast::{self, Counters, Element, Face, Granularity, Input, Layout, Scale, Target};
use fp8flow_cuda::gemm::{Addresses, Factors, Format, Operand};
use fp8flow_cuda::{Card, Memory, Result};
use fp8flow_kernels::Fp8;
use fp8flow_kernels::scale::ScaleRule;

use crate::numbers::{DRAWN, normal_bf16};

/// Bytes that sets have together at least: five times the largest second-level cache, which is Hopper's.
const ROTATED: usize = 256 << 20;
/// Most sets.
const MOST: usize = 64;

/// How many sets of so many bytes are gone through in turns.
pub(super) fn sets(bytes: usize) -> usize {
    ROTATED.div_ceil(bytes.max(1)).clamp(1, MOST)
}

/// [`normal_bf16`] on `card`, which repeats them itself: the CPU would take longer to than the case takes.
pub(super) fn normal(card: &Card, len: usize, stream: u64) -> Result<Memory> {
    let (memory, drawn) = (card.take(2 * len)?, normal_bf16(len.min(DRAWN), stream));
    memory.write(0, bytemuck::cast_slice(&drawn))?;
    let mut done = 2 * drawn.len();
    while done < memory.bytes() {
        let more = done.min(memory.bytes() - done);
        memory.copy(done, &memory, 0, more)?;
        done += more;
    }
    Ok(memory)
}

fn copied(memory: &Memory) -> Result<Memory> {
    let copy = memory.card().take(memory.bytes())?;
    copy.copy(0, memory, 0, memory.bytes())?;
    Ok(copy)
}

/// One side of a product.
#[derive(Debug)]
pub(super) struct Side {
    elements: Memory,
    factors: Option<Memory>,
    pub(super) operand: Operand,
}

impl Side {
    /// In bf16, `shape` being rows and steps of the contraction.
    pub(super) fn normal(card: &Card, [rows, k]: [usize; 2], stream: u64) -> Result<Self> {
        let elements = normal(card, rows * k, stream)?;
        Ok(Self { elements, factors: None, operand: Operand::rows(Format::Bf16, k) })
    }

    /// The same elements, as if they lay across the contraction.
    pub(super) fn turned(self, rows: usize) -> Self {
        Self { operand: Operand::transposed(self.operand.format, rows), ..self }
    }

    /// Cast to `format`.
    pub(super) fn cast(
        card: &Card,
        [rows, k]: [usize; 2],
        stream: u64,
        format: Fp8,
        granularity: Granularity,
    ) -> Result<Self> {
        let x = normal(card, rows * k, stream)?;
        let elements = card.take(cast::codes(rows, k))?;
        let factors = card.take(4 * granularity.factors(Layout::Rows, rows, k))?;
        let working = card.take(Counters::BYTES + granularity.space(rows, k))?;
        working.fill(0, working.bytes(), 0)?;
        let input = Input { address: x.address(), element: Element::Bf16, rows, cols: k };
        let space = working.address() + Counters::BYTES as u64;
        let target = Target {
            format,
            granularity,
            scale: Scale::Current { rule: rule(granularity), space },
            rows: Some(Face { codes: elements.address(), factors: factors.address() }),
            turned: None,
        };
        // SAFETY: all is as large as the cast's documentation says; memory is freed when the stream has come past it.
        unsafe { cast::cast(card, &input, [Some(&target), None], working.address(), false)? };
        card.synchronize()?;
        let operand = Operand::rows(Format::Fp8(format), k).times(kind(granularity));
        Ok(Self { elements, factors: Some(factors), operand })
    }

    /// The same in other memory.
    pub(super) fn copied(&self) -> Result<Self> {
        let factors = self.factors.as_ref().map(copied).transpose()?;
        Ok(Self { elements: copied(&self.elements)?, factors, operand: self.operand })
    }
}

/// The rule that recipes make such scales by.
pub(super) const fn rule(granularity: Granularity) -> ScaleRule {
    match granularity {
        Granularity::Tensor => ScaleRule::Linear,
        Granularity::Row | Granularity::Col => ScaleRule::PowerOfTwo,
        Granularity::RowBlocks | Granularity::ColBlocks | Granularity::Squares => ScaleRule::FinitePowerOfTwo,
    }
}

/// Factors of codes that lie by rows.
const fn kind(granularity: Granularity) -> Factors {
    match granularity {
        Granularity::Tensor => Factors::Tensor,
        Granularity::Row | Granularity::Col => Factors::PerRow,
        Granularity::RowBlocks | Granularity::ColBlocks => Factors::Block1x128,
        Granularity::Squares => Factors::Block128x128,
    }
}

/// Both sides of a product, and room for its result.
#[derive(Debug)]
pub(super) struct Sides {
    pub(super) a: Side,
    pub(super) b: Side,
    pub(super) d: Memory,
}

impl Sides {
    pub(super) fn addresses(&self) -> Addresses {
        let factors = |side: &Side| side.factors.as_ref().map(Memory::address);
        Addresses {
            a: self.a.elements.address(),
            b: self.b.elements.address(),
            d: self.d.address(),
            factor_a: factors(&self.a),
            factor_b: factors(&self.b),
        }
    }

    /// The same in other memory.
    pub(super) fn copied(&self) -> Result<Self> {
        Ok(Self { a: self.a.copied()?, b: self.b.copied()?, d: copied(&self.d)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_operands_are_there_often_enough_that_no_cache_holds_them() {
        assert_eq!([1 << 30, 256 << 20, 100 << 20, 4 << 20, 1, 0].map(sets), [1, 1, 3, 64, 64, 64]);
    }
}
