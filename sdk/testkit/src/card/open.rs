//! A card that has been at work.

#![allow(unsafe_code)]

use fp8flow_cuda::{Card, Result, cast};

/// Opens a card and has it run a kernel: some of what a driver does to a process it does no earlier.
pub fn open_and_use(ordinal: usize) -> Result<Card> {
    let card = Card::open(ordinal)?;
    let memory = card.take(2 * size_of::<f32>())?;
    memory.fill(0, memory.bytes(), 0)?;
    let (one, other) = (memory.address(), memory.address() + size_of::<f32>() as u64);
    // SAFETY: two floats on the card, which live until its stream was waited for.
    unsafe { cast::repeat(&card, one, other, 1)? };
    card.synchronize()?;
    Ok(card)
}
