//! Matrix multiplication with scales: one contraction for the three products of a linear layer.
//!
//! | product | `a[i,k]` | `b[j,k]` | `out[i,j]` |
//! | --- | --- | --- | --- |
//! | fprop `x·Wᵀ` | `x[m,k]` | `W[n,k]` | `y[m,n]` |
//! | dgrad `dy·W` | `dy[m,n]` | `Wᵀ`: [`Operand::transposed`] | `dx[m,k]` |
//! | wgrad `dyᵀ·x` | `dyᵀ`: transposed | `xᵀ`: transposed | `dW[n,k]` |

use crate::{Cpu, Elements, ElementsMut, Matrix};

/// One side of a contraction: `rows × depth` elements, element `(i, k)` at `i · row_stride + k · depth_stride`.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The elements that the strides index.
    pub elements: Elements<'a>,
    /// Rows (of the output, for `a`; columns of the output, for `b`).
    pub rows: usize,
    /// Length of the contraction.
    pub depth: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one step of the contraction to the next; one of the strides is 1.
    pub depth_stride: usize,
}

impl<'a> Operand<'a> {
    /// The rows of `matrix`, contracted along its columns.
    pub fn rows(matrix: Matrix<'a>) -> Self {
        let Matrix { elements, rows, cols } = matrix;
        Self { elements, rows, depth: cols, row_stride: cols, depth_stride: 1 }
    }

    /// The columns of `matrix`, contracted along its rows.
    pub fn transposed(matrix: Matrix<'a>) -> Self {
        let Matrix { elements, rows, cols } = matrix;
        Self { elements, rows: cols, depth: rows, row_stride: 1, depth_stride: cols }
    }
}

/// A factor on the accumulated sum, one side of a contraction: the reciprocal of a quantisation scale.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue<'a> {
    /// No factor.
    One,
    /// One factor for the whole operand.
    Tensor(f32),
    /// One factor a row of the operand.
    PerRow(&'a [f32]),
}

/// What happens to the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// `out = value`.
    Overwrite,
    /// `out = out + value`, added in f32 and rounded once.
    Accumulate,
}

/// `out[i,j] (+)= (Σ_k a[i,k] · b[j,k]) · scale_a[i] · scale_b[j]`, accumulated in f32.
///
/// The sum starts at +0 and takes one fused multiply-add a step, `k` ascending; then it is multiplied by `scale_a`,
/// then by `scale_b` (a factor of [`Epilogue::One`] is left out), added to `out` if asked, and rounded once, at the
/// store. `out` is dense, `a.rows × b.rows`, row-major.
///
/// # Panics
/// If the depths differ, a stride leaves the elements, a scale or `out` has the wrong length.
pub fn gemm(
    cpu: &Cpu<'_>,
    a: &Operand<'_>,
    scale_a: Epilogue<'_>,
    b: &Operand<'_>,
    scale_b: Epilogue<'_>,
    store: Store,
    out: ElementsMut<'_>,
) {
    assert_eq!(a.depth, b.depth, "contraction lengths differ");
    assert_eq!(out.len(), a.rows * b.rows, "output length");
    let _ = cpu;
    specification(a, scale_a, b, scale_b, store, out);
}

/// [`gemm`] as a plain loop: the meaning of every path.
fn specification(
    a: &Operand<'_>,
    scale_a: Epilogue<'_>,
    b: &Operand<'_>,
    scale_b: Epilogue<'_>,
    store: Store,
    mut out: ElementsMut<'_>,
) {
    for i in 0..a.rows {
        for j in 0..b.rows {
            let mut sum = 0.0_f32;
            for k in 0..a.depth {
                let x = a.elements.get(i * a.row_stride + k * a.depth_stride);
                let y = b.elements.get(j * b.row_stride + k * b.depth_stride);
                sum = x.mul_add(y, sum);
            }
            let value = scale_b.apply(j, scale_a.apply(i, sum));
            let at = i * b.rows + j;
            match &mut out {
                ElementsMut::F32(out) => out[at] = store.combine(out[at], value),
                ElementsMut::Bf16(out) => {
                    out[at] = half::bf16::from_f32(store.combine(out[at].to_f32(), value));
                }
            }
        }
    }
}

impl Epilogue<'_> {
    fn apply(&self, row: usize, sum: f32) -> f32 {
        match self {
            Self::One => sum,
            Self::Tensor(factor) => sum * factor,
            Self::PerRow(factors) => sum * factors[row],
        }
    }
}

impl Store {
    fn combine(self, old: f32, value: f32) -> f32 {
        match self {
            Self::Overwrite => value,
            Self::Accumulate => old + value,
        }
    }
}
