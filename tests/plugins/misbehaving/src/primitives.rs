//! Cast and GEMM of the toy backend.

use fp8flow_sdk::kernels::cast::{Quantized, amax_of, cast_cols, cast_rows, cast_tensor};
use fp8flow_sdk::kernels::scale::ScaleRule;
use fp8flow_sdk::kernels::{ElementsMut, Epilogue, Operand, Store, gemm};
use fp8flow_sdk::{Error, Host, Kernels, Quantize, Result, ScaleAxis, ScaledGemm};

use crate::fault::{FORGETS_A_SCALE, Fault, PRIMITIVE_OVERWRITES};

pub(crate) struct ToyKernels<const FAULT: Fault>(pub(crate) Host);

impl<const FAULT: Fault> Kernels for ToyKernels<FAULT> {
    fn quantize(&self, call: Quantize<'_>) -> Result<()> {
        let Quantize { x, format, axis, power_of_two, mut codes, mut scales } = call;
        let rule = if power_of_two { ScaleRule::PowerOfTwo } else { ScaleRule::Linear };
        let (cpu, x) = (self.0.cpu(), x.matrix()?);
        let ElementsMut::F32(scales) = scales.elements_mut()? else {
            return Err(Error::invalid("scales: expected f32"));
        };
        let codes = codes.codes_mut()?;
        match axis {
            ScaleAxis::Row => cast_rows(&cpu, x, format, rule, Quantized { codes, scales }, None),
            ScaleAxis::Col => cast_cols(&cpu, x, format, rule, Quantized { codes, scales }, None),
            ScaleAxis::Tensor => {
                scales[0] = rule.scale(amax_of(&cpu, x), format);
                cast_tensor(&cpu, x, format, scales[0], codes, None);
            }
        }
        Ok(())
    }

    fn scaled_gemm(&self, call: ScaledGemm<'_>) -> Result<()> {
        let operand = |transpose| if transpose { Operand::transposed } else { Operand::rows };
        let a = operand(call.transpose_a)(call.a.matrix()?);
        let b = operand(call.transpose_b)(call.b.matrix()?);
        let undo = |scales: &[f32], rows: usize| -> Vec<f32> {
            (0..rows).map(|row| 1.0 / scales[row.min(scales.len() - 1)]).collect()
        };
        let (undo_a, undo_b) = (undo(call.scale_a.floats()?, a.rows), undo(call.scale_b.floats()?, b.rows));
        let undo_b = if FAULT == FORGETS_A_SCALE { Epilogue::One } else { Epilogue::PerRow(&undo_b) };
        let mut out = call.out;
        let out = out.elements_mut()?;
        let add = call.accumulate && FAULT != PRIMITIVE_OVERWRITES;
        let store = if add { Store::Accumulate } else { Store::Overwrite };
        gemm(&self.0.cpu(), &a, Epilogue::PerRow(&undo_a), &b, undo_b, store, out);
        Ok(())
    }
}
