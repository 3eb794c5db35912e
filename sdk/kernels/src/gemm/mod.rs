//! Matrix multiplication with scales: one contraction for the three products of a linear layer.
//!
//! | product | `a[i,k]` | `b[j,k]` | `out[i,j]` |
//! | --- | --- | --- | --- |
//! | fprop `x·Wᵀ` | `x[m,k]` | `W[n,k]` | `y[m,n]` |
//! | dgrad `dy·W` | `dy[m,n]` | `Wᵀ`: [`Operand::transposed`] | `dx[m,k]` |
//! | wgrad `dyᵀ·x` | `dyᵀ`: transposed | `xᵀ`: transposed | `dW[n,k]` |
//!
//! Scales by row, column or tensor leave the sum, so they are factors at its end ([`Epilogue`]). Scales by block do not:
//! they are factors on the elements ([`Grid`]), multiplied in as an operand is decoded.
//!
//! `specification` says what is computed. Below it, the same for big matrices: `block` cuts the product into blocks
//! that fit the caches and deals them out to threads, `pack` decodes operands to f32 in the order in which `tile`
//! reads them, `tile` multiplies in registers, and `store` scales, rounds and writes.

mod block;
mod grid;
mod pack;
mod step;
mod store;
#[cfg(test)]
mod tests;
mod tile;

pub use self::grid::Grid;
use crate::buffer::Buffer;
use crate::{Cpu, Element, Elements, ElementsMut, Isa, Matrix};

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
    /// Factors on the elements, if there are any.
    pub grid: Option<Grid<'a>>,
}

impl<'a> Operand<'a> {
    /// The rows of `matrix`, contracted along its columns.
    pub fn rows(matrix: Matrix<'a>) -> Self {
        let Matrix { elements, rows, cols } = matrix;
        Self { elements, rows, depth: cols, row_stride: cols, depth_stride: 1, grid: None }
    }

    /// The columns of `matrix`, contracted along its rows.
    pub fn transposed(matrix: Matrix<'a>) -> Self {
        let Matrix { elements, rows, cols } = matrix;
        Self { elements, rows: cols, depth: rows, row_stride: 1, depth_stride: cols, grid: None }
    }

    /// The same with a factor on each element.
    ///
    /// An element times its factor is rounded once, in f32, before it enters the contraction: not at all where the
    /// factor is a power of two and the product within the range of f32, so that the contraction is then one of the
    /// exact dequantised values.
    #[must_use]
    pub fn scaled(self, grid: Grid<'a>) -> Self {
        Self { grid: Some(grid), ..self }
    }

    /// Element `(row, step)`, times its factor.
    fn get(&self, row: usize, step: usize) -> f32 {
        let element = self.elements.get(row * self.row_stride + step * self.depth_stride);
        match &self.grid {
            Some(grid) => element * grid.factor(row, step),
            None => element,
        }
    }

    /// Fails where an index would leave the elements or the factors.
    fn check(&self, name: &str) {
        if self.rows == 0 || self.depth == 0 {
            return;
        }
        assert!(self.row_stride == 1 || self.depth_stride == 1, "{name}: one stride is 1");
        let last = (self.rows - 1)
            .checked_mul(self.row_stride)
            .zip((self.depth - 1).checked_mul(self.depth_stride))
            .and_then(|(row, step)| row.checked_add(step));
        assert!(last.is_some_and(|last| last < self.elements.len()), "{name}: a stride leaves the elements");
        if let Some(grid) = &self.grid {
            grid.check(name, self.rows, self.depth);
        }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Store {
    /// `out = value`.
    Overwrite,
    /// `out = out + value`, added in f32 and rounded once.
    Accumulate,
}

/// `out[i,j] (+)= (Σ_k a[i,k] · b[j,k]) · scale_a[i] · scale_b[j]`, accumulated in f32.
///
/// An element of an operand with a [`Grid`] is its value times its factor, see [`Operand::scaled`].
/// The sum starts at +0 and takes one fused multiply-add a step, `k` ascending; then it is multiplied by `scale_a`,
/// then by `scale_b` (a factor of [`Epilogue::One`] is left out), added to `out` if asked, and rounded once, at the
/// store. A NaN is stored as the positive quiet one, because its sign and payload would depend on the instructions
/// that made it. `out` is dense, `a.rows × b.rows`, row-major.
///
/// # Panics
/// If the depths differ, a stride leaves the elements or factors, a scale or `out` has the wrong length.
pub fn gemm(
    cpu: &Cpu<'_>,
    a: &Operand<'_>,
    scale_a: Epilogue<'_>,
    b: &Operand<'_>,
    scale_b: Epilogue<'_>,
    store: Store,
    out: ElementsMut<'_>,
) {
    let mut space = Buffer::take(gemm_space(cpu.isa, [a.rows, b.rows, a.depth]));
    gemm_in(&mut space, cpu, a, scale_a, b, scale_b, store, out);
}

/// Floats that [`gemm`] works in for an output of `m × n` and a contraction over `k`. No fewer for more of any of them,
/// and the same for any number of threads.
pub fn gemm_space(isa: Isa, [m, n, k]: [usize; 3]) -> usize {
    block::space(isa, [m, n, k])
}

/// [`gemm`] in memory of the caller's, with any values in it: [`gemm_space`] floats, best aligned to 64 bytes.
///
/// # Panics
/// As [`gemm`], and if there are fewer.
pub fn gemm_in(
    space: &mut [f32],
    cpu: &Cpu<'_>,
    a: &Operand<'_>,
    scale_a: Epilogue<'_>,
    b: &Operand<'_>,
    scale_b: Epilogue<'_>,
    store: Store,
    out: ElementsMut<'_>,
) {
    let needed = gemm_space(cpu.isa, [a.rows, b.rows, a.depth]);
    assert!(space.len() >= needed, "{} floats to work in, where it takes {needed}", space.len());
    assert_eq!(a.depth, b.depth, "contraction lengths differ");
    assert_eq!(Some(out.len()), a.rows.checked_mul(b.rows), "output length");
    a.check("a");
    b.check("b");
    scale_a.check("scale_a", a.rows);
    scale_b.check("scale_b", b.rows);
    match out {
        // Nothing to add up, so nothing to block.
        _ if a.depth == 0 => specification(a, scale_a, b, scale_b, store, out),
        ElementsMut::F32(out) => block::gemm(cpu, a, scale_a, b, scale_b, store, out, space),
        ElementsMut::Bf16(out) => block::gemm(cpu, a, scale_a, b, scale_b, store, out, space),
    }
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
                sum = a.get(i, k).mul_add(b.get(j, k), sum);
            }
            let value = scale_b.apply(j, scale_a.apply(i, sum));
            let at = i * b.rows + j;
            match &mut out {
                ElementsMut::F32(out) => out[at] = f32::narrow(store.combine(out[at], value)),
                ElementsMut::Bf16(out) => out[at] = Element::narrow(store.combine(out[at].to_f32(), value)),
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

    fn check(&self, name: &str, rows: usize) {
        if let Self::PerRow(factors) = self {
            assert_eq!(factors.len(), rows, "{name}: one factor a row");
        }
    }
}

impl Store {
    #[inline(always)]
    fn combine(self, old: f32, value: f32) -> f32 {
        match self {
            Self::Overwrite => value,
            Self::Accumulate => old + value,
        }
    }
}
