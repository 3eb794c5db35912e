//! A small honest backend with delayed scaling by tensor, and ways to spoil it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use fp8flow_sdk::kernels::cast::{amax_of, cast_tensor};
use fp8flow_sdk::kernels::scale::ScaleRule;
use fp8flow_sdk::kernels::{Elements, Epilogue, Fp8, Matrix, Operand, Store, gemm};
use fp8flow_sdk::region::{Carve, Read, piece};
use fp8flow_sdk::{
    Backend, Backward, Counters, DType, Decision, Error, Event, Forward, Host, Kernels, LayerFacts, Linear,
    Memory, OptionField, OptionKind, Options, Pass, Precision, Recipe, RecipeInfo, Result, StateDict,
    StateTensor,
};
use serde_json::json;

use crate::primitives::ToyKernels;

/// What is wrong with a [`Toy`]. (Constant parameters cannot be enums.)
pub(crate) type Fault = u8;
pub(crate) const NONE: Fault = 0;
pub(crate) const DEFAULT_OUT_OF_RANGE: Fault = 1;
pub(crate) const DECIDES_AGAINST_ITSELF: Fault = 2;
pub(crate) const DESCRIBES_THE_MOMENT: Fault = 3;
pub(crate) const MEMORY_SHRINKS: Fault = 4;
pub(crate) const PANICS_WITHOUT_TOKENS: Fault = 5;
pub(crate) const READS_SCRATCH: Fault = 6;
pub(crate) const COUNTS_THREADS: Fault = 7;
pub(crate) const SPOILS_GROUP: Fault = 8;
pub(crate) const RECOMPUTE_RECORDS: Fault = 9;
pub(crate) const EVAL_RECORDS: Fault = 10;
pub(crate) const FORGETS_STATE: Fault = 11;
pub(crate) const COUNTS_WHAT_DID_NOT_RUN: Fault = 12;
pub(crate) const SECRETLY_HIGH_PRECISION: Fault = 13;
pub(crate) const TRANSPOSES_NOTHING: Fault = 14;
pub(crate) const KEEPS_STALE_WEIGHTS: Fault = 15;
pub(crate) const NOISY_PADDING: Fault = 16;
pub(crate) const OVERWRITES_SUMS: Fault = 17;
pub(crate) const FORGETS_A_SCALE: Fault = 18;
pub(crate) const UNKNOWN_RECIPE_TAKEN: Fault = 19;
pub(crate) const TAKES_ANY_SHAPE: Fault = 20;

pub(crate) struct Toy<const FAULT: Fault>;

/// The maxima that scales are made from, `[x, dy]`, of one layer.
#[derive(Debug)]
struct History {
    /// Of the last step.
    past: [f32; 2],
    /// Of this one.
    present: [f32; 2],
}

struct ToyRecipe<const FAULT: Fault> {
    host: Host,
    histories: Vec<Arc<Mutex<History>>>,
    generation: Arc<AtomicU64>,
}

struct ToyLinear<const FAULT: Fault> {
    host: Host,
    n: usize,
    k: usize,
    history: Arc<Mutex<History>>,
    generation: Arc<AtomicU64>,
    made_in: Option<u64>,
    weight: Vec<u8>,
    weight_factor: f32,
    counters: Counters,
}

impl<const FAULT: Fault> Backend for Toy<FAULT> {
    fn start(_host: &Host) -> Result<Self> {
        Ok(Self)
    }

    fn recipes() -> Vec<RecipeInfo> {
        let default = if FAULT == DEFAULT_OUT_OF_RANGE { 5 } else { 1 };
        let kind = OptionKind::Integer { min: 1, max: 1 };
        let history =
            OptionField { name: "history".into(), kind, default: default.into(), about: "Steps.".into() };
        vec![RecipeInfo { name: "delayed".into(), about: "For tests.".into(), options: vec![history] }]
    }

    fn recipe(&self, host: &Host, name: &str, _options: &Options) -> Result<Box<dyn Recipe>> {
        if name != "delayed" && FAULT != UNKNOWN_RECIPE_TAKEN {
            return Err(Error::invalid(format!("no recipe `{name}`")));
        }
        let generation = Arc::default();
        Ok(Box::new(ToyRecipe::<FAULT> { host: host.clone(), histories: Vec::new(), generation }))
    }

    fn kernels(&self, host: &Host) -> Option<Box<dyn Kernels>> {
        Some(Box::new(ToyKernels::<FAULT>(host.clone())))
    }
}

