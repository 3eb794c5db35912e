//! The layer on a card, and what a fault does there beside it.

#![allow(unsafe_code)]

use cudarc::driver::sys;
use fp8flow_cuda::{Card, Memory as OnCard};
use fp8flow_sdk::scaled::ScaledLinear;
use fp8flow_sdk::{Backward, Counters, DeviceId, Forward, Linear, Memory, Pass, Result};

use crate::{
    COUNTS_WHAT_DID_NOT_RUN, ENDS_BADLY, Fault, HOLDS_AN_ADDRESS, LOSES_A_TILE, WRITES_BESIDE, WRITES_INPUT,
};

/// Tokens of the micro-batches that faults wait for: of `bounds`, among others.
const TOKENS: u64 = 33;
/// Those of `held`.
const OTHER_TOKENS: u64 = 23;

pub(crate) struct StrayingLinear {
    fault: Fault,
    honest: ScaledLinear,
    device: DeviceId,
    held: Option<(usize, usize)>,
    counted: u64,
}

impl StrayingLinear {
    pub(crate) fn new(fault: Fault, honest: ScaledLinear, device: DeviceId) -> Self {
        Self { fault, honest, device, held: None, counted: 0 }
    }

    /// Fills memory of the card.
    fn fill(&self, address: u64, bytes: usize) -> Result<()> {
        let card = Card::on_stream(self.device.ordinal as usize, self.device.stream)?;
        // SAFETY: memory that the suite has on the card, if not always what it has lent here: that is the fault.
        let memory = unsafe { OnCard::lent(&card, address, bytes) };
        Ok(memory.fill(0, bytes, 0)?)
    }
}

impl Linear for StrayingLinear {
    fn memory(&self, tokens: usize) -> Memory {
        self.honest.memory(tokens)
    }

    fn forward(&mut self, call: Forward<'_>) -> Result<()> {
        let (pass, x, y) = (call.pass, call.x.tensor.raw(), call.y.raw());
        let (saved, forward) = (&call.group.saved, &call.group.forward);
        if pass != Pass::Eval {
            self.held = Some((saved.as_ptr().addr(), saved.len()));
        }
        let behind = (forward.as_ptr().addr() + forward.len()) as u64;
        self.honest.forward(call)?;
        let due = x.shape[0] == TOKENS && pass == Pass::Train;
        match self.fault {
            WRITES_BESIDE if due => self.fill(behind, 4),
            WRITES_INPUT if due => self.fill(x.data.addr() as u64, 4),
            LOSES_A_TILE if y.shape[0] == 64 => {
                let row = y.shape[1] as usize * y.dtype.size();
                self.fill(y.data.addr() as u64 + 48 * row as u64, 16 * row)
            }
            ENDS_BADLY if due => {
                // SAFETY: a stream that is there; that it is somebody else's is the fault.
                unsafe { sys::cuStreamDestroy_v2(self.device.stream as sys::CUstream) };
                Ok(())
            }
            ENDS_BADLY if x.shape[0] == OTHER_TOKENS => std::process::abort(),
            _ => Ok(()),
        }
    }

    fn backward(&mut self, mut call: Backward<'_>) -> Result<()> {
        if let (HOLDS_AN_ADDRESS, Some((address, bytes))) = (self.fault, self.held) {
            let address = std::ptr::without_provenance(address);
            // SAFETY: nobody reads through this slice; that it is gone by now is the fault.
            call.group_saved = unsafe { std::slice::from_raw_parts(address, bytes) };
        }
        if self.fault == COUNTS_WHAT_DID_NOT_RUN && call.dx.is_none() {
            self.counted += 1;
        }
        self.honest.backward(call)
    }

    fn counters(&self) -> Counters {
        let honest = self.honest.counters();
        Counters { dgrad: honest.dgrad + self.counted, ..honest }
    }
}
