//! What a layer's casts have seen, on the card until somebody asks.

use std::sync::Arc;

use fp8flow_cuda::cast::Counters as Seen;
use fp8flow_cuda::{Card, Memory};

use crate::scaled::operand::Role;
use crate::scaled::scales::Later;
use crate::{Counters, Error, Result};

/// Roles of tensors.
const ROLES: usize = 3;

/// Counters of each role, then the maxima that its casts with delayed scales have met, then those of watched tensors.
#[derive(Debug)]
pub(super) struct Notes(Arc<Memory>);

impl Notes {
    /// Bytes on the card.
    pub(super) const BYTES: usize = ROLES * (Seen::BYTES + 2 * size_of::<f32>());

    /// Nothing seen.
    pub(super) fn new(card: &Card) -> Result<Self> {
        let memory = card.take(Self::BYTES)?;
        memory.fill(0, Self::BYTES, 0)?;
        Ok(Self(Arc::new(memory)))
    }

    /// Where casts of `role` count.
    pub(super) fn counters(&self, role: Role) -> u64 {
        self.0.address() + (role as usize * Seen::BYTES) as u64
    }

    const fn noted(role: Role) -> usize {
        ROLES * Seen::BYTES + role as usize * size_of::<f32>()
    }

    const fn watched_at(role: Role) -> usize {
        Self::noted(role) + ROLES * size_of::<f32>()
    }

    /// Where the maximum of a watched tensor goes.
    pub(super) fn watched(&self, role: Role) -> u64 {
        self.0.address() + Self::watched_at(role) as u64
    }

    /// Keeps the maximum that lies at the start of `amax`, which may be written over afterwards; to be read later.
    pub(super) fn keep(&self, role: Role, amax: &Memory) -> Result<Later> {
        let at = Self::noted(role);
        self.0.copy(at, amax, 0, size_of::<f32>())?;
        let memory = self.0.clone();
        Ok(Box::new(move || float(&memory, at)))
    }

    /// What the card has counted, beside what is `known`. A card that cannot be asked is lost: the engine hears of that
    /// from its own next call, so what is known is all there is to say here.
    pub(super) fn add_to(&self, known: Counters) -> Counters {
        let mut bytes = [0; Self::BYTES];
        if self.0.read(0, &mut bytes).is_err() {
            return known;
        }
        let mut counters = known;
        for role in [Role::Input, Role::Weight, Role::Gradient] {
            let i = role as usize;
            let mut own = [0; Seen::BYTES];
            own.copy_from_slice(&bytes[i * Seen::BYTES..][..Seen::BYTES]);
            let seen = Seen::from_bytes(own);
            counters.saturated[i] += seen.saturated;
            counters.underflowed[i] += seen.underflowed;
            counters.non_finite[i] += seen.non_finite;
            let mut amax = [0; size_of::<f32>()];
            amax.copy_from_slice(&bytes[Self::watched_at(role)..][..size_of::<f32>()]);
            counters.amax[i] = f64::from(f32::from_le_bytes(amax).min(f32::MAX));
        }
        counters
    }
}

/// The float at byte `at`, after all that was asked before.
pub(super) fn float(memory: &Memory, at: usize) -> Result<f32> {
    let mut bytes = [0; size_of::<f32>()];
    memory.read(at, &mut bytes).map_err(Error::from)?;
    Ok(f32::from_le_bytes(bytes))
}
