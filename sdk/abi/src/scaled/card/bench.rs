//! A card with its products, one for all layers that work on the same stream.

#![allow(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError, Weak};

use fp8flow_cuda::cast::Zeros;
use fp8flow_cuda::gemm::Gemm;
use fp8flow_cuda::{Card, Memory};

use super::maxima::Maxima;
use crate::{DeviceId, Result};

/// A card and what layers share on it.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) card: Card,
    pub(super) gemm: Gemm,
    pub(super) maxima: Maxima,
    pub(super) zeros: Zeros,
}

impl Bench {
    /// That of `device`: opened, unless a layer has it open.
    pub(super) fn of(device: DeviceId) -> Result<Arc<Self>> {
        static OPEN: Mutex<Vec<(DeviceId, Weak<Bench>)>> = Mutex::new(Vec::new());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, bench)| bench.strong_count() > 0);
        if let Some(bench) = open.iter().find(|(of, _)| *of == device).and_then(|(_, bench)| bench.upgrade())
        {
            return Ok(bench);
        }
        let card = Card::on_stream(device.ordinal as usize, device.stream)?;
        let bench = Arc::new(Self {
            gemm: Gemm::new(&card)?,
            card,
            maxima: Maxima::default(),
            zeros: Zeros::default(),
        });
        open.push((device, Arc::downgrade(&bench)));
        Ok(bench)
    }

    /// `bytes` at `address` that the engine lends for a call, or keeps.
    pub(super) fn lent(&self, address: u64, bytes: usize) -> Memory {
        // SAFETY: the engine lends it for the length of a call, what it holds to whoever reads it in the same stream.
        unsafe { Memory::lent(&self.card, address, bytes) }
    }

    /// Sets `bytes` bytes at `address` to zero.
    pub(super) fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        Ok(self.lent(address, bytes).fill(0, bytes, 0)?)
    }
}
