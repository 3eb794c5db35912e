//! The memory of the card that a workflow runs on.

use serde::Serialize;

use crate::Engine;

/// A card and its memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CardRoom {
    /// Its name.
    pub(crate) name: String,
    /// Bytes that are free, of all programs together.
    pub(crate) free: u64,
    /// All of them.
    pub(crate) total: u64,
}

impl CardRoom {
    /// Asks the card of `engine`; none without one, or where it does not tell.
    pub(crate) fn look(engine: &Engine) -> Option<Self> {
        let device = engine.device();
        let card = device.card()?;
        let (free, total) = card.memory_info().ok()?;
        Some(Self { name: card.properties().name.clone(), free: free as u64, total: total as u64 })
    }
}
