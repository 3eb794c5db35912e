//! A C plugin's layer behind [`Linear`].

use std::ffi::c_void;
use std::sync::Arc;

use super::contract::{
    CBackward, CBytes, CCast, CConstBytes, CCounters, CForward, CMemory, checked, size_is_kept, text_at,
};
use super::recipe::{RecipeHandle, fail};
use super::table::Table;
use crate::abi::wire;
use crate::{
    Backward, Counters, Error, Forward, InputFormat, Linear, Memory, QuantizedInput, Result, TensorRef,
};

pub(super) struct CLinear {
    object: *mut c_void,
    recipe: Arc<RecipeHandle>,
}

// SAFETY: the contract lets a layer be called from one thread after another.
unsafe impl Send for CLinear {}

impl Drop for CLinear {
    fn drop(&mut self) {
        // SAFETY: the last use of the layer.
        unsafe { (self.table().linear_free)(self.object) };
    }
}

impl CLinear {
    pub(super) fn new(object: *mut c_void, recipe: Arc<RecipeHandle>) -> Self {
        Self { object, recipe }
    }

    fn table(&self) -> &Table {
        &self.recipe.backend.table
    }

    fn try_memory(&self, tokens: usize) -> Result<Memory> {
        let mut memory = CMemory { size: size_of::<CMemory>(), ..CMemory::default() };
        // SAFETY: the struct lives through the call.
        checked(|error| unsafe {
            (self.table().linear_memory)(self.object, tokens as u64, &raw mut memory, error)
        })?;
        size_is_kept("fp8flow_memory", memory.size, size_of::<CMemory>())?;
        let bytes = |bytes: u64| {
            usize::try_from(bytes).map_err(|_| Error::invalid(format!("{bytes} bytes for {tokens} tokens")))
        };
        Ok(Memory {
            shared_saved: bytes(memory.shared_saved)?,
            shared_forward: bytes(memory.shared_forward)?,
            saved: bytes(memory.saved)?,
            forward_scratch: bytes(memory.forward_scratch)?,
            backward_scratch: bytes(memory.backward_scratch)?,
            own: bytes(memory.own)?,
            keep_input: memory.keep_input != 0,
        })
    }

    fn try_counters(&self) -> Result<Counters> {
        let mut c = CCounters { size: size_of::<CCounters>(), ..CCounters::default() };
        // SAFETY: the struct lives through the call.
        checked(|error| unsafe { (self.table().linear_counters)(self.object, &raw mut c, error) })?;
        size_is_kept("fp8flow_counters", c.size, size_of::<CCounters>())?;
        let CCounters { fprop, dgrad, wgrad, high_precision, cast, saturated, underflowed, .. } = c;
        let CCounters { non_finite, amax, scale_age, .. } = c;
        Ok(Counters {
            fprop,
            dgrad,
            wgrad,
            high_precision,
            cast,
            saturated,
            underflowed,
            non_finite,
            amax,
            scale_age,
        })
    }

    fn try_input_formats(&self) -> Result<Vec<InputFormat>> {
        let Some(formats) = self.table().all.linear_input_formats else { return Ok(Vec::new()) };
        // SAFETY: a call of the contract; it returns null or a text that lives as long as the layer.
        match unsafe { text_at(formats(self.object)) } {
            Some(json) => wire::from_json(&json),
            None => Ok(Vec::new()),
        }
    }
}

/// Codes and scales on loan.
fn cast((codes, scales): (TensorRef<'_>, TensorRef<'_>)) -> CCast {
    CCast { codes: codes.raw(), scales: scales.raw() }
}

fn pointer<T>(value: Option<&T>) -> *const T {
    value.map_or(std::ptr::null(), |value| &raw const *value)
}

impl Linear for CLinear {
    /// Unwinds where the plugin fails, for the guard at the border to make it that call's error.
    fn memory(&self, tokens: usize) -> Memory {
        self.try_memory(tokens).unwrap_or_else(fail)
    }

    /// As [`Linear::memory`].
    fn input_formats(&self) -> Vec<InputFormat> {
        self.try_input_formats().unwrap_or_else(fail)
    }

    fn forward(&mut self, call: Forward<'_>) -> Result<()> {
        let Forward { pass, x, weight, y, group, saved, scratch, telemetry } = call;
        let given = x.quantized.unwrap_or(QuantizedInput { by_row: None, by_col: None });
        let (by_row, by_col) = (given.by_row.map(cast), given.by_col.map(cast));
        let call = CForward {
            size: size_of::<CForward>(),
            pass: wire::pass_code(pass),
            telemetry: telemetry.into(),
            x: x.tensor.raw(),
            x_by_row: pointer(by_row.as_ref()),
            x_by_col: pointer(by_col.as_ref()),
            weight: weight.raw(),
            y: y.raw(),
            group_ready: group.ready.into(),
            reserved: 0,
            group_saved: CBytes::from(group.saved),
            group_forward: CBytes::from(group.forward),
            saved: CBytes::from(saved),
            scratch: CBytes::from(scratch),
        };
        // SAFETY: everything the call points to was borrowed by the caller for its length.
        checked(|error| unsafe { (self.table().linear_forward)(self.object, &raw const call, error) })
    }

    fn backward(&mut self, call: Backward<'_>) -> Result<()> {
        let (x, dx) = (call.x.map(|x| x.raw()), call.dx.as_ref().map(crate::TensorMut::raw));
        let call = CBackward {
            size: size_of::<CBackward>(),
            telemetry: call.telemetry.into(),
            accumulate_dx: call.accumulate_dx.into(),
            accumulate_dw: call.accumulate_dw.into(),
            reserved: 0,
            dy: call.dy.raw(),
            weight: call.weight.raw(),
            x: pointer(x.as_ref()),
            dx: pointer(dx.as_ref()),
            dw: call.dw.raw(),
            group_saved: CConstBytes::from(call.group_saved),
            saved: CConstBytes::from(call.saved),
            scratch: CBytes::from(call.scratch),
        };
        // SAFETY: as above.
        checked(|error| unsafe { (self.table().linear_backward)(self.object, &raw const call, error) })
    }

    /// As [`Linear::memory`].
    fn counters(&self) -> Counters {
        self.try_counters().unwrap_or_else(fail)
    }
}
