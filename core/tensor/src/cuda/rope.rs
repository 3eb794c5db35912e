//! Rotary position embedding.

#![allow(unsafe_code)]

use fp8flow_cuda::{Card, Result, Shape, Source, source};

use super::Indices;
use super::indices::Facts;
use super::launch::{activations, count, floats, launch, shape_of};
use super::room::Room;
use crate::{Rotation, Tensor};

pub(super) const SOURCE: Source = source!("rope");

/// Threads of a block.
const THREADS: u32 = 128;

/// The position of each token in its sequence; `sequences` holds the offsets of their starts and, last, how many tokens
/// there are.
pub fn positions(sequences: &[u32]) -> Vec<u32> {
    sequences.windows(2).flat_map(|ends| 0..ends[1] - ends[0]).collect()
}

/// The positions of a micro-batch on a card: the layers of a model ask for the same ones, one after the other.
#[derive(Debug, Default)]
pub(super) struct Positions {
    sequences: Vec<u32>,
    facts: Facts,
    room: Room,
}

impl Positions {
    /// Those of these sequences, copied to the card unless they are there already.
    pub(super) fn of(&mut self, card: &Card, sequences: &[u32]) -> Result<Indices<'_>> {
        if self.sequences != sequences {
            self.sequences.clear();
            self.facts = self.room.indices(card, &positions(sequences))?.facts();
            self.sequences.extend_from_slice(sequences);
        }
        Ok(Indices::there(self.room.bytes(card, Indices::bytes(self.facts.len()))?, self.facts))
    }
}

/// Rotates each head of `x: [T, heads · head_dim]` in place by its token's position; `cos` and `sin` are those of a
/// [`crate::RopeTable`].
pub fn rotate(
    card: &Card,
    x: &mut Tensor,
    head_dim: usize,
    positions: Indices<'_>,
    cos: &Tensor,
    sin: &Tensor,
    rotation: Rotation,
) -> Result<()> {
    let dtype = activations(card, &[x]);
    floats(card, &[cos, sin]);
    let (known, half) = shape_of(&[cos, sin]);
    assert_eq!(half, head_dim / 2, "an angle a pair");
    assert!(positions.len() == x.rows() && positions.bound() <= known, "positions of all tokens");
    assert!(x.cols().is_multiple_of(head_dim), "whole heads");
    let sign: f32 = match rotation {
        Rotation::Forward => 1.0,
        Rotation::Backward => -1.0,
    };
    let arguments = [
        x.address(),
        positions.address(),
        cos.address(),
        sin.address(),
        sign.into(),
        count(x.cols() / head_dim),
        count(head_dim),
    ];
    // SAFETY: a block has a row of x, whole heads; positions are rows of the tables, half a head wide.
    unsafe { launch(card, SOURCE, "rope", dtype, Shape::new(x.rows(), THREADS), &arguments) }
}
