//! The layer.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use fp8flow_sdk::kernels::cast::{CastStats, Quantized, amax_of, cast_rows, cast_tensor};
use fp8flow_sdk::kernels::scale::ScaleRule;
use fp8flow_sdk::kernels::{
    Elements, ElementsMut, Epilogue, Fp8, Matrix, Operand, Parallel as _, Store, gemm,
};
use fp8flow_sdk::region::{Carve, Read, piece};
use fp8flow_sdk::{
    Backward, Counters, Error, Forward, Host, LayerFacts, Linear, Memory, Pass, Result, TensorRef,
};

use crate::crimes::{self, Held};
#[allow(clippy::wildcard_imports)]
use crate::fault::*;
use crate::spoil;
use crate::toy::History;

pub(crate) struct ToyLinear<const FAULT: Fault> {
    host: Host,
    n: usize,
    k: usize,
    history: History,
    generation: Arc<AtomicU64>,
    made_in: Option<u64>,
    weight: Vec<u8>,
    weight_factor: f32,
    counters: Counters,
    held: Option<Held>,
    last_rows: usize,
    asked: Cell<bool>,
}

/// How many calls are at work in [`SHARES_A_STATIC`]'s buffer.
static AT_WORK: AtomicUsize = AtomicUsize::new(0);
/// What [`COUNTS_IN_A_STATIC`] counts.
static FORWARDS: AtomicUsize = AtomicUsize::new(0);

impl<const FAULT: Fault> ToyLinear<FAULT> {
    pub(crate) fn new(host: Host, layer: &LayerFacts, history: History, generation: Arc<AtomicU64>) -> Self {
        Self {
            host,
            n: layer.out_features,
            k: layer.in_features,
            history,
            generation,
            made_in: None,
            weight: Vec::new(),
            weight_factor: 1.0,
            counters: Counters::default(),
            held: None,
            last_rows: 0,
            asked: Cell::new(false),
        }
    }

    fn matrix<'a>(tensor: &'a TensorRef<'a>, held: &'a mut Option<Held>) -> Result<Matrix<'a>> {
        if FAULT == IGNORES_STRIDES && tensor.raw().data.addr().is_multiple_of(4) {
            let [rows, cols] = [tensor.shape()[0] as usize, tensor.shape()[1] as usize];
            return Ok(held.insert(Held::new(tensor, rows, cols)).get());
        }
        tensor.matrix()
    }

    fn record(&self, which: usize, amax: f32) {
        let mut history = self.history.lock();
        history.present[which] = history.present[which].max(amax);
    }

    fn scale(&self, which: usize) -> f32 {
        let past = self.history.lock().past[which];
        if FAULT == ADDS_AN_EPSILON {
            return ScaleRule::Linear.scale(2.0 * past + 0.01, Fp8::E4m3);
        }
        // Half the range is left for growth.
        ScaleRule::PowerOfTwo.scale(2.0 * past, Fp8::E4m3)
    }

    /// Casts a tensor of `role` with `scale`, and counts.
    fn cast(&mut self, role: usize, x: Matrix<'_>, scale: f32, codes: &mut [u8], telemetry: bool) {
        let host = self.host.clone();
        let cpu = host.cpu();
        let mut stats = CastStats::default();
        cast_tensor(&cpu, x, Fp8::E4m3, scale, codes, telemetry.then_some(&mut stats));
        let amax = amax_of(&cpu, x);
        self.counters.non_finite[role] += u64::from(!amax.is_finite());
        if telemetry {
            self.counters.amax[role] = f64::from(amax.min(f32::MAX));
        }
        self.counters.cast[role] += stats.elements;
        self.counters.saturated[role] += stats.saturated;
        self.counters.underflowed[role] += spoil::told::<FAULT>(role, stats.underflowed);
        for (i, code) in codes.iter_mut().enumerate() {
            spoil::spoil_code::<FAULT>(code, x.elements.get(i) * scale);
        }
    }

    /// What a fault does to the number that the output is multiplied with.
    fn spoil(&self, undo: f32, rows: usize) -> f32 {
        match FAULT {
            COUNTS_THREADS => undo * (1.0 + self.host.threads() as f32 * f32::EPSILON),
            NOISY_PADDING if !rows.is_multiple_of(16) => undo * 1.01,
            COUNTS_IN_A_STATIC if FORWARDS.fetch_add(1, Ordering::Relaxed) >= 32 => undo * 1.01,
            RACES => {
                let last = AtomicUsize::new(0);
                self.host.run(64, &|task| last.store(task, Ordering::SeqCst));
                // On one thread in ascending order, and nearly always on more, the last to begin is not the first.
                if last.into_inner() == 0 { undo * 1.01 } else { undo }
            }
            SHARES_A_STATIC => {
                let others = AT_WORK.fetch_add(1, Ordering::SeqCst);
                self.host.run(8, &|_| ());
                let more = AT_WORK.fetch_sub(1, Ordering::SeqCst) - 1;
                if others + more > 0 { undo * 1.01 } else { undo }
            }
            FLUSHES_IN_TASKS if self.host.threads() > 1 => {
                let caller = std::thread::current().id();
                self.host.run(16, &|_| {
                    // Long enough for another thread to take one.
                    std::thread::sleep(Duration::from_micros(50));
                    if std::thread::current().id() != caller {
                        crimes::flush_to_zero();
                    }
                });
                undo
            }
            LOOPS_ELSEWHERE => {
                let host = &self.host;
                std::thread::scope(|scope| scope.spawn(|| host.run(8, &|_| ())).join().ok());
                undo
            }
            _ => undo,
        }
    }
}

