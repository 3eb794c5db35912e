//! The way of a big product through the caches and to the threads (Goto and van de Geijn, "Anatomy of
//! high-performance matrix multiplication", 2008).
//!
//! The output is cut into blocks, and a block's contraction into stretches of at most [`depth`] steps. For each stretch
//! the threads pack both operands, once for all of them, and then multiply: a task takes a rectangle of the block,
//! keeps its rows of `a` in the second-level cache and the panel of `b` at hand in the first.
//!
//! Where a contraction has several stretches, the sums wait in f32 between them, so that each is one run over `k`
//! whatever that depth is: no constant here shows in a result.

use std::ops::Range;

use super::step::products_are_exact;
use super::store::Finish;
use super::tile::{self, Job, Sums};
use super::{Epilogue, Operand, Store, pack};
use crate::parallel::for_each;
use crate::transpose::{Block, Strip};
use crate::{Cpu, Element, Isa, Rectangle, Rectangles, Serial};

/// Steps of a contraction between two waits: few enough for a panel of `b` and the rows of `a` that a task keeps to stay
/// in the near caches, and enough for the sums' way to memory and back to cost little beside them.
const fn depth(isa: Isa) -> usize {
    match isa {
        Isa::Scalar | Isa::Avx2 => 256,
        Isa::Avx512 => 1024,
    }
}

/// Rows and columns of a block at most: its packed operands and waiting sums take 33 MiB.
const BLOCK: [usize; 2] = [2048, 2048];

/// Floats for the packed operands and waiting sums of an `m × n` output contracted over `k`: no fewer for more rows,
/// columns or steps, whatever the number of threads.
pub(super) fn space(isa: Isa, [m, n, k]: [usize; 3]) -> usize {
    if m == 0 || n == 0 {
        return 0;
    }
    let side = |len: usize, most: usize| len.min(most).next_multiple_of(STRIP);
    let (rows, cols) = (side(m, BLOCK[0]), side(n, BLOCK[1]));
    let stretch = k.min(depth(isa));
    (rows + cols) * stretch + if stretch < k { rows * cols } else { 0 }
}

/// Rows that are packed at a time: a multiple of the tiles' heights and widths.
pub(super) const STRIP: usize = 192;

/// Rows that a task multiplies at most: their packed numbers stay in a small second-level cache.
const HEIGHT: usize = 96;

/// Multiply-adds below which a task costs more to hand out than it saves.
const TASK: usize = 1 << 19;

/// [`super::gemm`] for checked operands with a contraction of at least one step.
pub(super) fn gemm<T: Element>(
    cpu: &Cpu<'_>,
    a: &Operand<'_>,
    scale_a: Epilogue<'_>,
    b: &Operand<'_>,
    scale_b: Epilogue<'_>,
    store: Store,
    out: &mut [T],
    space: &mut [f32],
) {
    if out.is_empty() {
        return;
    }
    let small = out.len().saturating_mul(a.depth) <= TASK;
    let cpu = &Cpu { pool: if small { &Serial } else { cpu.pool }, ..*cpu };
    let exact = cpu.isa == Isa::Scalar && products_are_exact(a, b);
    let finish = Finish { scale_a, scale_b, store };
    let stretch = even(a.depth, depth(cpu.isa), 1);
    for cols in cuts(b.rows, even(b.rows, BLOCK[1], STRIP)) {
        for rows in cuts(a.rows, even(a.rows, BLOCK[0], STRIP)) {
            let size = task_size(cpu, rows.len(), cols.len(), stretch);
            let strips = [rows.len().div_ceil(STRIP), cols.len().div_ceil(STRIP)];
            let (packed, sums) = space.split_at_mut((strips[0] + strips[1]) * STRIP * stretch);

            for steps in cuts(a.depth, stretch) {
                let strip = STRIP * steps.len();
                let packed = &mut packed[..(strips[0] + strips[1]) * strip];
                for_each(cpu.pool, packed.chunks_exact_mut(strip).enumerate(), |(i, out)| {
                    let steps = steps.clone();
                    let job = if i < strips[0] {
                        Pack { operand: a, side: Side::A, first: rows.start + i * STRIP, steps, out }
                    } else {
                        let first = cols.start + (i - strips[0]) * STRIP;
                        Pack { operand: b, side: Side::B, first, steps, out }
                    };
                    tile::run(cpu.isa, exact, job);
                });

                let (packed_a, packed_b) = packed.split_at(strips[0] * strip);
                let mut rest = &mut *sums;
                let rectangles = Rectangles::new(out, b.rows, rows.clone(), cols.clone(), size).map(|out| {
                    let own = || rest.split_off_mut(..tiles(cpu.isa, &out)).expect("room for all tiles");
                    let waiting = (stretch < a.depth).then(own);
                    (out, waiting)
                });
                for_each(cpu.pool, rectangles, |(out, sums)| {
                    let job = Multiply {
                        a: &packed_a[(out.rows().start - rows.start) * steps.len()..],
                        b: &packed_b[(out.cols().start - cols.start) * steps.len()..],
                        depth: steps.len(),
                        sums,
                        first: steps.start == 0,
                        finish: (steps.end == a.depth).then_some(finish),
                        out,
                    };
                    tile::run(cpu.isa, exact, job);
                });
            }
        }
    }
}

