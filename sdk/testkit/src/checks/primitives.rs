//! The primitives by themselves, where a backend offers them.

use fp8flow_sdk::kernels::{Elements, Fp8};
use fp8flow_sdk::{ErrorKind, Kernels, Quantize, ScaleAxis, ScaledGemm, TensorMut, TensorRef};

use super::{Found, ensure};
use crate::failure::Failure;
use crate::reference::{Reference, snr_db};
use crate::subject::here;
use crate::tested::Tested;
use crate::values::Activations::{Bf16, F32};
use crate::values::{Activations, Values, normal};

const M: usize = 48;
const N: usize = 32;
const K: usize = 128;

/// How an operand is cast.
#[derive(Clone, Copy, Debug)]
struct Manner {
    format: Fp8,
    axis: ScaleAxis,
    power_of_two: bool,
    dtype: Activations,
}

/// What every backend with primitives offers; it may refuse others.
const PLAIN: Manner = Manner { format: Fp8::E4m3, axis: ScaleAxis::Row, power_of_two: true, dtype: F32 };

/// A matrix in FP8.
struct Cast {
    manner: Manner,
    shape: [usize; 2],
    codes: Vec<u8>,
    scales: Vec<f32>,
}

impl Cast {
    /// None where the backend does not do that.
    fn new(
        kernels: &dyn Kernels,
        x: &[f32],
        shape: [usize; 2],
        manner: Manner,
    ) -> Result<Option<Self>, Failure> {
        let Manner { format, axis, power_of_two, dtype } = manner;
        let groups = groups(shape, axis);
        let mut cast = Self { manner, shape, codes: vec![0; x.len()], scales: vec![f32::NAN; groups] };
        let x = Values::new(dtype, shape[0], shape[1], x);
        let scales = fp8flow_sdk::kernels::ElementsMut::F32(&mut cast.scales);
        let call = Quantize {
            x: x.tensor(),
            format,
            axis,
            power_of_two,
            codes: TensorMut::codes(&mut cast.codes, format, &shape),
            scales: TensorMut::new(scales, &[groups]),
        };
        if !taken("Kernels::quantize", kernels.quantize(call))? {
            return Ok(None);
        }
        cast.check(&x.to_f32())?;
        Ok(Some(cast))
    }

    /// Which scale an element has.
    fn group(&self, i: usize) -> usize {
        match self.manner.axis {
            ScaleAxis::Row => i / self.shape[1],
            ScaleAxis::Col => i % self.shape[1],
            ScaleAxis::Tensor => 0,
        }
    }

    /// What the codes stand for.
    fn numbers(&self) -> Vec<f32> {
        let number = |(i, &code)| self.manner.format.decode(code) / self.scales[self.group(i)];
        self.codes.iter().enumerate().map(number).collect()
    }

    /// Scales take the largest of their numbers to the format's largest; the rest is the format's noise.
    fn check(&self, x: &[f32]) -> Result<(), Failure> {
        let Manner { format, power_of_two, .. } = self.manner;
        let mut amax = vec![0.0_f32; self.scales.len()];
        for (i, x) in x.iter().enumerate() {
            let amax = &mut amax[self.group(i)];
            *amax = amax.max(x.abs());
        }
        for (amax, scale) in amax.iter().zip(&self.scales) {
            let part = amax * scale / format.max();
            let least = if power_of_two { 0.499 } else { 0.999 };
            let rounded = scale.to_bits().trailing_zeros() >= 23;
            ensure!(
                (least..=1.001).contains(&part) && (rounded || !power_of_two),
                "{:?}: the largest magnitude is {amax}, the scale {scale}: it is the format's largest number over that, \
                 and rounded down to a power of two where asked",
                self.manner
            );
        }
        let exact: Vec<_> = x.iter().map(|&x| f64::from(x)).collect();
        let noise = snr_db(&exact, &self.numbers());
        let due = if format == Fp8::E4m3 { 29.0..40.0 } else { 23.0..34.0 };
        ensure!(due.contains(&noise), "{:?}: a cast is {noise:.1} dB from its source", self.manner);
        Ok(())
    }

    fn tensors(&self) -> (TensorRef<'_>, TensorRef<'_>) {
        let codes = match self.manner.format {
            Fp8::E4m3 => Elements::E4m3(&self.codes),
            Fp8::E5m2 => Elements::E5m2(&self.codes),
        };
        let scales = TensorRef::new(Elements::F32(&self.scales), &[self.scales.len()]);
        (TensorRef::new(codes, &self.shape), scales)
    }
}

fn groups(shape: [usize; 2], axis: ScaleAxis) -> usize {
    match axis {
        ScaleAxis::Row => shape[0],
        ScaleAxis::Col => shape[1],
        ScaleAxis::Tensor => 1,
    }
}

/// Whether a call was carried out; false where the backend says that it does not do this.
fn taken(call: &'static str, result: fp8flow_sdk::Result<()>) -> Result<bool, Failure> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind == ErrorKind::Unsupported => Ok(false),
        Err(error) => Err(Failure::Call { call, error }),
    }
}

