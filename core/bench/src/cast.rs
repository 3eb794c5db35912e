//! Casts from bf16 to FP8, beside a copy of memory.
//!
//! | case | does | bytes an element | by |
//! | --- | --- | --- | --- |
//! | `cast_row` | one scale a row | 2 read, 1 written | the plugin |
//! | `cast_col` | one scale a column | 2 read, 1 written | the plugin |
//! | `cast_row_col` | both, in one go | 2 read, 2 written | the engine's kernels |
//! | `cast_tensor` | one scale, from the tensor's own maximum | 2 read, 1 written | the plugin |
//! | `cast_tensor_delayed` | one scale that is there; the maximum beside it | 2 read, 1 written | the engine's kernels |
//!
//! The last two where a recipe casts so. Bytes are those that have to move, not those that do: a cast by column goes over
//! its input twice, and so does one by tensor. Scales are powers of two where the recipe's are.

use fp8flow_kernels::cast::{Quantized, cast_rows_and_cols, cast_tensor_with_amax};
use fp8flow_kernels::scale::ScaleRule;
use fp8flow_kernels::{Elements, Fp8 as Format, Matrix, bf16};
use fp8flow_sdk::ScaleAxis;

use crate::fp8::{Cast, Fp8};
use crate::limits::{Copy, FmaPeak, Limit};
use crate::line::{Line, Shape};
use crate::numbers::{Encoded, normal_bf16};
use crate::{Bench, BenchError, Extent, room};

/// `[m, k]` where nobody asks for another shape.
pub const SHAPES: [[usize; 2]; 2] = [[2048, 2048], [4096, 1024]];

/// Bytes an element of a cast that writes one code, and of one that writes two.
const BYTES: [usize; 2] = [3, 4];

/// Measures every case for each of `shapes`, beside a copy.
pub fn cast(
    bench: &Bench<'_>,
    shapes: &[[usize; 2]],
    fp8: Option<&Fp8>,
    show: &mut dyn FnMut(Line),
) -> Result<(), BenchError> {
    bench.limit(&mut FmaPeak::new(bench.cpu()), show);
    let mut copy = Copy::new(bench.cpu());
    bench.limit(&mut copy, show);
    let casts = fp8.map(Fp8::casts).unwrap_or_default();
    let power_of_two = casts.first().is_none_or(|cast| cast.power_of_two);
    let by = |axis| Cast { format: Format::E4m3, axis, power_of_two, delayed: false };
    for &[m, k] in shapes {
        room::check(8 * (m * k) as u64)?;
        let x = normal_bf16(m * k, 0);
        let mut case = Case { bench, copy: &mut copy, shape: [m, k], x: &x };
        if let Some(fp8) = fp8 {
            show(case.quantize("cast_row", fp8, by(ScaleAxis::Row))?);
            show(case.quantize("cast_col", fp8, by(ScaleAxis::Col))?);
        }
        show(case.both(power_of_two)?);
        let by_tensor = |delayed| {
            casts.iter().copied().find(|cast| cast.axis == ScaleAxis::Tensor && cast.delayed == delayed)
        };
        if let (Some(fp8), Some(cast)) = (fp8, by_tensor(false)) {
            show(case.quantize("cast_tensor", fp8, cast)?);
        }
        if let Some(cast) = by_tensor(true) {
            show(case.delayed(cast)?);
        }
    }
    Ok(())
}

/// Cases of one shape.
struct Case<'a> {
    bench: &'a Bench<'a>,
    copy: &'a mut dyn Limit,
    shape: [usize; 2],
    x: &'a [bf16],
}

impl<'a> Case<'a> {
    /// By the plugin's primitive; or that it has none.
    fn quantize(&mut self, what: &'static str, fp8: &Fp8, cast: Cast) -> Result<Line, BenchError> {
        let kernels = match fp8.kernels() {
            Ok(kernels) => kernels,
            Err(why) => return Ok(fp8.left_out(what, self.named(), why)),
        };
        let (x, mut codes) = (self.x, Encoded::zeros(cast, self.shape));
        self.line(what, Some(fp8), BYTES[0], || Ok(codes.cast(kernels, x, cast)?))
    }

    /// Both ways in one go.
    fn both(&mut self, power_of_two: bool) -> Result<Line, BenchError> {
        let rule = if power_of_two { ScaleRule::PowerOfTwo } else { ScaleRule::Linear };
        let [m, k] = self.shape;
        let room = |scales| (vec![0; m * k], vec![0.0; scales]);
        let ((mut row, mut row_scales), (mut col, mut col_scales)) = (room(m), room(k));
        let (cpu, x) = (self.bench.cpu(), self.matrix());
        self.line("cast_row_col", None, BYTES[1], || {
            let by_row = Quantized { codes: &mut row, scales: &mut row_scales };
            let by_col = Quantized { codes: &mut col, scales: &mut col_scales };
            cast_rows_and_cols(&cpu, x, Format::E4m3, rule, by_row, by_col, None);
            Ok(())
        })
    }

    /// With a scale that is there, and the maximum for the next one.
    fn delayed(&mut self, cast: Cast) -> Result<Line, BenchError> {
        let mut codes = vec![0; self.x.len()];
        let (cpu, x) = (self.bench.cpu(), self.matrix());
        self.line("cast_tensor_delayed", None, BYTES[0], || {
            std::hint::black_box(cast_tensor_with_amax(&cpu, x, cast.format, 64.0, &mut codes, None));
            Ok(())
        })
    }

    fn matrix(&self) -> Matrix<'a> {
        Matrix::new(Elements::Bf16(self.x), self.shape[0], self.shape[1])
    }

    fn named(&self) -> Shape {
        Shape { m: self.shape[0], k: self.shape[1], n: None }
    }

    fn line(
        &mut self,
        what: &'static str,
        fp8: Option<&Fp8>,
        bytes: usize,
        call: impl FnMut() -> Result<(), BenchError>,
    ) -> Result<Line, BenchError> {
        let bytes = (bytes * self.x.len()) as f64;
        self.bench.case(what, Extent::Matrix(self.named()), fp8, bytes, self.copy, call)
    }
}
