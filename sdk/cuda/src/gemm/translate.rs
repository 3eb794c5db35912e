//! A product in cuBLASLt's terms.
//!
//! cuBLASLt counts by columns. Our row-major `d[m,n]` is its column-major `D[n,m] = A · B` with A our `b` and B our `a`:
//! everything that belongs to a side, its factors too, changes places.

use cudarc::cublaslt::sys::{cublasLtMatmulMatrixScale_t as Scale, cudaDataType_t as DataType};
use fp8flow_kernels::Fp8;

use super::descriptors::{Layout, Operation};
use super::lt::Call;
use super::product::{Factors, Format, Operand, Order, Output, Product};
use crate::Result;

/// The call for a product, without addresses.
pub(super) fn call(product: &Product) -> Result<Call> {
    let &Product { m, n, k, a, b, output, stride, fast, .. } = product;
    let operation = Operation::new()?;
    // Rows of ours are its columns: our `b` by rows is A[k,n], turned over; our `a` by rows is B[k,m], as it lies.
    operation.set_transposed(b.order == Order::Rows, a.order == Order::Transposed)?;
    if a.format.is_fp8() {
        // Sums between factors for blocks are short, and cuBLASLt has no other way to make them.
        operation.set_fast(fast && !a.factors.are_blocks())?;
        let modes = [b.factors, a.factors].map(scale);
        // One factor is what there is unasked, and all that cuBLASLt had before 12.8.
        if modes != [SCALAR; 2] {
            operation.set_scale_modes(modes)?;
        }
    }
    let output = match output {
        Output::Bf16 => DataType::CUDA_R_16BF,
        Output::F32 => DataType::CUDA_R_32F,
    };
    Ok(Call { operation, a: layout(&b, n, k)?, b: layout(&a, m, k)?, d: Layout::new(output, n, m, stride)? })
}

/// An operand of `rows × k` by columns.
fn layout(operand: &Operand, rows: usize, k: usize) -> Result<Layout> {
    let kind = match operand.format {
        Format::Fp8(Fp8::E4m3) => DataType::CUDA_R_8F_E4M3,
        Format::Fp8(Fp8::E5m2) => DataType::CUDA_R_8F_E5M2,
        Format::Bf16 => DataType::CUDA_R_16BF,
        Format::F32 => DataType::CUDA_R_32F,
    };
    match operand.order {
        Order::Rows => Layout::new(kind, k, rows, operand.stride),
        Order::Transposed => Layout::new(kind, rows, k, operand.stride),
    }
}

/// One factor for all of an operand.
const SCALAR: u32 = Scale::CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F as u32;

const fn scale(factors: Factors) -> u32 {
    match factors {
        Factors::One | Factors::Tensor => SCALAR,
        Factors::PerRow => Scale::CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F as u32,
        Factors::Block1x128 => Scale::CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F as u32,
        Factors::Block128x128 => Scale::CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::super::descriptors::Preference;
    use super::super::rules::{self, Way};
    use super::*;
    use crate::Architecture;
    use crate::library::Needed;

    /// cuBLASLt checks the sizes of attributes without a card, and little more.
    #[test]
    fn every_kind_of_product_is_told_to_cublaslt() {
        if let Err(error) = Needed::CublasLt.open() {
            println!("skipped: {error}");
            return;
        }
        println!("cuBLASLt {}", super::super::lt::version().unwrap());
        let mut told = 0;
        let fp8 = [Format::Fp8(Fp8::E4m3), Format::Fp8(Fp8::E5m2)];
        let factors =
            [Factors::One, Factors::Tensor, Factors::PerRow, Factors::Block1x128, Factors::Block128x128];
        let sides = |formats: &[Format], order: Order| -> Vec<Operand> {
            let every =
                |&format: &Format| factors.map(|factors| Operand { format, order, stride: 256, factors });
            formats.iter().flat_map(every).collect()
        };
        let mut operands = sides(&fp8, Order::Rows);
        for order in [Order::Rows, Order::Transposed] {
            operands.extend(sides(&[Format::Bf16, Format::F32], order));
        }
        for a in &operands {
            for b in &operands {
                for output in [Output::Bf16, Output::F32] {
                    let product = Product::new([100, 64, 256], *a, *b, output).fast();
                    if matches!(rules::way(&product, Architecture::Hopper), Ok(Way::Lt)) {
                        let call = call(&product).unwrap();
                        call.operation.set_scales(1 << 20, 1 << 21).unwrap();
                        Preference::new(32 << 20, rules::alignments(&product)).unwrap();
                        told += 1;
                    }
                }
            }
        }
        // FP8: three pairs, eight ways of factors, two results; others: four orders, two results for bf16, one for f32.
        assert_eq!(told, 3 * 8 * 2 + 4 * 2 + 4);
    }
}
