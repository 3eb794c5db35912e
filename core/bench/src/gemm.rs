//! GEMMs of one contraction, `[m, k]` by `[k, n]`, in the layouts and element types of a step.
//!
//! | case | operands | result | by |
//! | --- | --- | --- | --- |
//! | `sgemm` | f32, both contracted along their columns | f32 | the engine |
//! | `bf16` | bf16, the same | bf16 | the engine |
//! | `scaled_mm` | `x: [m, k]`, `w: [n, k]`, cast as the recipe's fprop wants them | bf16 | the plugin |
//! | `scaled_mm_dgrad` | `dy: [m, k]`, `w: [k, n]`, for dgrad | bf16 | the plugin |
//! | `scaled_mm_wgrad` | `dy: [k, m]`, `x: [k, n]`, for wgrad | f32, added to | the plugin |
//!
//! The casts are done before; only the product is timed.

use fp8flow_kernels as kernels;
use fp8flow_kernels::{Cpu, Elements, ElementsMut, Epilogue, Matrix, Operand, Store, bf16};
use fp8flow_sdk::{Kernels, ScaleAxis, ScaledGemm, TensorMut};

use crate::fp8::{Cast, Fp8};
use crate::limits::{Copy, FmaPeak, Limit};
use crate::line::{Line, Shape};
use crate::numbers::{Encoded, normal, normal_bf16};
use crate::{Bench, BenchError, Extent, room};

/// `[m, k, n]` where nobody asks for another shape.
pub const SHAPES: [[usize; 3]; 5] =
    [[256, 256, 256], [512, 64, 512], [1024, 1024, 1024], [2048, 2048, 2048], [2048, 1024, 4096]];

/// A GEMM of a linear layer: its case, its name in a recipe's description, its operands and whether each is contracted
/// along its rows.
struct Product {
    what: &'static str,
    gemm: &'static str,
    operands: [(&'static str, bool); 2],
}

const PRODUCTS: [Product; 3] = [
    Product { what: "scaled_mm", gemm: "fprop", operands: [("x", false), ("w", false)] },
    Product { what: "scaled_mm_dgrad", gemm: "dgrad", operands: [("dy", false), ("w", true)] },
    Product { what: "scaled_mm_wgrad", gemm: "wgrad", operands: [("dy", true), ("x", true)] },
];

/// Measures every case for each of `shapes`, beside the FMA peak.
pub fn gemm(
    bench: &Bench<'_>,
    shapes: &[[usize; 3]],
    fp8: Option<&Fp8>,
    show: &mut dyn FnMut(Line),
) -> Result<(), BenchError> {
    let mut peak = FmaPeak::new(bench.cpu());
    bench.limit(&mut peak, show);
    bench.limit(&mut Copy::new(bench.cpu()), show);
    for &[m, k, n] in shapes {
        room::check(4 * (m * k + k * n + m * n) as u64)?;
        let mut case = Case { bench, peak: &mut peak, shape: [m, k, n] };
        show(case.sgemm()?);
        show(case.bf16()?);
        for product in fp8.iter().flat_map(|fp8| PRODUCTS.iter().map(move |product| (*fp8, product))) {
            show(case.product(product.0, product.1)?);
        }
    }
    Ok(())
}

/// Cases of one shape.
struct Case<'a> {
    bench: &'a Bench<'a>,
    peak: &'a mut dyn Limit,
    shape: [usize; 3],
}

impl Case<'_> {
    fn sgemm(&mut self) -> Result<Line, BenchError> {
        let [m, k, n] = self.shape;
        let (a, b, mut out) = (normal(m * k, 0), normal(n * k, 1), vec![0.0; m * n]);
        self.plain("sgemm", [Elements::F32(&a), Elements::F32(&b)], |cpu, [a, b]| {
            let out = ElementsMut::F32(&mut out);
            kernels::gemm(cpu, a, Epilogue::One, b, Epilogue::One, Store::Overwrite, out);
        })
    }

