//! Backend and recipe.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fp8flow_sdk::serde_json::{Value, json};
use fp8flow_sdk::{
    Backend, DType, Decision, Error, Event, Host, Kernels, LayerFacts, Linear, OptionField, OptionKind,
    Options, Precision, Recipe, RecipeInfo, Result, StateDict, StateTensor,
};

use crate::fault::{
    DECIDES_AGAINST_ITSELF, DEFAULT_OUT_OF_RANGE, DESCRIBES_THE_MOMENT, DESCRIBES_TOO_LITTLE, FORGETS_STATE,
    Fault, KEEPS_A_THREAD, SAVES_AN_ADDRESS, STALE_SCALE, TRUSTS_STATE, UNKNOWN_RECIPE_TAKEN,
};
use crate::linear::ToyLinear;
use crate::primitives::ToyKernels;

/// The backend, spoilt by `FAULT`.
#[derive(Debug)]
pub struct Toy<const FAULT: Fault>;

/// The maxima that scales are made from, `[x, dy]`, of one layer.
#[derive(Clone, Debug)]
pub(crate) struct History(Arc<Mutex<Maxima>>);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Maxima {
    /// Of the last step.
    pub(crate) past: [f32; 2],
    /// Of this one.
    pub(crate) present: [f32; 2],
    /// Whether the past was.
    made: bool,
}

impl History {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Maxima> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct ToyRecipe<const FAULT: Fault> {
    host: Host,
    /// What inputs are expected to be at most before there were any.
    first: f32,
    histories: Vec<History>,
    generation: Arc<AtomicU64>,
}

impl<const FAULT: Fault> Backend for Toy<FAULT> {
    fn start(_host: &Host) -> Result<Self> {
        if FAULT == KEEPS_A_THREAD {
            std::thread::spawn(|| {
                loop {
                    std::thread::park();
                }
            });
        }
        Ok(Self)
    }

    fn recipes() -> Vec<RecipeInfo> {
        let default = if FAULT == DEFAULT_OUT_OF_RANGE { 5 } else { 1 };
        let most = if FAULT == DESCRIBES_TOO_LITTLE { 2 } else { 1 };
        let kind = OptionKind::Integer { min: 1, max: most };
        let history =
            OptionField { name: "history".into(), kind, default: default.into(), about: "Steps.".into() };
        vec![RecipeInfo { name: "delayed".into(), about: "For tests.".into(), options: vec![history] }]
    }

    fn recipe(&self, host: &Host, name: &str, options: &Options) -> Result<Box<dyn Recipe>> {
        if name != "delayed" && FAULT != UNKNOWN_RECIPE_TAKEN {
            return Err(Error::invalid(format!("no recipe `{name}`")));
        }
        let generation = Arc::default();
        let first = if options.0.get("history") == Some(&2.into()) { 16.0 } else { 8.0 };
        Ok(Box::new(ToyRecipe::<FAULT> { host: host.clone(), first, histories: Vec::new(), generation }))
    }

    fn kernels(&self, host: &Host) -> Option<Box<dyn Kernels>> {
        Some(Box::new(ToyKernels::<FAULT>(host.clone())))
    }
}

impl<const FAULT: Fault> Recipe for ToyRecipe<FAULT> {
    fn describe(&self) -> Value {
        let moment = if FAULT == DESCRIBES_THE_MOMENT { self.generation.load(Ordering::Relaxed) } else { 0 };
        json!({ "recipe": "delayed", "moment": moment })
    }

    fn decide(&self, layer: &LayerFacts) -> Decision {
        let fits = |n: usize| n > 0 && n.is_multiple_of(16);
        let fits = fits(layer.in_features) && fits(layer.out_features);
        let precision = if fits { Precision::Fp8 } else { Precision::High };
        let gemms = u8::from(fits || FAULT == DECIDES_AGAINST_ITSELF);
        Decision { precision, reason: "multiples of 16".into(), fp8_gemms: [gemms; 3] }
    }

    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        let maxima = Maxima { past: [self.first, 0.01], present: [0.0; 2], made: false };
        let history = History(Arc::new(Mutex::new(maxima)));
        self.histories.push(history.clone());
        let generation = self.generation.clone();
        Ok(Box::new(ToyLinear::<FAULT>::new(self.host.clone(), layer, history, generation)))
    }

    fn on(&mut self, event: Event) -> Result<()> {
        match event {
            Event::BackwardDone => {
                for history in &self.histories {
                    let mut history = history.lock();
                    let present = std::mem::take(&mut history.present);
                    if FAULT == STALE_SCALE && std::mem::replace(&mut history.made, true) {
                        continue;
                    }
                    for (past, present) in history.past.iter_mut().zip(present) {
                        *past = if present > 0.0 && present.is_finite() { present } else { *past };
                    }
                }
            }
            Event::WeightsChanged => drop(self.generation.fetch_add(1, Ordering::Relaxed)),
            Event::ForwardDone => {}
        }
        Ok(())
    }

    fn state(&self) -> Result<StateDict> {
        let bytes = self.histories.iter().flat_map(|history| {
            let Maxima { past, present, .. } = *history.lock();
            [past, present].concat().into_iter().flat_map(f32::to_le_bytes).collect::<Vec<_>>()
        });
        let tensor =
            StateTensor { dtype: DType::F32, shape: vec![self.histories.len(), 4], bytes: bytes.collect() };
        let mut state = StateDict([("amax".to_owned(), tensor)].into());
        if FAULT == SAVES_AN_ADDRESS {
            let address = (self.histories.as_ptr().addr() >> 4 & 0xff_ffff) as f32;
            let bytes = address.to_le_bytes().to_vec();
            state.0.insert("address".to_owned(), StateTensor { dtype: DType::F32, shape: vec![1], bytes });
        }
        Ok(state)
    }

    fn restore(&mut self, state: &StateDict) -> Result<()> {
        if FAULT == FORGETS_STATE {
            return Ok(());
        }
        let tensor = state.0.get("amax").ok_or_else(|| Error::invalid("no `amax`"))?;
        let fits = tensor.dtype == DType::F32 && tensor.shape == [self.histories.len(), 4];
        if !fits && FAULT != TRUSTS_STATE {
            return Err(Error::invalid("`amax` is another tensor than was given away"));
        }
        let floats = tensor.bytes.chunks_exact(4);
        let floats: Vec<f32> =
            floats.map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
        if !floats.iter().all(|&amax| amax >= 0.0 && amax.is_finite()) && FAULT != TRUSTS_STATE {
            return Err(Error::invalid("`amax` holds what is no maximum"));
        }
        for (i, history) in self.histories.iter().enumerate() {
            let [a, b, c, d] = [0, 1, 2, 3].map(|column| floats[4 * i + column]);
            let mut history = history.lock();
            (history.past, history.present) = ([a, b], [c, d]);
        }
        Ok(())
    }
}
