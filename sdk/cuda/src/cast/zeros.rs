//! Zeros for the maxima of casts: set for many casts at once, since to set those of each is a launch that both of its
//! kernels wait for.

use std::sync::{Mutex, PoisonError};

use crate::{Card, Memory, Result};

/// Bytes that are set at once, unless a cast needs more.
const BYTES: usize = 1 << 21;

/// Where each piece starts.
const ALIGN: usize = 256;

/// A supply of zeros on a card, dealt out from front to end and set again when it is used up.
#[derive(Debug, Default)]
pub struct Zeros(Mutex<Option<Supply>>);

#[derive(Debug)]
struct Supply {
    memory: Memory,
    taken: usize,
}

impl Supply {
    fn new(card: &Card, bytes: usize) -> Result<Self> {
        let memory = card.take(bytes)?;
        Ok(Self { taken: memory.bytes(), memory })
    }
}

impl Zeros {
    /// The address of `bytes` zeros on `card`, always the same one: for what its stream is asked for before the next are
    /// taken. They may be those again.
    pub fn take(&self, card: &Card, bytes: usize) -> Result<u64> {
        if bytes == 0 {
            return Ok(0);
        }
        let wanted = bytes.next_multiple_of(ALIGN);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut supply = match kept.take().filter(|supply| wanted <= supply.memory.bytes()) {
            Some(supply) => supply,
            None => Supply::new(card, wanted.max(BYTES))?,
        };
        if supply.taken + wanted > supply.memory.bytes() {
            supply.memory.fill(0, supply.memory.bytes(), 0)?;
            supply.taken = 0;
        }
        let address = supply.memory.address() + supply.taken as u64;
        supply.taken += wanted;
        *kept = Some(supply);
        Ok(address)
    }
}