/// A GEMM: how its operands are cast and lie, and what becomes of the result.
#[derive(Clone, Copy, Debug)]
struct Product {
    a: (Manner, bool),
    b: (Manner, bool),
    out: Activations,
    accumulate: bool,
}

/// One of each kind; the first three are what every backend does.
fn products() -> Vec<Product> {
    let by = |axis| Manner { axis, ..PLAIN };
    let (row, col, tensor) = (by(ScaleAxis::Row), by(ScaleAxis::Col), by(ScaleAxis::Tensor));
    let wide = |manner| Manner { format: Fp8::E5m2, ..manner };
    let linear = |manner| Manner { power_of_two: false, ..manner };
    let narrow = |manner| Manner { dtype: Bf16, ..manner };
    let plain = |a, b| Product { a, b, out: F32, accumulate: false };
    vec![
        plain((row, false), (row, false)),
        plain((col, true), (col, true)),
        plain((tensor, false), (tensor, false)),
        plain((row, false), (col, true)),
        plain((col, true), (row, false)),
        plain((tensor, true), (linear(row), false)),
        plain((linear(col), true), (tensor, true)),
        plain((wide(tensor), false), (tensor, true)),
        plain((row, false), (wide(linear(row)), false)),
        Product { out: Bf16, ..plain((narrow(row), false), (row, false)) },
        Product { accumulate: true, ..plain((row, false), (linear(tensor), false)) },
        Product {
            out: Bf16,
            accumulate: true,
            ..plain((narrow(tensor), false), (narrow(wide(tensor)), true))
        },
    ]
}

impl Product {
    /// How far it is from exact, in dB; none where the backend does not do that.
    fn measure(self, kernels: &dyn Kernels) -> Result<Option<f64>, Failure> {
        let cast = |(manner, turned): (Manner, bool), rows: usize, deviation, seed| {
            let shape = if turned { [K, rows] } else { [rows, K] };
            Cast::new(kernels, &normal(rows * K, deviation, seed), shape, manner)
        };
        let (a, b) = (cast(self.a, M, 1.0, 1)?, cast(self.b, N, 0.02, 2)?);
        let (Some(a), Some(b)) = (a, b) else { return Ok(None) };
        let old = if self.accumulate { normal(M * N, 0.1, 3) } else { vec![f32::NAN; M * N] };
        let mut out = Values::new(self.out, M, N, &old);
        let old = out.to_f32();
        let ((a_codes, scale_a), (b_codes, scale_b)) = (a.tensors(), b.tensors());
        let call = ScaledGemm {
            a: a_codes,
            transpose_a: self.a.1,
            scale_a,
            b: b_codes,
            transpose_b: self.b.1,
            scale_b,
            out: out.tensor_mut(),
            accumulate: self.accumulate,
        };
        if !taken("Kernels::scaled_gemm", kernels.scaled_gemm(call))? {
            return Ok(None);
        }
        ensure!(out.is_intact(), "{self:?}: Kernels::scaled_gemm wrote beside its result");
        let rows_of = |cast: &Cast, rows, turned| {
            let numbers = cast.numbers();
            if turned { transposed(&numbers, K, rows) } else { numbers }
        };
        let (a, b) = (rows_of(&a, M, self.a.1), rows_of(&b, N, self.b.1));
        let mut exact = Reference::new(&a, &b, &vec![0.0; M * N], K).y;
        if self.accumulate {
            exact.iter_mut().zip(old).for_each(|(exact, old)| *exact += f64::from(old));
        }
        let found = snr_db(&exact, &out.to_f32());
        let least = if self.out == F32 { 100.0 } else { 48.0 };
        ensure!(found > least, "{self:?}: a GEMM is {found:.1} dB from the product of its operands");
        Ok(Some(found))
    }
}

/// Casts undo to within the format's noise; a GEMM of codes gives what their numbers give, whichever way they lie.
pub(crate) fn cast_and_gemm_agree_with_arithmetic(backend: &dyn Tested) -> Found {
    let host = here();
    let failed = |call| move |error| Failure::Call { call, error };
    let backend = backend.start(&host).map_err(failed("Backend::start"))?;
    let Some(kernels) = backend.kernels(&host).map_err(failed("Backend::kernels"))? else {
        return Ok("not offered".into());
    };
    let mut worst = f64::INFINITY;
    let mut refused = 0;
    for (i, product) in products().into_iter().enumerate() {
        match product.measure(&*kernels)? {
            Some(found) if product.out == F32 => worst = worst.min(found),
            Some(_) => {}
            None => {
                ensure!(i > 2, "{product:?} is refused: whoever offers primitives does that");
                refused += 1;
            }
        }
    }
    Ok(format!("GEMM at {worst:.0} dB, {refused} of {} refused", products().len()))
}

fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|j| (0..rows).map(move |i| x[i * cols + j])).collect()
}
