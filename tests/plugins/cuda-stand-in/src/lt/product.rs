//! A product of matrices: sums in f64, k ascending, rounded to f32 and then to the element.

use super::problem::{Layout, Mode, Problem};
use super::{EXECUTION_FAILED, INVALID_VALUE, NOT_SUPPORTED, Status};
use crate::memory::{Place, place};
use crate::say;

/// Columns that are summed side by side.
const PANEL: usize = 16;
/// Multiplications from which on two threads share them.
const WORTH_SHARING: usize = 1 << 20;

/// A product in a stream.
pub(crate) struct Product {
    pub(super) problem: Problem,
    pub(super) alpha: f32,
    pub(super) beta: f32,
    pub(super) a: usize,
    pub(super) b: usize,
    pub(super) c: usize,
    pub(super) d: usize,
    /// Address, and bytes that the algorithm spoils there.
    pub(super) workspace: (usize, usize),
}

fn apart((x, x_bytes): (usize, usize), (y, y_bytes): (usize, usize)) -> bool {
    x_bytes == 0 || y_bytes == 0 || x + x_bytes <= y || y + y_bytes <= x
}

impl Product {
    /// Every range that it touches, with its name.
    fn ranges(&self) -> Vec<(&'static str, usize, usize)> {
        let Problem { a, b, c, d, .. } = &self.problem;
        let mut ranges = vec![("A", self.a, a.bytes()), ("B", self.b, b.bytes()), ("D", self.d, d.bytes())];
        if self.beta != 0.0 {
            ranges.push(("C", self.c, c.bytes()));
        }
        for (operand, name) in ["the scales of A", "the scales of B"].into_iter().enumerate() {
            let at = self.problem.descriptor.scales[operand];
            if at != 0 {
                ranges.push((name, at, 4 * self.problem.scale_count(operand)));
            }
        }
        if self.workspace.1 > 0 {
            ranges.push(("the workspace", self.workspace.0, self.workspace.1));
        }
        ranges
    }

    /// What the library looks at before it launches anything, and what would be a fault in the kernel.
    pub(super) fn check(&self) -> Result<(), Status> {
        let Problem { a, b, d, descriptor, modes, .. } = &self.problem;
        if self.a == 0 || self.b == 0 || self.d == 0 || (self.c == 0 && self.beta != 0.0) {
            return Err(INVALID_VALUE);
        }
        if self.beta != 0.0 && !self.problem.adds {
            return Err(NOT_SUPPORTED);
        }
        let aligned = |at: usize, layout: &Layout| {
            at.is_multiple_of(if a.number.is_fp8() { 16 } else { layout.number.bytes() })
        };
        if !aligned(self.a, a)
            || !aligned(self.b, b)
            || !aligned(self.d, d)
            || !aligned(self.c, &self.problem.c)
        {
            return Err(NOT_SUPPORTED);
        }
        for (mode, at) in modes.iter().zip(descriptor.scales) {
            if *mode != Mode::Scalar && at == 0 {
                return Err(INVALID_VALUE);
            }
            if !at.is_multiple_of(if matches!(mode, Mode::Vector | Mode::Block) { 16 } else { 4 }) {
                return Err(NOT_SUPPORTED);
            }
        }
        for (name, at, bytes) in self.ranges() {
            if place(at, bytes) != Some(Place::Card) {
                eprintln!(
                    "emulated card: cublasLtMatmul: {name}, {bytes} bytes at {at:#x}, is no memory of the card"
                );
                return Err(EXECUTION_FAILED);
            }
        }
        let spoilt = [(self.d, d.bytes()), self.workspace];
        let same = self.c == self.d && self.problem.c == self.problem.d;
        for (name, at, bytes) in self.ranges() {
            let inputs_apart = spoilt.iter().all(|range| apart(*range, (at, bytes)));
            let is_output = name == "D" || name == "the workspace" || (name == "C" && same);
            if !inputs_apart && !is_output {
                return Err(INVALID_VALUE);
            }
        }
        if apart(spoilt[0], spoilt[1]) { Ok(()) } else { Err(INVALID_VALUE) }
    }

    /// Multiplies. The card's memory is open.
    pub(crate) fn run(&self) {
        for (name, at, bytes) in self.ranges() {
            if place(at, bytes) != Some(Place::Card) {
                say::stop(&format!("cublasLtMatmul: {name}, {bytes} bytes at {at:#x}, is gone"));
            }
        }
        // Nobody may keep anything in a workspace.
        // SAFETY: a range of the card's, as was looked at.
        unsafe { (self.workspace.0 as *mut u8).write_bytes(0xFF, self.workspace.1) };
        for batch in 0..self.problem.d.batches {
            self.multiply(batch);
        }
    }

