//! The casts of a layer's weight on the card, made once an optimizer step: as it lies for fprop, turned over for dgrad.

#![allow(unsafe_code)]

use fp8flow_cuda::Memory;
use fp8flow_cuda::cast::{self, Input, Layout};
use fp8flow_cuda::gemm::{Factors, Operand};

use super::spot::{ALIGN, Cursor, Encoder, Side, Spot};
use crate::scaled::cast::{Cast, Gemms, Granularity};
use crate::scaled::weights::Generation;
use crate::{Error, Pass, Result};

/// Bytes of a factor for each line of `side`.
fn padded_factors(side: &Side) -> usize {
    (side.lines() * size_of::<f32>()).next_multiple_of(ALIGN)
}

/// The casts of one `N × K` weight.
#[derive(Debug, Default)]
pub(super) struct Weights {
    generation: Generation,
    sides: Option<[Side; 2]>,
    /// Whether one factor must be repeated for each row, since the other side of the product has one a row.
    repeats: [bool; 2],
    /// Where they are, once one was made.
    memory: Option<Memory>,
    spots: [Spot; 2],
    repeated: [u64; 2],
    /// When each was made.
    made_in: [Option<u64>; 2],
    /// Whether the recipe was told of the maximum.
    recorded: bool,
}

impl Weights {
    pub(super) fn new(gemms: &Gemms, rows: usize, cols: usize, generation: Generation) -> Self {
        let side = |cast: Cast, layout| Side { cast, layout, rows, cols };
        let sides = Some([side(gemms.fprop.w, Layout::Rows), side(gemms.dgrad.w, Layout::Turned)]);
        let repeats = [(gemms.fprop.x, gemms.fprop.w), (gemms.dgrad.dy, gemms.dgrad.w)]
            .map(|(a, b)| (a.granularity, b.granularity) == (Granularity::Row, Granularity::Tensor));
        Self { generation, sides, repeats, ..Self::default() }
    }

    /// The bytes it holds once both casts were made.
    pub(super) fn bytes(&self) -> usize {
        let repeated = |i: usize, side: &Side| if self.repeats[i] { padded_factors(side) } else { 0 };
        self.sides.map_or(0, |sides| {
            sides.iter().enumerate().map(|(i, side)| side.bytes() + repeated(i, side)).sum()
        })
    }

    /// Makes what is stale fresh: for evaluation only what fprop reads.
    pub(super) fn refresh(&mut self, encoder: &mut Encoder<'_>, master: &Input) -> Result<()> {
        let now = self.generation.now();
        let sides = self.sides.ok_or_else(|| Error::protocol("a weight without casts"))?;
        if self.memory.is_none() {
            let memory = encoder.bench.card.take(self.bytes())?;
            let mut cursor = Cursor::of(&memory);
            self.spots = [cursor.spot(sides[0])?, cursor.spot(sides[1])?];
            for i in [0, 1] {
                if self.repeats[i] {
                    self.repeated[i] = cursor.take(padded_factors(&sides[i]))?;
                }
            }
            self.memory = Some(memory);
        }
        let stale = |made_in: Option<u64>| made_in != Some(now);
        let train = encoder.pass != Pass::Eval;
        let wanted = [stale(self.made_in[0]), stale(self.made_in[1]) && train];
        if wanted[0] {
            self.recorded = false;
        }
        let both = [(sides[0], self.spots[0]), (sides[1], self.spots[1])];
        let chosen = [0, 1].map(|i| wanted[i].then_some(both[i]));
        if wanted.contains(&true) {
            encoder.encode(master, chosen)?;
            for i in [0, 1] {
                if wanted[i] {
                    self.made_in[i] = Some(now);
                    if self.repeats[i] {
                        self.repeat(encoder, sides[i], i)?;
                    }
                }
            }
        }
        if encoder.pass == Pass::Train && !self.recorded {
            encoder.record(both[0])?;
            self.recorded = true;
        }
        Ok(())
    }

    /// The weight as fprop reads it; only after a refresh.
    pub(super) fn fprop(&self) -> Result<(Operand, Spot)> {
        self.side(0)
    }

    /// The weight as dgrad reads it; only after a refresh.
    pub(super) fn dgrad(&self) -> Result<(Operand, Spot)> {
        self.side(1)
    }

    fn side(&self, i: usize) -> Result<(Operand, Spot)> {
        let sides = self.sides.ok_or_else(|| Error::protocol("a weight without casts"))?;
        let (operand, spot) = (sides[i].operand()?, self.spots[i]);
        if !self.repeats[i] {
            return Ok((operand, spot));
        }
        Ok((operand.times(Factors::PerRow), spot.with_factors(self.repeated[i])))
    }

    fn repeat(&self, encoder: &Encoder<'_>, side: Side, i: usize) -> Result<()> {
        let factor = self.spots[i].factors.ok_or_else(|| Error::protocol("a cast without factors"))?;
        // SAFETY: one factor, and room for as many as the side has lines, in this layer's own memory.
        unsafe { cast::repeat(&encoder.bench.card, factor, self.repeated[i], side.lines())? };
        Ok(())
    }
}
