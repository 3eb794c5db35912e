//! The casts of a layer's weight on the card, made once an optimizer step: as it lies for fprop, turned over for dgrad.

use fp8flow_cuda::Memory;
use fp8flow_cuda::cast::{Input, Layout};

use super::spot::{Cursor, Encoder, Side, Spot};
use crate::scaled::cast::{Cast, Gemms};
use crate::scaled::weights::Generation;
use crate::{Error, Pass, Result};

/// The casts of one `N × K` weight.
#[derive(Debug, Default)]
pub(super) struct Weights {
    generation: Generation,
    sides: Option<[Side; 2]>,
    /// Where they are, once one was made.
    memory: Option<Memory>,
    spots: [Spot; 2],
    /// When each was made.
    made_in: [Option<u64>; 2],
    /// Whether the recipe was told of the maximum.
    recorded: bool,
}

impl Weights {
    pub(super) fn new(gemms: &Gemms, rows: usize, cols: usize, generation: Generation) -> Self {
        let side = |cast: Cast, layout| Side { cast, layout, rows, cols };
        let sides = Some([side(gemms.fprop.w, Layout::Rows), side(gemms.dgrad.w, Layout::Turned)]);
        Self { generation, sides, ..Self::default() }
    }

    /// The bytes it holds once both casts were made.
    pub(super) fn bytes(&self) -> usize {
        self.sides.map_or(0, |sides| sides.iter().map(|side| side.bytes()).sum())
    }

    /// Makes what is stale fresh: for evaluation only what fprop reads.
    pub(super) fn refresh(&mut self, encoder: &mut Encoder<'_>, master: &Input) -> Result<()> {
        let now = self.generation.now();
        let sides = self.sides.ok_or_else(|| Error::protocol("a weight without casts"))?;
        if self.memory.is_none() {
            let memory = encoder.bench.card.take(self.bytes())?;
            let mut cursor = Cursor::of(&memory);
            self.spots = [cursor.spot(sides[0])?, cursor.spot(sides[1])?];
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
    pub(super) fn fprop(&self) -> Result<(Side, Spot)> {
        self.side(0)
    }

    /// The weight as dgrad reads it; only after a refresh.
    pub(super) fn dgrad(&self) -> Result<(Side, Spot)> {
        self.side(1)
    }

    fn side(&self, i: usize) -> Result<(Side, Spot)> {
        let sides = self.sides.ok_or_else(|| Error::protocol("a weight without casts"))?;
        Ok((sides[i], self.spots[i]))
    }
}