    fn multiply(&self, batch: usize) {
        let Problem { m, n, k, a, b, descriptor, .. } = &self.problem;
        let (m, n, k) = (*m, *n, *k);
        let scales = [0, 1].map(|operand| self.scales(operand));
        // Rows of op(a), each along k.
        let rows = gather(
            self.a,
            a,
            batch,
            |row, i| if descriptor.transposed[0] { (i, row) } else { (row, i) },
            m,
            k,
        );
        let columns = gather(
            self.b,
            b,
            batch,
            |column, i| if descriptor.transposed[1] { (column, i) } else { (i, column) },
            n,
            k,
        );
        let panels = n.div_ceil(PANEL);
        let work = |panels: std::ops::Range<usize>| {
            let mut packed = vec![[0.0_f64; PANEL]; k];
            for panel in panels {
                let first = panel * PANEL;
                let width = PANEL.min(n - first);
                for (i, line) in packed.iter_mut().enumerate() {
                    for (j, x) in line.iter_mut().enumerate().take(width) {
                        *x = f64::from(columns[(first + j) * k + i]);
                    }
                }
                for row in 0..m {
                    let sums = self.row(&rows[row * k..(row + 1) * k], &packed, row, first, width, &scales);
                    for (j, sum) in sums.iter().enumerate().take(width) {
                        // SAFETY: an element of C and D, whose ranges were looked at; each is one thread's.
                        unsafe { self.store(*sum, row, first + j, batch) };
                    }
                }
            }
        };
        if m * n * k < WORTH_SHARING || panels == 1 {
            work(0..panels);
        } else {
            std::thread::scope(|scope| {
                scope.spawn(|| work(0..panels / 2));
                work(panels / 2..panels);
            });
        }
    }

    fn scales(&self, operand: usize) -> Vec<f64> {
        let at = self.problem.descriptor.scales[operand] as *const f32;
        if at.is_null() {
            return vec![1.0];
        }
        let count = self.problem.scale_count(operand);
        // SAFETY: the range was looked at.
        (0..count).map(|i| f64::from(unsafe { at.add(i).read_unaligned() })).collect()
    }

    /// Scaled sums of one row and the columns of a panel: 128 elements along k at a time, each with its scales.
    fn row(
        &self,
        row: &[f32],
        packed: &[[f64; PANEL]],
        m: usize,
        first: usize,
        width: usize,
        scales: &[Vec<f64>; 2],
    ) -> [f64; PANEL] {
        let mut total = [0.0_f64; PANEL];
        let by_blocks = matches!(self.problem.modes[0], Mode::Vector | Mode::Block);
        let step = if by_blocks { 128 } else { row.len() };
        for (block, (xs, lines)) in row.chunks(step).zip(packed.chunks(step)).enumerate() {
            let mut sums = [0.0_f64; PANEL];
            for (x, line) in xs.iter().zip(lines) {
                let x = f64::from(*x);
                for (sum, y) in sums.iter_mut().zip(line) {
                    *sum += x * y;
                }
            }
            let of_row = scales[0][self.problem.scale_index(0, m, block)];
            for (j, sum) in sums.iter().enumerate().take(width) {
                total[j] += sum * of_row * scales[1][self.problem.scale_index(1, first + j, block)];
            }
        }
        total
    }

    /// # Safety
    /// The element is within C and D.
    unsafe fn store(&self, sum: f64, row: usize, column: usize, batch: usize) {
        let address = |at: usize, layout: &Layout| {
            (at + (batch * layout.stride + column * layout.leading + row) * layout.number.bytes()) as *mut u8
        };
        let Problem { c, d, .. } = &self.problem;
        let mut x = f64::from(self.alpha) * sum;
        if self.beta != 0.0 {
            x += f64::from(self.beta) * f64::from(c.number.read(address(self.c, c)));
        }
        d.number.write(address(self.d, d), x as f32);
    }
}

/// An operand as `count` lines of `k` numbers; `place` is the row and column of element `i` of a line.
fn gather(
    at: usize,
    layout: &Layout,
    batch: usize,
    place: impl Fn(usize, usize) -> (usize, usize),
    count: usize,
    k: usize,
) -> Vec<f32> {
    let element = |line: usize, i: usize| {
        let (row, column) = place(line, i);
        let offset = batch * layout.stride + column * layout.leading + row;
        // SAFETY: within the operand, whose range was looked at.
        unsafe { layout.number.read((at + offset * layout.number.bytes()) as *const u8) }
    };
    (0..count).flat_map(|line| (0..k).map(move |i| (line, i))).map(|(line, i)| element(line, i)).collect()
}