/// The size of the fewest equal parts of `n` that are no bigger than `most`, rounded up to a multiple of `unit`.
fn even(n: usize, most: usize, unit: usize) -> usize {
    n.div_ceil(n.div_ceil(most)).next_multiple_of(unit)
}

/// `0..n` in pieces of `size`.
fn cuts(n: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(size).map(move |start| start..n.min(start + size))
}

/// Floats in the tiles that cover a rectangle.
fn tiles<T>(isa: Isa, rectangle: &Rectangle<'_, T>) -> usize {
    let [mr, nr] = tile::size(isa);
    rectangle.rows().len().next_multiple_of(mr) * rectangle.cols().len().next_multiple_of(nr)
}

/// Height and width of the rectangle that a task multiplies, in whole tiles.
fn task_size(cpu: &Cpu<'_>, rows: usize, cols: usize, depth: usize) -> [usize; 2] {
    let [mr, nr] = tile::size(cpu.isa);
    let height = even(rows, HEIGHT, mr);
    let threads = cpu.pool.threads();
    // A few tasks for each thread, so that none waits long for the last.
    let tasks = if threads == 1 { 1 } else { (4 * threads).min(rows * cols * depth / TASK).max(1) };
    let beside = tasks.div_ceil(rows.div_ceil(height));
    [height, even(cols, cols.div_ceil(beside), nr)]
}

/// Whose panels to pack.
#[derive(Clone, Copy)]
enum Side {
    A,
    B,
}

/// Packs a strip of an operand.
struct Pack<'a> {
    operand: &'a Operand<'a>,
    side: Side,
    first: usize,
    steps: Range<usize>,
    out: &'a mut [f32],
}

impl Job for Pack<'_> {
    #[inline(always)]
    fn run<const MR: usize, const NR: usize>(
        self,
        _: impl Fn(&[f32], &[f32], &mut Sums<MR, NR>),
        turn: impl Fn(&Strip, usize, usize, &mut Block),
    ) {
        let Self { operand, side, first, steps, out } = self;
        match side {
            Side::A => pack::panels::<MR>(operand, first, steps, turn, out),
            Side::B => pack::panels::<NR>(operand, first, steps, turn, out),
        }
    }
}

/// Multiplies a rectangle of a block along one stretch.
struct Multiply<'a, T> {
    /// Panels of the rectangle's rows, and more.
    a: &'a [f32],
    /// Panels of the rectangle's columns, and more.
    b: &'a [f32],
    depth: usize,
    /// Where the sums of the tiles wait for the next stretch, if there is one.
    sums: Option<&'a mut [f32]>,
    /// Whether the sums start here, from 0.
    first: bool,
    /// What to do with them, if they end here.
    finish: Option<Finish<'a>>,
    out: Rectangle<'a, T>,
}

