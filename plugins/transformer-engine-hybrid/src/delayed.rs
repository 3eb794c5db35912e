//! The histories of one layer's three tensors, shared between the layer, which asks and notes, and the recipe, which
//! updates, saves and restores.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fp8flow_sdk::scaled::{Later, Role, Scales};
use fp8flow_sdk::{DType, Error, Pass, Result, StateDict, StateTensor};

use crate::history::{ScaleUpdate, resized, update};
use crate::recipes::DelayedOptions;

/// The roles in the order of state tensors' columns.
pub(crate) const ROLES: [Role; 3] = [Role::Input, Role::Weight, Role::Gradient];

/// The history of one tensor.
#[derive(Clone, Debug)]
struct Slot {
    rule: ScaleUpdate,
    scale: f32,
    /// Whether the scale was ever made from a maximum.
    made: bool,
    /// Entry 0 is the maximum noted since the last update, then the others, oldest first.
    history: Vec<f32>,
    /// What the last forward for training was given: a recomputed one is given the same.
    used: f32,
    /// Micro-batches since the scale was made.
    age: u64,
}

impl Slot {
    fn new(rule: ScaleUpdate, length: usize) -> Self {
        Self { rule, scale: 1.0, made: false, history: vec![0.0; length], used: 1.0, age: 0 }
    }

    fn note(&mut self, amax: f32) {
        self.history[0] = self.history[0].max(amax);
    }
}

/// The histories of one layer.
struct Histories {
    slots: [Slot; 3],
    /// Maxima that a device has yet to tell.
    outstanding: Vec<(Role, Later)>,
    /// Whether a tensor without a history is scaled by its own maximum.
    warm_start: bool,
}

/// A handle on them; clones are the same histories.
#[derive(Clone)]
pub(crate) struct LayerHistories(Arc<Mutex<Histories>>);

impl LayerHistories {
    /// Scales of 1 and histories of zeros.
    pub(crate) fn new(options: &DelayedOptions) -> Self {
        let slots = ROLES.map(|role| Slot::new(options.rule(role), options.amax_history_len));
        Self(Arc::new(Mutex::new(Histories {
            slots,
            outstanding: Vec::new(),
            warm_start: options.warm_start,
        })))
    }

    // A panic poisons the whole backend at the border; until then nothing here is half-done.
    fn lock(&self) -> MutexGuard<'_, Histories> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was noted for `role` since the last update; waits for what is outstanding.
    pub(crate) fn noted(&self, role: Role) -> Result<f32> {
        let mut slots = self.lock();
        let Histories { slots, outstanding, .. } = &mut *slots;
        for (role, amax) in outstanding.extract_if(.., |(of, _)| *of == role) {
            slots[role as usize].note(amax()?);
        }
        Ok(slots[role as usize].history[0])
    }

    /// Replaces what was noted by `amax`, the maximum over all ranks, and updates.
    pub(crate) fn update(&self, role: Role, amax: f32) {
        let slot = &mut self.lock().slots[role as usize];
        slot.history[0] = amax;
        let made = update(&mut slot.history, &mut slot.scale, slot.rule);
        slot.made |= made;
        slot.age = if made { 0 } else { slot.age + 1 };
    }

    /// Adds the layer's state: scales and ages `[3]`, histories `[length, 3]`, columns as [`ROLES`].
    pub(crate) fn save(&self, layer: &str, state: &mut StateDict) {
        let slots = &self.lock().slots;
        let length = slots[0].history.len();
        let mut add = |name: &str, shape: Vec<usize>, values: Vec<f32>| {
            let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
            state.0.insert(format!("{layer}.{name}"), StateTensor { dtype: DType::F32, shape, bytes });
        };
        add(SCALE, vec![3], slots.iter().map(|slot| slot.scale).collect());
        add(AGE, vec![3], slots.iter().map(|slot| slot.age as f32).collect());
        let rows = (0..length).flat_map(|i| slots.iter().map(move |slot| slot.history[i]));
        add(HISTORY, vec![length, 3], rows.collect());
    }

    /// Takes back what [`LayerHistories::save`] gave; a history of another length keeps its newest entries.
    pub(crate) fn restore(&self, layer: &str, state: &StateDict) -> Result<()> {
        let scales = floats(state, layer, SCALE, &|shape| shape == [3])?;
        let ages = floats(state, layer, AGE, &|shape| shape == [3])?;
        let rows = floats(state, layer, HISTORY, &|shape| shape.len() == 2 && shape[0] > 0 && shape[1] == 3)?;
        let wrong =
            |what: &str| Error::invalid(format!("state `{layer}.{what}`: not what delayed scaling keeps"));
        if !scales.iter().all(|&scale| scale.is_finite() && scale > 0.0) {
            return Err(wrong(SCALE));
        }
        // An infinity may be among them, a NaN or a negative maximum cannot.
        if !rows.iter().all(|&amax| amax >= 0.0) {
            return Err(wrong(HISTORY));
        }
        for (i, slot) in self.lock().slots.iter_mut().enumerate() {
            let history: Vec<f32> = rows.iter().skip(i).step_by(3).copied().collect();
            slot.history = resized(&history, slot.history.len());
            slot.made = scales[i] != 1.0 || history.iter().any(|&amax| amax != 0.0);
            (slot.scale, slot.used, slot.age) = (scales[i], scales[i], ages[i] as u64);
        }
        Ok(())
    }
}

const SCALE: &str = "scale";
const AGE: &str = "scale_age";
const HISTORY: &str = "amax_history";

fn floats(state: &StateDict, layer: &str, name: &str, fits: &dyn Fn(&[usize]) -> bool) -> Result<Vec<f32>> {
    let name = format!("{layer}.{name}");
    let tensor = state.0.get(&name).ok_or_else(|| Error::invalid(format!("state `{name}` is missing")))?;
    if tensor.dtype != DType::F32 || !fits(&tensor.shape) {
        let (dtype, shape) = (tensor.dtype.name(), &tensor.shape);
        return Err(Error::invalid(format!(
            "state `{name}`: {dtype} {shape:?} is not what delayed scaling keeps"
        )));
    }
    let values = tensor.bytes.chunks_exact(4);
    Ok(values.map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect())
}

impl std::fmt::Debug for LayerHistories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerHistories").field("slots", &self.lock().slots).finish_non_exhaustive()
    }
}

impl Scales for LayerHistories {
    fn scale(&mut self, role: Role, pass: Pass, amax: &mut dyn FnMut() -> f32) -> f32 {
        let mut slots = self.lock();
        let warm_start = slots.warm_start;
        let slot = &mut slots.slots[role as usize];
        if pass == Pass::Recompute {
            return slot.used;
        }
        let scale =
            if warm_start && !slot.made { slot.rule.scale(amax()).unwrap_or(slot.scale) } else { slot.scale };
        if pass == Pass::Train {
            slot.used = scale;
        }
        scale
    }

    fn record(&mut self, role: Role, amax: f32) {
        self.lock().slots[role as usize].note(amax);
    }

    fn record_later(&mut self, role: Role, amax: Later) -> Result<()> {
        self.lock().outstanding.push((role, amax));
        Ok(())
    }

    fn age(&self, role: Role) -> u64 {
        self.lock().slots[role as usize].age
    }
}