impl<const FAULT: Fault> Recipe for ToyRecipe<FAULT> {
    fn describe(&self) -> serde_json::Value {
        let moment = if FAULT == DESCRIBES_THE_MOMENT { self.generation.load(Ordering::Relaxed) } else { 0 };
        json!({ "recipe": "delayed", "moment": moment })
    }

    fn decide(&self, layer: &LayerFacts) -> Decision {
        let fits = layer.in_features.is_multiple_of(16) && layer.out_features.is_multiple_of(16);
        let precision = if fits { Precision::Fp8 } else { Precision::High };
        let gemms = u8::from(fits || FAULT == DECIDES_AGAINST_ITSELF);
        Decision { precision, reason: "multiples of 16".into(), fp8_gemms: [gemms; 3] }
    }

    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        let history = Arc::new(Mutex::new(History { past: [8.0, 0.01], present: [0.0; 2] }));
        self.histories.push(history.clone());
        Ok(Box::new(ToyLinear::<FAULT> {
            host: self.host.clone(),
            n: layer.out_features,
            k: layer.in_features,
            history,
            generation: self.generation.clone(),
            made_in: None,
            weight: Vec::new(),
            weight_factor: 1.0,
            counters: Counters::default(),
        }))
    }

    fn on(&mut self, event: Event) -> Result<()> {
        match event {
            Event::BackwardDone => {
                for history in &self.histories {
                    let mut history = history.lock().unwrap();
                    let present = std::mem::take(&mut history.present);
                    for (past, present) in history.past.iter_mut().zip(present) {
                        *past = if present > 0.0 { present } else { *past };
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
            let History { past, present } = *history.lock().unwrap();
            [past, present].concat().into_iter().flat_map(f32::to_le_bytes).collect::<Vec<_>>()
        });
        let tensor =
            StateTensor { dtype: DType::F32, shape: vec![self.histories.len(), 4], bytes: bytes.collect() };
        Ok(StateDict([("amax".to_owned(), tensor)].into()))
    }

    fn restore(&mut self, state: &StateDict) -> Result<()> {
        if FAULT == FORGETS_STATE {
            return Ok(());
        }
        let tensor = state.0.get("amax").ok_or_else(|| Error::invalid("no `amax`"))?;
        for (history, row) in self.histories.iter().zip(tensor.bytes.chunks(16)) {
            let number = |i: usize| f32::from_le_bytes(row[4 * i..][..4].try_into().unwrap());
            let (past, present) = ([number(0), number(1)], [number(2), number(3)]);
            *history.lock().unwrap() = History { past, present };
        }
        Ok(())
    }
}

impl<const FAULT: Fault> Linear for ToyLinear<FAULT> {
    fn memory(&self, tokens: usize) -> Memory {
        let codes = piece::<u8>(tokens * self.k);
        Memory {
            shared_saved: codes,
            shared_forward: codes,
            saved: if FAULT == MEMORY_SHRINKS && tokens > 100 { 0 } else { piece::<f32>(1) },
            backward_scratch: piece::<u8>(tokens * self.n),
            keep_input: FAULT == SECRETLY_HIGH_PRECISION,
            ..Memory::default()
        }
    }

    fn forward(&mut self, call: Forward<'_>) -> Result<()> {
        let Forward { pass, x, weight, mut y, group, saved, .. } = call;
        let (host, x) = (self.host.clone(), x.tensor.matrix()?);
        assert!(FAULT != PANICS_WITHOUT_TOKENS || x.rows > 0, "no tokens");
        if x.cols != self.k && FAULT != TAKES_ANY_SHAPE {
            return Err(Error::invalid("x: wrong number of columns"));
        }
        let cpu = host.cpu();
        if pass == Pass::Train
            || FAULT == RECOMPUTE_RECORDS && pass == Pass::Recompute
            || FAULT == EVAL_RECORDS && pass == Pass::Eval
        {
            // A recompute that records twice what forward has recorded would not show in a maximum.
            let again = if pass == Pass::Recompute { 2.0 } else { 1.0 };
            self.record(0, again * amax_of(&cpu, x));
        }
        let scale = self.scale(0);
        let region = if pass == Pass::Eval { group.forward } else { group.saved };
        let codes = Carve::new("codes of x", region).bytes(x.rows * self.k)?;
        if !group.ready {
            cast_tensor(&cpu, x, Fp8::E4m3, scale, codes, None);
        }
        if FAULT == SPOILS_GROUP && group.ready && !codes.is_empty() {
            codes[0] ^= 0x10;
        }
        if pass != Pass::Eval {
            Carve::new("factor of x", saved).floats(1)?[0] = 1.0 / scale;
        }

        let now = self.generation.load(Ordering::Relaxed);
        if self.made_in.is_none() || self.made_in != Some(now) && FAULT != KEEPS_STALE_WEIGHTS {
            let weight = weight.matrix()?;
            let scale = ScaleRule::Linear.scale(amax_of(&cpu, weight), Fp8::E4m3);
            self.weight.resize(self.n * self.k, 0);
            cast_tensor(&cpu, weight, Fp8::E4m3, scale, &mut self.weight, None);
            self.weight_factor = 1.0 / scale;
            self.made_in = Some(now);
        }
        let mut undo_x = 1.0 / scale;
        if FAULT == COUNTS_THREADS {
            undo_x *= 1.0 + host.threads() as f32 * f32::EPSILON;
        }
        if FAULT == NOISY_PADDING && x.rows % 16 != 0 {
            undo_x *= 1.01;
        }
        let x = Operand::rows(Matrix::new(Elements::E4m3(codes), x.rows, self.k));
        let w = Operand::rows(Matrix::new(Elements::E4m3(&self.weight), self.n, self.k));
        let (undo_x, undo_w) = (Epilogue::Tensor(undo_x), Epilogue::Tensor(self.weight_factor));
        gemm(&cpu, &x, undo_x, &w, undo_w, Store::Overwrite, y.elements_mut()?);
        self.counters.fprop += 1;
        self.counters.cast[0] += u64::from(call.telemetry);
        Ok(())
    }

    fn backward(&mut self, call: Backward<'_>) -> Result<()> {
        let Backward { dy, weight, dx, mut dw, group_saved, saved, scratch, .. } = call;
        let (host, dy) = (self.host.clone(), dy.matrix()?);
        let (cpu, rows) = (host.cpu(), dy.rows);
        if dy.cols != self.n || dx.as_ref().is_some_and(|dx| dx.dtype() != call.dy.dtype()) {
            return Err(Error::invalid("dy: wrong number of columns, or not the type of dx"));
        }
        self.record(1, amax_of(&cpu, dy));
        let scale = self.scale(1);
        let noise = f32::from(scratch.first().copied().unwrap_or(0)) * 1e-6;
        let codes = Carve::new("codes of dy", scratch).bytes(rows * self.n)?;
        cast_tensor(&cpu, dy, Fp8::E4m3, scale, codes, None);
        let undo_dy = if FAULT == READS_SCRATCH { (1.0 + noise) / scale } else { 1.0 / scale };
        let g = Matrix::new(Elements::E4m3(codes), rows, self.n);

        self.counters.dgrad += u64::from(dx.is_some() || FAULT == COUNTS_WHAT_DID_NOT_RUN);
        if let Some(mut dx) = dx {
            let w = Matrix::new(Elements::E4m3(&self.weight), self.n, self.k);
            let (undo_dy, undo_w) = (Epilogue::Tensor(undo_dy), Epilogue::Tensor(self.weight_factor));
            let (g, undo_dy, w, undo_w) = if FAULT == SECRETLY_HIGH_PRECISION {
                (Operand::rows(dy), Epilogue::One, Operand::transposed(weight.matrix()?), Epilogue::One)
            } else {
                (Operand::rows(g), undo_dy, Operand::transposed(w), undo_w)
            };
            gemm(&cpu, &g, undo_dy, &w, undo_w, store(call.accumulate_dx), dx.elements_mut()?);
        }
        let x_codes = Read::new("codes of x", group_saved).bytes(rows * self.k)?;
        let undo_x = Epilogue::Tensor(Read::new("factor of x", saved).floats(1)?[0]);
        let mut x = Operand::transposed(Matrix::new(Elements::E4m3(x_codes), rows, self.k));
        if FAULT == TRANSPOSES_NOTHING {
            (x.row_stride, x.depth_stride) = (rows, 1);
        }
        let accumulate = call.accumulate_dw && FAULT != OVERWRITES_SUMS;
        let undo_dy = Epilogue::Tensor(undo_dy);
        gemm(&cpu, &Operand::transposed(g), undo_dy, &x, undo_x, store(accumulate), dw.elements_mut()?);
        self.counters.wgrad += 1;
        Ok(())
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl<const FAULT: Fault> ToyLinear<FAULT> {
    fn record(&self, which: usize, amax: f32) {
        let mut history = self.history.lock().unwrap();
        history.present[which] = history.present[which].max(amax);
    }

    fn scale(&self, which: usize) -> f32 {
        // Half the range is left for growth.
        ScaleRule::PowerOfTwo.scale(2.0 * self.history.lock().unwrap().past[which], Fp8::E4m3)
    }
}

fn store(accumulate: bool) -> Store {
    if accumulate { Store::Accumulate } else { Store::Overwrite }
}