impl<T: Element> Job for Multiply<'_, T> {
    #[inline(always)]
    fn run<const MR: usize, const NR: usize>(
        mut self,
        accumulate: impl Fn(&[f32], &[f32], &mut Sums<MR, NR>),
        _: impl Fn(&Strip, usize, usize, &mut Block),
    ) {
        let [rows, cols] = [self.out.rows(), self.out.cols()];
        let mut waiting = match &mut self.sums {
            Some(sums) => sums.as_chunks_mut::<NR>().0.as_chunks_mut::<MR>().0.iter_mut(),
            None => [].iter_mut(),
        };
        for (col, b) in cols.clone().step_by(NR).zip(self.b.chunks_exact(NR * self.depth)) {
            let finish = self.finish.map(|finish| (finish, finish.columns::<NR>(col)));
            for (row, a) in rows.clone().step_by(MR).zip(self.a.chunks_exact(MR * self.depth)) {
                let mut fresh;
                let tile = match waiting.next() {
                    Some(tile) if !self.first => tile,
                    Some(tile) => {
                        *tile = [[0.0; NR]; MR];
                        tile
                    }
                    None => {
                        fresh = [[0.0; NR]; MR];
                        &mut fresh
                    }
                };
                if finish.is_some() {
                    let cols = col..cols.end.min(col + NR);
                    (row..rows.end.min(row + MR)).for_each(|row| self.out.prefetch(row, cols.clone()));
                }
                accumulate(a, b, tile);
                if let Some((finish, columns)) = &finish {
                    finish.tile(tile, columns, row, col, &mut self.out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_even_and_no_bigger_than_asked_but_for_the_unit() {
        assert_eq!(even(1, 256, 1), 1);
        assert_eq!(even(256, 256, 1), 256);
        assert_eq!(even(257, 256, 1), 129);
        assert_eq!(even(1000, 256, 96), 288);
        assert_eq!(cuts(5, 2).collect::<Vec<_>>(), [0..2, 2..4, 4..5]);
    }

    #[test]
    fn more_rows_columns_or_steps_take_no_less_space() {
        for isa in Isa::ALL {
            let lens = [0, 1, 191, 192, 193, 256, 257, 512, 513, 1024, 1025, 2048, 2049, 5000];
            for pair in lens.windows(2) {
                for other in lens {
                    for other_too in lens {
                        let [less, more] = [pair[0], pair[1]].map(|len| {
                            [[len, other, other_too], [other, len, other_too], [other, other_too, len]]
                                .map(|shape| space(isa, shape))
                        });
                        assert!(less.iter().zip(more).all(|(less, more)| *less <= more), "{isa:?} {pair:?}");
                    }
                }
            }
        }
        // 1344 rows and 768 columns in whole strips, 1024 steps at a time.
        assert_eq!(space(Isa::Avx512, [1300, 700, 1024]), (1344 + 768) * 1024);
        assert_eq!(space(Isa::Avx512, [1300, 700, 1025]), (1344 + 768) * 1024 + 1344 * 768);
    }

    #[test]
    fn strips_hold_whole_panels_of_every_tile() {
        for isa in Isa::ALL {
            for side in tile::size(isa) {
                assert!(STRIP.is_multiple_of(side), "{isa:?} {side}");
            }
        }
    }

    #[test]
    fn a_task_takes_whole_tiles_and_few_rows() {
        for (rows, cols) in [(1, 1), (17, 4000), (1000, 33), (1536, 2048)] {
            let [height, width] = task_size(&Cpu::new(Isa::Scalar, &Serial), rows, cols, 100);
            assert!(height.is_multiple_of(2) && height <= HEIGHT, "{height}");
            assert!(width.is_multiple_of(16) && width >= cols, "{width}");
        }
    }
}
