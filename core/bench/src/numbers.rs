//! Operands: numbers as a layer has them, and their codes.

use fp8flow_kernels::philox::Philox;
use fp8flow_kernels::{Elements, ElementsMut, Fp8, bf16};
use fp8flow_sdk::{Kernels, Quantize, Result, ScaleAxis, TensorMut, TensorRef};

use crate::fp8::Cast;

/// How many numbers are drawn before they repeat: a prime, so that no two rows of a matrix are alike.
pub(crate) const DRAWN: usize = 16_381;

/// Normal numbers; those of different streams differ.
pub(crate) fn normal(len: usize, stream: u64) -> Vec<f32> {
    let philox = Philox::new(0, "bench");
    let drawn: Vec<f32> = (0..DRAWN.div_ceil(2) as u64)
        .flat_map(|index| philox.normal_pair(stream, index))
        .take(DRAWN)
        .collect();
    drawn.into_iter().cycle().take(len).collect()
}

/// The same, rounded.
pub(crate) fn normal_bf16(len: usize, stream: u64) -> Vec<bf16> {
    normal(len, stream).into_iter().map(bf16::from_f32).collect()
}

/// A matrix in FP8.
#[derive(Debug)]
pub(crate) struct Encoded {
    format: Fp8,
    shape: [usize; 2],
    codes: Vec<u8>,
    scales: Vec<f32>,
}

impl Encoded {
    /// Room for a matrix of `shape` in the format and with the scales of `cast`.
    pub(crate) fn zeros(cast: Cast, shape: [usize; 2]) -> Self {
        let scales = match cast.axis {
            ScaleAxis::Row => shape[0],
            ScaleAxis::Col => shape[1],
            ScaleAxis::Tensor => 1,
        };
        Self { format: cast.format, shape, codes: vec![0; shape[0] * shape[1]], scales: vec![1.0; scales] }
    }

    /// Casts `x` by a plugin; `cast` is of the format and axis that this has room for.
    pub(crate) fn cast(&mut self, kernels: &dyn Kernels, x: &[bf16], cast: Cast) -> Result<()> {
        let Self { format, shape, codes, scales } = self;
        let (axis, power_of_two, len) = (cast.axis, cast.power_of_two, scales.len());
        kernels.quantize(Quantize {
            x: TensorRef::new(Elements::Bf16(x), shape),
            format: *format,
            axis,
            power_of_two,
            codes: TensorMut::codes(codes, *format, shape),
            scales: TensorMut::new(ElementsMut::F32(scales), &[len]),
        })
    }

    /// The codes.
    pub(crate) fn codes(&self) -> TensorRef<'_> {
        let elements = match self.format {
            Fp8::E4m3 => Elements::E4m3(&self.codes),
            Fp8::E5m2 => Elements::E5m2(&self.codes),
        };
        TensorRef::new(elements, &self.shape)
    }

    /// The scales.
    pub(crate) fn scales(&self) -> TensorRef<'_> {
        TensorRef::new(Elements::F32(&self.scales), &[self.scales.len()])
    }
}
