//! The primitives by themselves, where a backend offers them.

use fp8flow_sdk::kernels::{Elements, ElementsMut, Fp8};
use fp8flow_sdk::{Kernels, Quantize, ScaleAxis, ScaledGemm, TensorMut, TensorRef};

use super::{Found, ensure};
use crate::failure::Failure;
use crate::reference::{Reference, snr_db};
use crate::subject::here;
use crate::tested::Tested;
use crate::values::normal;

const M: usize = 48;
const N: usize = 32;
const K: usize = 128;

struct Cast {
    codes: Vec<u8>,
    scales: Vec<f32>,
}

impl Cast {
    fn new(kernels: &dyn Kernels, x: &[f32], shape: [usize; 2], axis: ScaleAxis) -> Result<Self, Failure> {
        let scales = match axis {
            ScaleAxis::Row => shape[0],
            ScaleAxis::Col => shape[1],
            ScaleAxis::Tensor => 1,
        };
        let mut cast = Self { codes: vec![0; x.len()], scales: vec![f32::NAN; scales] };
        kernels
            .quantize(Quantize {
                x: TensorRef::new(Elements::F32(x), &shape),
                format: Fp8::E4m3,
                axis,
                power_of_two: true,
                codes: TensorMut::codes(&mut cast.codes, Fp8::E4m3, &shape),
                scales: TensorMut::new(ElementsMut::F32(&mut cast.scales), &[scales]),
            })
            .map_err(|error| Failure::Call { call: "Kernels::quantize", error })?;
        Ok(cast)
    }

    /// What the codes stand for, given the columns of the matrix.
    fn numbers(&self, cols: usize, axis: ScaleAxis) -> Vec<f32> {
        let scale = |i: usize| match axis {
            ScaleAxis::Row => self.scales[i / cols],
            ScaleAxis::Col => self.scales[i % cols],
            ScaleAxis::Tensor => self.scales[0],
        };
        self.codes.iter().enumerate().map(|(i, &code)| Fp8::E4m3.decode(code) / scale(i)).collect()
    }

    fn tensors(&self, shape: [usize; 2]) -> (TensorRef<'_>, TensorRef<'_>) {
        let scales = TensorRef::new(Elements::F32(&self.scales), &[self.scales.len()]);
        (TensorRef::new(Elements::E4m3(&self.codes), &shape), scales)
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
    for axis in [ScaleAxis::Row, ScaleAxis::Col, ScaleAxis::Tensor] {
        // One scale a column belongs to an operand that is contracted along its rows.
        let transpose = axis == ScaleAxis::Col;
        let shape = |rows| if transpose { [K, rows] } else { [rows, K] };
        let (a, b) = (normal(M * K, 1.0, 1), normal(N * K, 0.02, 2));
        let a_cast = Cast::new(&*kernels, &a, shape(M), axis)?;
        let b_cast = Cast::new(&*kernels, &b, shape(N), axis)?;
        let exact: Vec<_> = a.iter().map(|&x| f64::from(x)).collect();
        let noise = snr_db(&exact, &a_cast.numbers(shape(M)[1], axis));
        ensure!((29.0..40.0).contains(&noise), "a cast by {axis:?} is {noise:.1} dB from its source");

        let mut out = vec![f32::NAN; M * N];
        let ((a, scale_a), (b, scale_b)) = (a_cast.tensors(shape(M)), b_cast.tensors(shape(N)));
        kernels
            .scaled_gemm(ScaledGemm {
                a,
                transpose_a: transpose,
                scale_a,
                b,
                transpose_b: transpose,
                scale_b,
                out: TensorMut::new(ElementsMut::F32(&mut out), &[M, N]),
                accumulate: false,
            })
            .map_err(|error| Failure::Call { call: "Kernels::scaled_gemm", error })?;
        let rows_of = |cast: &Cast, rows| {
            let numbers = cast.numbers(shape(rows)[1], axis);
            if transpose { transposed(&numbers, K, rows) } else { numbers }
        };
        let exact = Reference::new(&rows_of(&a_cast, M), &rows_of(&b_cast, N), &vec![0.0; M * N], K);
        let found = snr_db(&exact.y, &out);
        ensure!(found > 100.0, "a GEMM by {axis:?} is {found:.1} dB from the product of its operands");
        worst = worst.min(found);
    }
    Ok(format!("GEMM at {worst:.0} dB"))
}

fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|j| (0..rows).map(move |i| x[i * cols + j])).collect()
}
