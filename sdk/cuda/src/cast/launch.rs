//! Which kernels make a cast, and how they are launched.

#![allow(unsafe_code)]

use fp8flow_kernels::Fp8;
use fp8flow_kernels::scale::ScaleRule;

use super::target::{BLOCK, Element, Face, Granularity, Input, Scale, Target, obstacle, padded};
use crate::memory::fill;
use crate::{Arg, Card, Error, Result, Shape, Source};

/// The source in this file of `kernels/`.
macro_rules! kernels {
    ($name:literal) => {
        Source { name: $name, text: include_str!(concat!("../kernels/", $name, ".cu")) }
    };
}

const AMAX: Source = kernels!("amax");
const CAST_BLOCKS: Source = kernels!("cast_blocks");
const CAST_LINES: Source = kernels!("cast_lines");
const CAST_ROWS: Source = kernels!("cast_rows");
const CAST_TILE: Source = kernels!("cast_tile");
const REPEAT: Source = kernels!("repeat");

/// The kernels, by file.
pub const SOURCES: [Source; 6] = [AMAX, CAST_BLOCKS, CAST_LINES, CAST_ROWS, CAST_TILE, REPEAT];

/// Rows and columns of the blocks of `cast_tile` and `cast_lines`.
const STRIPE: [usize; 2] = [128, 64];

/// Casts `input` as each of `targets` asks; scales a row and a column, or of blocks along rows
/// and along columns, in one go if they are alike else. Saturated and underflowed elements are counted only with `count`.
///
/// # Safety
/// All addresses are of memory on `card` that lives until its stream has come past this: elements, codes, factors and
/// space as large as their docs say, `counters` of [`Counters::BYTES`](super::Counters::BYTES). What is written
/// overlaps with nothing else.
pub unsafe fn cast(
    card: &Card,
    input: &Input,
    targets: [Option<&Target>; 2],
    counters: u64,
    count: bool,
) -> Result<()> {
    let Input { rows, cols, .. } = *input;
    for target in targets.into_iter().flatten() {
        if let Some(reason) = obstacle(input, target) {
            let format = target.format.name();
            return Err(Error::Unsupported(format!("no cast of {rows}×{cols} to {format}: {reason}")));
        }
    }
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let job = Job { card, input, counters, count };
    // SAFETY: the caller's, and what is refused was checked.
    unsafe {
        if let [Some(first), Some(second)] = targets
            && let Some(both) = in_one_go(first, second)
        {
            return job.make(&both);
        }
        targets.into_iter().flatten().try_for_each(|target| job.make(target))
    }
}

/// The absolute maximum of `input` but NaNs, to the float at `maximum`.
///
/// # Safety
/// Both addresses are of memory on `card` that lives until its stream has come past this.
pub unsafe fn amax(card: &Card, input: &Input, maximum: u64) -> Result<()> {
    // SAFETY: the caller's.
    unsafe {
        fill(card, maximum, size_of::<f32>(), 0)?;
        Job { card, input, counters: 0, count: false }.amax(maximum, false)
    }
}

/// The float at `x` for each of `n` at `out`: one factor as one for each row.
///
/// # Safety
/// Addresses are of one and of `n` floats on `card` that live until its stream has come past this.
pub unsafe fn repeat(card: &Card, x: u64, out: u64, n: usize) -> Result<()> {
    let kernel = card.kernel(REPEAT, "repeat_f32")?;
    // SAFETY: three arguments of the entry's types; the caller's, for the addresses.
    unsafe { kernel.launch(card, Shape::each(n, 256), &[address(x), address(out), n.into()]) }
}

/// Two casts that differ only in that scales are of rows, and of columns, or of blocks of these, as one target.
fn in_one_go(first: &Target, second: &Target) -> Option<Target> {
    use Granularity::{Col, ColBlocks, Row, RowBlocks};
    let (by_row, by_col) = match (first.granularity, second.granularity) {
        (Row, Col) | (RowBlocks, ColBlocks) => (first, second),
        (Col, Row) | (ColBlocks, RowBlocks) => (second, first),
        _ => return None,
    };
    let rule = |target: &Target| match target.scale {
        Scale::Current { rule, .. } => Some(rule),
        Scale::Given { .. } => None,
    };
    let alike = by_row.format == by_col.format && rule(by_row) == rule(by_col);
    let both = by_row.rows.is_some() && by_col.turned.is_some();
    (alike && both).then_some(Target { rows: by_row.rows, ..*by_col })
}

