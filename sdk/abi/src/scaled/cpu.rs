//! The layer on the CPU: casts, three GEMMs, and what is kept between forward and backward.
//!
//! | region | holds |
//! | --- | --- |
//! | `group.forward` | `x` as fprop reads it, for all layers of the group |
//! | `group.saved` | `x` as wgrad reads it; where one cast serves both, a training forward reads it here too |
//! | backward scratch | `dy` as dgrad reads it, then `dy` as wgrad reads it, if that is another cast; what GEMM works in |
//! | forward scratch | what GEMM works in |

use fp8flow_kernels::{ElementsMut, Epilogue, Matrix, Operand, Store, gemm_in, gemm_space};

use crate::region::{Carve, Read, piece};
use crate::scaled::cast::{Cast, Gemms, Granularity, Source};
use crate::scaled::operand::{self, Encoded, EncodedMut, Role, Tally};
use crate::scaled::scales::Scales;
use crate::scaled::shapes::{activations, expect};
use crate::scaled::weights::{Generation, WeightCache};
use crate::{
    Backward, Counters, DType, Error, Forward, Group, Host, Input, InputFormat, LayerFacts, Linear, Memory,
    Pass, QuantizedInput, Result, TensorRef,
};

/// A layer on the CPU.
#[derive(Debug)]
pub(super) struct CpuLinear {
    host: Host,
    /// K.
    in_features: usize,
    /// N.
    out_features: usize,
    gemms: Gemms,
    pub(super) scales: Option<Box<dyn Scales>>,
    weights: WeightCache,
    counters: Counters,
}

impl CpuLinear {
    pub(super) fn new(host: Host, layer: &LayerFacts, gemms: Gemms, generation: Generation) -> Self {
        let (n, k) = (layer.out_features, layer.in_features);
        Self {
            host,
            in_features: k,
            out_features: n,
            gemms,
            scales: None,
            weights: WeightCache::new(&gemms, n, k, generation),
            counters: Counters::default(),
        }
    }
}

impl Linear for CpuLinear {
    fn memory(&self, tokens: usize) -> Memory {
        let (k, n) = (self.in_features, self.out_features);
        let bytes = |cast: Cast, cols| operand::bytes(cast, tokens, cols);
        Memory {
            shared_saved: self.gemms.wgrad.map_or(0, |wgrad| bytes(wgrad.x, k)),
            shared_forward: bytes(self.gemms.fprop.x, k),
            saved: 0,
            forward_scratch: piece::<f32>(self.forward_space(tokens)),
            backward_scratch: bytes(self.gemms.dgrad.dy, n)
                + self.gemms.dy_again().map_or(0, |cast| bytes(cast, n))
                + piece::<f32>(self.backward_space(tokens)),
            own: self.weights.bytes(),
            keep_input: self.gemms.wgrad.is_none(),
        }
    }

    fn input_formats(&self) -> Vec<InputFormat> {
        let casts = [Some(self.gemms.fprop.x), self.gemms.x_again()];
        casts.into_iter().flatten().filter_map(Cast::input_format).collect()
    }

    fn forward(&mut self, call: Forward<'_>) -> Result<()> {
        let Forward { pass, x, weight, mut y, group, scratch, telemetry, .. } = call;
        let input = activations("x", &x.tensor, self.in_features)?;
        let weight = self.master(weight)?;
        let tokens = input.rows;
        expect("y", (y.dtype(), y.shape()), (x.tensor.dtype(), [tokens, self.out_features]))?;
        if tokens == 0 {
            return Ok(());
        }
        let host = self.host.clone();
        let cpu = host.cpu();

        let (x, seen) = self.cast_input(&x, input, pass, group, telemetry)?;
        seen.count(&mut self.counters, Role::Input);
        self.weights
            .refresh_forward(&cpu, weight, pass, self.scales.as_deref_mut(), telemetry)?
            .count(&mut self.counters, Role::Weight);

        let (x, undo_x) = x.by_rows();
        let (w, undo_w) = self.weights.fprop().by_rows();
        let space = Carve::new("forward scratch", scratch).floats(self.forward_space(tokens))?;
        gemm_in(space, &cpu, &x, undo_x, &w, undo_w, Store::Overwrite, y.elements_mut()?);
        self.counters.fprop += 1;
        Ok(())
    }