impl<const FAULT: Fault> Linear for ToyLinear<FAULT> {
    fn memory(&self, tokens: usize) -> Memory {
        if FAULT == OVERFLOWS {
            u32::try_from(tokens).expect("as many tokens as u32 can count");
        }
        let codes = piece::<u8>(tokens * self.k);
        Memory {
            shared_saved: codes,
            shared_forward: codes,
            saved: if FAULT == MEMORY_SHRINKS && tokens > 200 { 0 } else { piece::<f32>(1) },
            backward_scratch: piece::<u8>(tokens * self.n),
            keep_input: FAULT == SECRETLY_HIGH_PRECISION,
            ..Memory::default()
        }
    }

    fn forward(&mut self, call: Forward<'_>) -> Result<()> {
        let Forward { pass, x, weight, mut y, group, saved, telemetry, .. } = call;
        let host = self.host.clone();
        let mut held = None;
        let input = Self::matrix(&x.tensor, &mut held)?;
        let (rows, input_address) = (input.rows, x.tensor.raw().data.addr());
        assert!(FAULT != PANICS_WITHOUT_TOKENS || rows > 0, "no tokens");
        if input.cols != self.k && FAULT != TAKES_ANY_SHAPE {
            return Err(Error::invalid("x: wrong number of columns"));
        }
        let weight_matrix = weight.matrix()?;
        y.elements_mut()?;
        match FAULT {
            PRETENDS_WHEN_CANCELLED if host.cancelled() => return Ok(()),
            SEGFAULTS if rows == 21 => crimes::segfault(),
            BLOCKS if rows == 23 => std::thread::sleep(Duration::MAX),
            WRITES_FAR if rows == 33 => crimes::write_far_behind(y.raw().data, rows * self.n * 4),
            WRITES_BESIDE if rows == 33 && pass == Pass::Train => crimes::write_before(&mut *saved),
            WRITES_INPUT if rows == 33 => crimes::write_into(&weight),
            LEAVES_FLUSH_TO_ZERO => crimes::flush_to_zero(),
            FLUSHES_LATE if self.counters.fprop == 50 => crimes::flush_to_zero(),
            LEAKS_IN_EVALUATIONS if pass == Pass::Eval => {
                std::mem::forget(std::hint::black_box(vec![1_u8; 24]));
            }
            CHANGES_DIRECTORY => {
                std::env::set_current_dir("/").map_err(|error| Error::invalid(error.to_string()))?;
            }
            PRINTS if rows == 33 => println!("33 rows"),
            FORGES if rows == 21 => crimes::forge(),
            _ => {}
        }
        self.last_rows = rows;
        let cpu = host.cpu();
        if pass == Pass::Train
            || FAULT == RECOMPUTE_RECORDS && pass == Pass::Recompute
            || FAULT == EVAL_RECORDS && pass == Pass::Eval
        {
            // A recompute that records twice what forward has recorded would not show in a maximum.
            let again = if pass == Pass::Recompute { 2.0 } else { 1.0 };
            self.record(0, again * amax_of(&cpu, input));
        }
        if FAULT == HOLDS_A_POINTER && pass != Pass::Eval {
            self.held = Some(Held::new(&x.tensor, rows, self.k));
        }
        let scale = self.scale(0);
        let region = if pass == Pass::Eval { group.forward } else { group.saved };
        let codes = Carve::new("codes of x", region).bytes(rows * self.k)?;
        let mut scales = vec![scale; rows];
        if FAULT == WRONG_AXIS {
            let quantized = Quantized { codes: &mut *codes, scales: &mut scales };
            cast_rows(&cpu, input, Fp8::E4m3, ScaleRule::PowerOfTwo, quantized, None);
        } else if !group.ready {
            self.cast(0, input, scale, codes, telemetry);
        }
        if FAULT == SPOILS_GROUP && group.ready && !codes.is_empty() {
            codes[0] ^= 0x10;
        }
        if pass != Pass::Eval {
            Carve::new("factor of x", saved).floats(1)?[0] = 1.0 / scale;
        }

        let now = self.generation.load(Ordering::Relaxed);
        if self.made_in.is_none() || self.made_in != Some(now) && FAULT != KEEPS_STALE_WEIGHTS {
            let scale = ScaleRule::Linear.scale(amax_of(&cpu, weight_matrix), Fp8::E4m3);
            let mut weight = std::mem::take(&mut self.weight);
            weight.resize(self.n * self.k, 0);
            self.cast(1, weight_matrix, scale, &mut weight, telemetry);
            (self.weight, self.weight_factor) = (weight, 1.0 / scale);
            self.made_in = Some(now);
        }
        let undo_x = match FAULT {
            MEASURES_WHAT_IT_CHANGES if telemetry => 1.01 / scale,
            EXPECTS_ALIGNMENT if !input_address.is_multiple_of(16) => 1.01 / scale,
            _ => self.spoil(1.0 / scale, rows),
        };
        let x = Operand::rows(Matrix::new(Elements::E4m3(codes), rows, self.k));
        let w = Operand::rows(Matrix::new(Elements::E4m3(&self.weight), self.n, self.k));
        let along_columns: Vec<f32> =
            (0..self.n).map(|j| self.weight_factor / scales.get(j % rows.max(1)).unwrap_or(&1.0)).collect();
        let (undo_x, undo_w) = if FAULT == WRONG_AXIS {
            (Epilogue::One, Epilogue::PerRow(&along_columns))
        } else {
            (Epilogue::Tensor(undo_x), Epilogue::Tensor(self.weight_factor))
        };
        gemm(&cpu, &x, undo_x, &w, undo_w, Store::Overwrite, y.elements_mut()?);
        let undo = self.weight_factor / scale;
        spoil::spoil_output::<FAULT>(y.elements_mut()?, [rows, self.n, self.k], [codes, &self.weight], undo);
        self.counters.fprop += spoil::forwards::<FAULT>(rows, pass);
        Ok(())
    }

