//! What a layer's casts have seen, on the card until somebody asks.

use std::sync::Arc;

use fp8flow_cuda::Memory;
use fp8flow_cuda::cast::Counters as Seen;

use super::bench::Bench;
use super::maxima::Page;
use crate::scaled::operand::Role;
use crate::scaled::scales::Later;
use crate::{Counters, Error, Result};

/// Roles of tensors.
const ROLES: usize = 3;

/// Counters of each role, then the maxima of watched tensors; and where the maxima go that casts with delayed scales have
/// met.
#[derive(Debug)]
pub(super) struct Notes {
    memory: Memory,
    met: (Arc<Page>, usize),
}

impl Notes {
    /// Bytes on the card.
    pub(super) const BYTES: usize = ROLES * (Seen::BYTES + size_of::<f32>());

    /// Nothing seen.
    pub(super) fn new(bench: &Bench) -> Result<Self> {
        let memory = bench.card.take(Self::BYTES)?;
        memory.fill(0, Self::BYTES, 0)?;
        Ok(Self { memory, met: bench.maxima.take(&bench.card, ROLES)? })
    }

    /// Where casts of `role` count.
    pub(super) fn counters(&self, role: Role) -> u64 {
        self.memory.address() + (role as usize * Seen::BYTES) as u64
    }

    const fn watched_at(role: Role) -> usize {
        ROLES * Seen::BYTES + role as usize * size_of::<f32>()
    }

    /// Where the maximum of a watched tensor goes.
    pub(super) fn watched(&self, role: Role) -> u64 {
        self.memory.address() + Self::watched_at(role) as u64
    }

    /// Keeps the maximum that lies at `amax`, which may be written over afterwards; to be read later.
    ///
    /// # Safety
    /// That it lies on the card until the stream has come past this.
    #[allow(unsafe_code)]
    pub(super) unsafe fn keep(&self, role: Role, amax: u64) -> Result<Later> {
        let (page, first) = (self.met.0.clone(), self.met.1);
        let index = first + role as usize;
        // SAFETY: the caller's.
        unsafe { page.note(index, amax)? };
        Ok(Box::new(move || page.read(index)))
    }

    /// What the card has counted, beside what is `known`. A card that cannot be asked is lost: the engine hears of that
    /// from its own next call, so what is known is all there is to say here.
    pub(super) fn add_to(&self, known: Counters) -> Counters {
        let mut bytes = [0; Self::BYTES];
        if self.memory.read(0, &mut bytes).is_err() {
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