    fn backward(&mut self, call: Backward<'_>) -> Result<()> {
        let Backward { dy, weight, x, dx, mut dw, group_saved, scratch, telemetry, .. } = call;
        let (n, k) = (self.out_features, self.in_features);
        let gradient = activations("dy", &dy, n)?;
        let weight = self.master(weight)?;
        let tokens = gradient.rows;
        if let Some(dx) = &dx {
            expect("dx", (dx.dtype(), dx.shape()), (dy.dtype(), [tokens, k]))?;
        }
        expect("dw", (dw.dtype(), dw.shape()), (DType::F32, [n, k]))?;
        let input = self.wgrad_input(x, group_saved, tokens)?;
        let store_dw = store(call.accumulate_dw);
        let mut dw = dw.elements_mut()?;
        if tokens == 0 {
            if store_dw == Store::Overwrite {
                clear(&mut dw);
            }
            return Ok(());
        }
        let host = self.host.clone();
        let cpu = host.cpu();

        let mut scratch = Carve::new("backward scratch", scratch);
        let mut for_dgrad = EncodedMut::carve(&mut scratch, self.gemms.dgrad.dy, tokens, n)?;
        let again = self.gemms.dy_again();
        let mut for_wgrad = again.map(|cast| EncodedMut::carve(&mut scratch, cast, tokens, n)).transpose()?;
        let space = scratch.floats(self.backward_space(tokens))?;
        let needed = dx.is_some() || self.gemms.dy_serves_both();
        let wanted = [Some(&mut for_dgrad).filter(|_| needed), for_wgrad.as_mut()];
        let seen = self.cast(Role::Gradient, Pass::Train, gradient, wanted, telemetry)?;
        seen.count(&mut self.counters, Role::Gradient);
        let for_dgrad = for_dgrad.freeze(tokens, n);
        self.record(Role::Gradient, Pass::Train, for_dgrad);
        let for_wgrad = for_wgrad.map_or(for_dgrad, |codes| codes.freeze(tokens, n));

        if let Some(mut dx) = dx {
            self.weights
                .refresh_backward(&cpu, weight, self.scales.as_deref_mut(), telemetry)?
                .count(&mut self.counters, Role::Weight);
            let (dy, undo_dy) = for_dgrad.by_rows();
            let (w, undo_w) = self.weights.dgrad().by_cols();
            gemm_in(space, &cpu, &dy, undo_dy, &w, undo_w, store(call.accumulate_dx), dx.elements_mut()?);
            self.counters.dgrad += 1;
        }
        match input {
            WgradInput::Fp8(x) => {
                let (dy, undo_dy) = for_wgrad.by_cols();
                let (x, undo_x) = x.by_cols();
                gemm_in(space, &cpu, &dy, undo_dy, &x, undo_x, store_dw, dw);
                self.counters.wgrad += 1;
            }
            WgradInput::High(x) => {
                let (dy, x) = (Operand::transposed(gradient), Operand::transposed(x));
                gemm_in(space, &cpu, &dy, Epilogue::One, &x, Epilogue::One, store_dw, dw);
                self.counters.high_precision += 1;
            }
        }
        Ok(())
    }

    fn counters(&self) -> Counters {
        let age = |role| self.scales.as_ref().map_or(0, |scales| scales.age(role));
        Counters { scale_age: [Role::Input, Role::Weight, Role::Gradient].map(age), ..self.counters }
    }
}