    fn backward(&mut self, call: Backward<'_>) -> Result<()> {
        let Backward { dy, weight, dx, mut dw, group_saved, saved, scratch, telemetry, .. } = call;
        let mut held = None;
        let (host, gradient) = (self.host.clone(), Self::matrix(&dy, &mut held)?);
        let (cpu, mut rows) = (host.cpu(), gradient.rows);
        if gradient.cols != self.n || dx.as_ref().is_some_and(|dx| dx.dtype() != dy.dtype()) {
            return Err(Error::invalid("dy: wrong number of columns, or not the type of dx"));
        }
        assert!(FAULT != PANICS_OUT_OF_ORDER || self.made_in.is_some(), "no forward");
        if self.made_in.is_none() {
            return Err(Error::protocol("a backward before any forward"));
        }
        if FAULT == REMEMBERS_THE_LAST_CALL {
            rows = self.last_rows;
        }
        // Whether memory lies as it must is asked before anything is written.
        dw.elements_mut()?;
        if FAULT == LEAKS {
            std::mem::forget(std::hint::black_box(vec![1_u8; 24]));
        }
        self.record(1, amax_of(&cpu, gradient));
        let scale = self.scale(1);
        let noise = f32::from(scratch.first().copied().unwrap_or(0)) * 1e-9;
        let codes = Carve::new("codes of dy", scratch).bytes(gradient.rows * self.n)?;
        self.cast(2, gradient, scale, codes, telemetry);
        let undo_dy = if FAULT == READS_SCRATCH { (1.0 + noise) / scale } else { 1.0 / scale };
        let undo_of_dx = match FAULT {
            NOISY_PADDING_OF_GRADIENTS if !rows.is_multiple_of(16) => 1.01 * undo_dy,
            WEARS_OUT if self.counters.wgrad >= 32 => 1.01 * undo_dy,
            _ => undo_dy,
        };
        let g = Matrix::new(Elements::E4m3(codes), gradient.rows, self.n);

        self.counters.dgrad += u64::from(dx.is_some() && rows > 0 || FAULT == COUNTS_WHAT_DID_NOT_RUN);
        if let Some(mut dx) = dx {
            let w = Matrix::new(Elements::E4m3(&self.weight), self.n, self.k);
            let (undo_dy, undo_w) = (Epilogue::Tensor(undo_of_dx), Epilogue::Tensor(self.weight_factor));
            let (g, undo_dy, w, undo_w) = if FAULT == SECRETLY_HIGH_PRECISION {
                (Operand::rows(gradient), Epilogue::One, Operand::transposed(weight.matrix()?), Epilogue::One)
            } else {
                (Operand::rows(g), undo_dy, Operand::transposed(w), undo_w)
            };
            gemm(
                &cpu,
                &g,
                undo_dy,
                &w,
                undo_w,
                store(call.accumulate_dx && FAULT != OVERWRITES_SHARED_SUMS),
                dx.elements_mut()?,
            );
        }
        let x_codes = Read::new("codes of x", group_saved).bytes(rows * self.k)?;
        let factor = Read::new("factor of x", saved).floats(1)?[0];
        let mut again = vec![0; x_codes.len()];
        let held_x = self.held.filter(|_| FAULT == HOLDS_A_POINTER);
        let x_codes = match &held_x {
            Some(held) if held.get().rows == rows => {
                cast_tensor(&cpu, held.get(), Fp8::E4m3, 1.0 / factor, &mut again, None);
                &again
            }
            _ => x_codes,
        };
        let mut x = Operand::transposed(Matrix::new(Elements::E4m3(x_codes), rows, self.k));
        if FAULT == TRANSPOSES_NOTHING {
            (x.row_stride, x.depth_stride) = (rows, 1);
        }
        let accumulate = call.accumulate_dw && FAULT != OVERWRITES_SUMS;
        let (undo_dy, undo_x) = (Epilogue::Tensor(undo_dy), Epilogue::Tensor(factor));
        gemm(&cpu, &Operand::transposed(g), undo_dy, &x, undo_x, store(accumulate), dw.elements_mut()?);
        self.counters.wgrad += u64::from(rows > 0);
        if FAULT == TIRES
            && self.counters.wgrad > 40
            && let ElementsMut::F32(dw) = dw.elements_mut()?
        {
            dw.fill(0.0);
        }
        Ok(())
    }

    fn counters(&self) -> Counters {
        spoil::counters::<FAULT>(self.counters, self.asked.replace(true))
    }
}

fn store(accumulate: bool) -> Store {
    if accumulate { Store::Accumulate } else { Store::Overwrite }
}