fn address(of: u64) -> Arg {
    Arg::Address(of)
}

/// A face that is not wanted has no addresses.
fn addresses(face: Option<Face>) -> [Arg; 2] {
    face.map_or([0, 0], |face| [face.codes, face.factors]).map(Arg::Address)
}

/// What a cast with one scale for all has it from.
#[derive(Clone, Copy)]
enum By {
    Scale(f32),
    /// Where the maximum lies, and how a scale is made of it.
    Maximum(u64, ScaleRule),
}

/// What all casts of a matrix have in common.
struct Job<'a> {
    card: &'a Card,
    input: &'a Input,
    counters: u64,
    count: bool,
}

// Everything below is asked of the stream: addresses are the caller's of `cast` or `amax`.
impl Job<'_> {
    unsafe fn make(&self, target: &Target) -> Result<()> {
        if target.rows.is_none() && target.turned.is_none() {
            return Ok(());
        }
        // SAFETY: the caller's.
        unsafe {
            match (target.granularity, target.scale) {
                (_, Scale::Given { scale, amax }) => {
                    fill(self.card, amax, size_of::<f32>(), 0)?;
                    self.tile(target, By::Scale(scale), amax)
                }
                (Granularity::Tensor, Scale::Current { rule, space }) => {
                    self.amax(space, nan_wins(rule))?;
                    self.tile(target, By::Maximum(space, rule), 0)
                }
                (Granularity::Col, Scale::Current { rule, space }) => self.lines(target, rule, space),
                (Granularity::Row, Scale::Current { rule, .. }) => self.rows(target, rule),
                (granularity, Scale::Current { rule, .. }) => {
                    self.blocks(target, granularity == Granularity::Squares, rule)
                }
            }
        }
    }

    /// Raises the float at `maximum`.
    unsafe fn amax(&self, maximum: u64, nan: bool) -> Result<()> {
        let n = self.input.rows * self.input.cols;
        // Loads of 16 bytes, four a thread; more blocks than the card holds at once would only add to the end.
        let loads = n.div_ceil(16 / self.input.element.bytes());
        let most = self.card.properties().multiprocessors as usize * 8;
        let shape = Shape::new(loads.div_ceil(4 * 256).clamp(1, most), 256);
        let arguments = [self.x(), address(maximum), address(self.counters), n.into(), u32::from(nan).into()];
        // SAFETY: the caller's; five arguments of the entry's types.
        unsafe { self.launch(AMAX, "amax", None, shape, &arguments) }
    }

    /// A scale a column, and one a row for codes as the matrix lies if these are wanted; maxima go to `space`.
    unsafe fn lines(&self, target: &Target, rule: ScaleRule, space: u64) -> Result<()> {
        let Input { rows, cols, .. } = *self.input;
        let [codes, factors] = addresses(target.rows);
        let [turned, factors_turned] = addresses(target.turned);
        let of_rows = target.rows.map_or(0, |_| space + (cols * size_of::<f32>()) as u64);
        let [of_rows, of_cols, counters] = [of_rows, space, self.counters].map(address);
        let [m, n] = [rows, cols].map(Arg::from);
        let nan = u32::from(nan_wins(rule)).into();
        let maxima = [self.x(), of_rows, of_cols, counters, m, n, nan];
        let casts = [
            self.x(),
            codes,
            turned,
            factors,
            factors_turned,
            of_rows,
            of_cols,
            counters,
            m,
            n,
            Arg::U32(rule as u32),
            u32::from(self.count).into(),
        ];
        let blocks =
            |[down, across]: [usize; 2]| Shape::new(rows.div_ceil(down) * cols.div_ceil(across), 256);
        // SAFETY: the caller's; seven and twelve arguments of the entries' types.
        unsafe {
            self.launch(AMAX, "amax_lines", None, blocks([BLOCK; 2]), &maxima)?;
            self.launch(CAST_LINES, "cast_lines", Some(target.format), blocks(STRIPE), &casts)
        }
    }

    /// With one scale for all; the float at `amax` is raised to the maximum met unless that is 0.
    unsafe fn tile(&self, target: &Target, by: By, amax: u64) -> Result<()> {
        let Input { rows, cols, .. } = *self.input;
        let [codes, factors] = addresses(target.rows);
        let [turned, factors_turned] = addresses(target.turned);
        let shape = Shape::new(rows.div_ceil(STRIPE[0]) * cols.div_ceil(STRIPE[1]), 256);
        let (maximum, scale, rule) = match by {
            By::Scale(scale) => (0, scale, 0),
            By::Maximum(maximum, rule) => (maximum, 0.0, rule as u32),
        };
        let arguments = [
            self.x(),
            codes,
            turned,
            factors,
            factors_turned,
            address(maximum),
            Arg::F32(scale),
            address(amax),
            address(self.counters),
            rows.into(),
            cols.into(),
            Arg::U32(rule),
            u32::from(self.count).into(),
        ];
        // SAFETY: the caller's; thirteen arguments of the entry's types.
        unsafe { self.launch(CAST_TILE, "cast_tile", Some(target.format), shape, &arguments) }
    }

    unsafe fn rows(&self, target: &Target, rule: ScaleRule) -> Result<()> {
        let Input { rows, cols, .. } = *self.input;
        let [codes, factors] = addresses(target.rows);
        // As few threads a row as hold it, 32 elements each: a warp, which waits for no other, or a block.
        let share = [32, 128, 256].into_iter().find(|share| share * 32 >= cols).unwrap_or(512);
        let block = share.max(128);
        let arguments = [
            self.x(),
            codes,
            factors,
            address(self.counters),
            rows.into(),
            cols.into(),
            Arg::U32(share as u32),
            Arg::U32(rule as u32),
            u32::from(self.count).into(),
        ];
        let shape = Shape::new((padded(rows) * share).div_ceil(block), block as u32);
        // SAFETY: the caller's; nine arguments of the entry's types.
        unsafe { self.launch(CAST_ROWS, "cast_rows", Some(target.format), shape, &arguments) }
    }

    unsafe fn blocks(&self, target: &Target, square: bool, rule: ScaleRule) -> Result<()> {
        let Input { rows, cols, .. } = *self.input;
        let [codes, factors] = addresses(target.rows);
        let [turned, factors_turned] = addresses(target.turned);
        let arguments = [
            self.x(),
            codes,
            turned,
            factors,
            factors_turned,
            address(self.counters),
            rows.into(),
            cols.into(),
            u32::from(square).into(),
            Arg::U32(rule as u32),
            u32::from(self.count).into(),
        ];
        let shape = Shape::new(rows.div_ceil(BLOCK) * cols.div_ceil(BLOCK), 256);
        // SAFETY: the caller's; eleven arguments of the entry's types.
        unsafe { self.launch(CAST_BLOCKS, "cast_blocks", Some(target.format), shape, &arguments) }
    }

    fn x(&self) -> Arg {
        address(self.input.address)
    }

    /// The entry point for the elements, and for the format of codes where there are any.
    unsafe fn launch(
        &self,
        source: Source,
        name: &str,
        format: Option<Fp8>,
        shape: Shape,
        arguments: &[Arg],
    ) -> Result<()> {
        let element: Element = self.input.element;
        let format = format.map(|format| format!("_{}", format.name())).unwrap_or_default();
        let kernel = self.card.kernel(source, &format!("{name}_{}{format}", element.name()))?;
        // SAFETY: the caller's.
        unsafe { kernel.launch(self.card, shape, arguments) }
    }
}

/// Whether a NaN is the maximum that `rule` wants.
fn nan_wins(rule: ScaleRule) -> bool {
    matches!(rule, ScaleRule::Linear | ScaleRule::PowerOfTwo)
}