/// What wgrad multiplies `dy` with.
enum WgradInput<'a> {
    Fp8(Encoded<'a>),
    High(Matrix<'a>),
}

impl CpuLinear {
    /// Floats that the GEMM of a forward call works in.
    fn forward_space(&self, tokens: usize) -> usize {
        gemm_space(self.host.cpu().isa, [tokens, self.out_features, self.in_features])
    }

    /// Floats that the GEMMs of a backward call work in, one after the other.
    fn backward_space(&self, tokens: usize) -> usize {
        let (n, k, isa) = (self.out_features, self.in_features, self.host.cpu().isa);
        gemm_space(isa, [tokens, k, n]).max(gemm_space(isa, [n, k, tokens]))
    }

    /// The f32 master as a matrix.
    fn master<'a>(&self, weight: TensorRef<'a>) -> Result<Matrix<'a>> {
        let expected = (DType::F32, [self.out_features, self.in_features]);
        expect("weight", (weight.dtype(), weight.shape()), expected)?;
        weight.matrix()
    }

    /// `x` as fprop reads it; casts it first, for forward and for what is kept, unless the group already has it.
    fn cast_input<'a>(
        &mut self,
        x: &Input<'_>,
        matrix: Matrix<'_>,
        pass: Pass,
        Group { ready, saved, forward }: Group<'a>,
        telemetry: bool,
    ) -> Result<(Encoded<'a>, Tally)> {
        let (rows, cols) = (matrix.rows, matrix.cols);
        let keep = pass != Pass::Eval;
        let mut forward = Carve::new("shared forward region", forward);
        let mut saved = Carve::new("shared saved region", saved);
        let home = if keep && self.gemms.x_serves_both() { &mut saved } else { &mut forward };
        let mut now = EncodedMut::carve(home, self.gemms.fprop.x, rows, cols)?;
        let again = self.gemms.x_again().filter(|_| keep);
        let mut later = again.map(|cast| EncodedMut::carve(&mut saved, cast, rows, cols)).transpose()?;
        let mut seen = Tally::default();
        if ready {
            let now = now.freeze(rows, cols);
            self.record(Role::Input, pass, now);
            return Ok((now, seen));
        }
        let mut missing = [Some(&mut now), later.as_mut()];
        for slot in &mut missing {
            if let Some(out) = slot
                && let Some((codes, scales)) = given(x.quantized.as_ref(), out.cast, rows, cols)?
            {
                seen += out.copy_from(codes, scales);
                *slot = None;
            }
        }
        seen += self.cast(Role::Input, pass, matrix, missing, telemetry)?;
        let now = now.freeze(rows, cols);
        self.record(Role::Input, pass, now);
        Ok((now, seen))
    }

    /// Casts `x` as each of `wanted` asks, with the recipe's scales where they are delayed.
    fn cast(
        &mut self,
        role: Role,
        pass: Pass,
        x: Matrix<'_>,
        mut wanted: [Option<&mut EncodedMut<'_>>; 2],
        telemetry: bool,
    ) -> Result<Tally> {
        let cpu = self.host.cpu();
        let delayed = wanted.iter_mut().flatten().map(|out| &mut **out);
        operand::set_delayed(&cpu, x, delayed, (role, pass), self.scales.as_deref_mut())?;
        Ok(operand::cast(&cpu, x, wanted, telemetry))
    }

    /// Tells the recipe what a delayed cast of a training pass has met.
    fn record(&mut self, role: Role, pass: Pass, cast: Encoded<'_>) {
        if let (Pass::Train, Some(amax), Some(scales)) = (pass, cast.amax(), &mut self.scales) {
            scales.record(role, amax);
        }
    }

    fn wgrad_input<'a>(
        &self,
        x: Option<TensorRef<'a>>,
        group_saved: &'a [u8],
        tokens: usize,
    ) -> Result<WgradInput<'a>> {
        let k = self.in_features;
        if let Some(wgrad) = self.gemms.wgrad {
            let mut saved = Read::new("shared saved region", group_saved);
            return Ok(WgradInput::Fp8(Encoded::read(&mut saved, wgrad.x, tokens, k)?));
        }
        let x = x.ok_or_else(|| Error::protocol("backward needs x, as `Memory::keep_input` says"))?;
        let matrix = activations("x", &x, k)?;
        expect("x", (x.dtype(), x.shape()), (x.dtype(), [tokens, k]))?;
        Ok(WgradInput::High(matrix))
    }
}

/// Codes and scales of `cast`, if the producer of the input has made them.
fn given<'a>(
    quantized: Option<&QuantizedInput<'a>>,
    cast: Cast,
    rows: usize,
    cols: usize,
) -> Result<Option<(&'a [u8], &'a [f32])>> {
    let given = match (cast.source, cast.granularity) {
        (Source::Current(_), Granularity::Row) => quantized.and_then(|given| given.by_row),
        (Source::Current(_), Granularity::Col) => quantized.and_then(|given| given.by_col),
        _ => None,
    };
    let Some((codes, scales)) = given else { return Ok(None) };
    let dtype = DType::of(cast.format);
    expect("codes of x", (codes.dtype(), codes.shape()), (dtype, [rows, cols]))?;
    let expected = (DType::F32, [cast.scales(rows, cols)]);
    expect("scales of x", (scales.dtype(), scales.shape()), expected)?;
    Ok(Some((codes.codes()?, scales.floats()?)))
}

fn store(accumulate: bool) -> Store {
    if accumulate { Store::Accumulate } else { Store::Overwrite }
}

fn clear(out: &mut ElementsMut<'_>) {
    match out {
        ElementsMut::F32(out) => out.fill(0.0),
        ElementsMut::Bf16(out) => out.fill(fp8flow_kernels::bf16::ZERO),
    }
}