    fn bf16(&mut self) -> Result<Line, BenchError> {
        let [m, k, n] = self.shape;
        let (a, b, mut out) = (normal_bf16(m * k, 0), normal_bf16(n * k, 1), vec![bf16::ZERO; m * n]);
        self.plain("bf16", [Elements::Bf16(&a), Elements::Bf16(&b)], |cpu, [a, b]| {
            let out = ElementsMut::Bf16(&mut out);
            kernels::gemm(cpu, a, Epilogue::One, b, Epilogue::One, Store::Overwrite, out);
        })
    }

    /// `a: [m, k]` by `b: [n, k]`, by the engine's own kernels.
    fn plain(
        &mut self,
        what: &'static str,
        [a, b]: [Elements<'_>; 2],
        mut run: impl FnMut(&Cpu<'_>, [&Operand<'_>; 2]),
    ) -> Result<Line, BenchError> {
        let [m, k, n] = self.shape;
        let [a, b] = [Operand::rows(Matrix::new(a, m, k)), Operand::rows(Matrix::new(b, n, k))];
        let cpu = self.bench.cpu();
        self.line(what, None, || {
            run(&cpu, [&a, &b]);
            Ok(())
        })
    }

    /// A GEMM of a layer under a recipe, by the plugin's primitives; or why they cannot do it.
    fn product(&mut self, fp8: &Fp8, product: &Product) -> Result<Line, BenchError> {
        let (kernels, casts) = match casts(fp8, product) {
            Ok(found) => found,
            Err(why) => return Ok(fp8.left_out(product.what, self.named(), why)),
        };
        let [m, k, n] = self.shape;
        let [transpose_a, transpose_b] = product.operands.map(|(_, transposed)| transposed);
        let lies = |rows, transposed| if transposed { [k, rows] } else { [rows, k] };
        let a = codes(kernels, casts[0], lies(m, transpose_a), 0)?;
        let b = codes(kernels, casts[1], lies(n, transpose_b), 1)?;
        // dW is gathered in f32; what goes to other layers is of the activations' type.
        let accumulate = product.gemm == "wgrad";
        let mut sums = vec![0.0; if accumulate { m * n } else { 0 }];
        let mut rounded = vec![bf16::ZERO; if accumulate { 0 } else { m * n }];
        self.line(product.what, Some(fp8), || {
            let out = if accumulate { ElementsMut::F32(&mut sums) } else { ElementsMut::Bf16(&mut rounded) };
            kernels.scaled_gemm(ScaledGemm {
                a: a.codes(),
                transpose_a,
                scale_a: a.scales(),
                b: b.codes(),
                transpose_b,
                scale_b: b.scales(),
                out: TensorMut::new(out, &[m, n]),
                accumulate,
            })?;
            Ok(())
        })
    }

    fn line(
        &mut self,
        what: &'static str,
        fp8: Option<&Fp8>,
        call: impl FnMut() -> Result<(), BenchError>,
    ) -> Result<Line, BenchError> {
        let [m, k, n] = self.shape;
        let flops = 2.0 * m as f64 * n as f64 * k as f64;
        self.bench.case(what, Extent::Matrix(self.named()), fp8, flops, self.peak, call)
    }

    fn named(&self) -> Shape {
        let [m, k, n] = self.shape;
        Shape { m, k, n: Some(n) }
    }
}

/// The primitives, and the casts of both operands; in words, why the primitives cannot do this product.
fn casts<'a>(fp8: &'a Fp8, product: &Product) -> Result<(&'a dyn Kernels, [Cast; 2]), String> {
    let kernels = fp8.kernels()?;
    let cast = |(operand, transposed): (&str, bool)| {
        let cast = fp8.cast(product.gemm, operand)?;
        let along = if transposed { ScaleAxis::Row } else { ScaleAxis::Col };
        if cast.axis == along {
            return Err(format!(
                "scales of {operand} run along the contraction, where the primitives have none"
            ));
        }
        Ok(cast)
    };
    Ok((kernels, [cast(product.operands[0])?, cast(product.operands[1])?]))
}

/// Normal numbers of `shape`, cast.
fn codes(kernels: &dyn Kernels, cast: Cast, shape: [usize; 2], stream: u64) -> Result<Encoded, BenchError> {
    let x = normal_bf16(shape[0] * shape[1], stream);
    let mut codes = Encoded::zeros(cast, shape);
    codes.cast(kernels, &x, cast)?;
    Ok(codes)
}
