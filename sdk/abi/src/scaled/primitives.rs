//! Cast and GEMM by themselves, for benchmarks and the conformance suite.

use fp8flow_kernels::cast::{Quantized, amax_for, cast_cols, cast_rows, cast_tensor};
use fp8flow_kernels::scale::ScaleRule;
use fp8flow_kernels::{ElementsMut, Epilogue, Operand, Store, gemm};

use crate::{DType, Error, Host, Kernels, Quantize, Result, ScaleAxis, ScaledGemm, TensorRef};

/// The kernels of this SDK as [`Kernels`], on the host's threads.
#[derive(Debug)]
pub struct Primitives {
    host: Host,
    /// The scale rules, without and with rounding to a power of two.
    rules: [ScaleRule; 2],
}

impl Primitives {
    /// Casts with scales by `rules`: without and with rounding to a power of two.
    pub fn new(host: Host, rules: [ScaleRule; 2]) -> Self {
        Self { host, rules }
    }
}

impl Kernels for Primitives {
    fn quantize(&self, call: Quantize<'_>) -> Result<()> {
        let Quantize { x, format, axis, power_of_two, mut codes, mut scales } = call;
        if !matches!(x.dtype(), DType::F32 | DType::BF16) {
            return Err(Error::invalid(format!("x: expected bf16 or f32, found {}", x.dtype().name())));
        }
        let x = x.matrix()?;
        if codes.dtype() != DType::of(format) {
            let (expected, found) = (format.name(), codes.dtype().name());
            return Err(Error::invalid(format!("codes: expected {expected}, found {found}")));
        }
        let codes = codes.codes_mut()?;
        expect_len("codes", codes.len(), x.rows * x.cols)?;
        let ElementsMut::F32(scales) = scales.elements_mut()? else {
            return Err(Error::invalid("scales: expected f32"));
        };
        let cpu = self.host.cpu();
        let rule = self.rules[usize::from(power_of_two)];
        match axis {
            ScaleAxis::Row => {
                expect_len("scales", scales.len(), x.rows)?;
                cast_rows(&cpu, x, format, rule, Quantized { codes, scales }, None);
            }
            ScaleAxis::Col => {
                expect_len("scales", scales.len(), x.cols)?;
                cast_cols(&cpu, x, format, rule, Quantized { codes, scales }, None);
            }
            ScaleAxis::Tensor => {
                expect_len("scales", scales.len(), 1)?;
                scales[0] = rule.scale(amax_for(&cpu, x, rule), format);
                cast_tensor(&cpu, x, format, scales[0], codes, None);
            }
        }
        Ok(())
    }

    fn scaled_gemm(&self, call: ScaledGemm<'_>) -> Result<()> {
        let ScaledGemm { a, transpose_a, scale_a, b, transpose_b, scale_b, mut out, accumulate } = call;
        let a = operand("a", &a, transpose_a)?;
        let b = operand("b", &b, transpose_b)?;
        if a.depth != b.depth {
            return Err(Error::invalid(format!("contraction lengths differ: {} and {}", a.depth, b.depth)));
        }
        if out.shape() != [a.rows as u64, b.rows as u64] {
            let (expected, found) = ([a.rows, b.rows], out.shape());
            return Err(Error::invalid(format!("out: expected {expected:?}, found {found:?}")));
        }
        let undo_a = factors("scale_a", &scale_a, a.rows)?;
        let undo_b = factors("scale_b", &scale_b, b.rows)?;
        let store = if accumulate { Store::Accumulate } else { Store::Overwrite };
        gemm(&self.host.cpu(), &a, epilogue(&undo_a), &b, epilogue(&undo_b), store, out.elements_mut()?);
        Ok(())
    }
}

fn operand<'a>(what: &str, tensor: &TensorRef<'a>, transpose: bool) -> Result<Operand<'a>> {
    if !matches!(tensor.dtype(), DType::E4M3 | DType::E5M2) {
        return Err(Error::invalid(format!("{what}: expected FP8 codes, found {}", tensor.dtype().name())));
    }
    let matrix = tensor.matrix()?;
    Ok(if transpose { Operand::transposed(matrix) } else { Operand::rows(matrix) })
}

/// One for the whole operand, or one a row of it.
enum Factors {
    Tensor(f32),
    PerRow(Vec<f32>),
}

fn factors(what: &str, scales: &TensorRef<'_>, rows: usize) -> Result<Factors> {
    let per_row = scales.shape() == [rows as u64];
    match scales.floats()? {
        // A single row is a whole operand: the product is the same.
        [scale] => Ok(Factors::Tensor(1.0 / scale)),
        scales if per_row => Ok(Factors::PerRow(scales.iter().map(|scale| 1.0 / scale).collect())),
        _ => {
            let found = scales.shape();
            Err(Error::invalid(format!("{what}: expected [{rows}] or [1] scales, found {found:?}")))
        }
    }
}

fn epilogue(factors: &Factors) -> Epilogue<'_> {
    match factors {
        Factors::Tensor(factor) => Epilogue::Tensor(*factor),
        Factors::PerRow(factors) => Epilogue::PerRow(factors),
    }
}

fn expect_len(what: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::invalid(format!("{what}: expected {expected}, found {found}")))
}
