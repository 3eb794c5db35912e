//! A matrix on the card, whose casts are compared with the CPU's.

use fp8flow_cuda::cast::{self, Counters, Element, Face, Granularity, Input, Layout, Scale, Target};
use fp8flow_cuda::{Card, Memory};
use fp8flow_kernels::cast::{
    CastStats, Quantized, amax_for, amax_ignoring_nan, cast_blocks, cast_cols, cast_rows, cast_tensor,
    cast_tensor_with_amax,
};
use fp8flow_kernels::scale::ScaleRule;
use fp8flow_kernels::{Cpu, Fp8, Isa, Matrix, Serial, grid};

use super::values::{Host, Values};

pub(crate) const FORMATS: [Fp8; 2] = [Fp8::E4m3, Fp8::E5m2];

/// The scale of a cast that is given one: some elements saturate, others vanish.
const GIVEN: f32 = 3.7;

/// What memory is filled with before.
const OLD: u8 = 0xaa;

/// A cast to be made on the card and on the CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) format: Fp8,
    pub(crate) granularity: Granularity,
    /// None: the scale is given.
    pub(crate) rule: Option<ScaleRule>,
    pub(crate) rows: bool,
    pub(crate) turned: bool,
}

impl Wanted {
    /// All layouts that go with the granularity.
    pub(crate) fn all(format: Fp8, granularity: Granularity, rule: Option<ScaleRule>) -> Self {
        let [rows, turned] = [Layout::Rows, Layout::Turned].map(|layout| granularity.serves(layout));
        Self { format, granularity, rule, rows, turned }
    }
}

/// Whether saturated and vanished elements are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Counted,
    Uncounted,
}

/// A matrix here and on the card.
pub(crate) struct Checked<'a> {
    card: &'a Card,
    what: String,
    host: Host,
    input: Input,
    _elements: Memory,
}

/// Memory of a cast on the card.
struct Made {
    codes: [Memory; 2],
    factors: [Memory; 2],
    space: Memory,
    amax: Memory,
}

/// What the CPU makes.
struct Expected {
    codes: Vec<u8>,
    /// One for each block of `block`.
    scales: Vec<f32>,
    block: [usize; 2],
    stats: CastStats,
    non_finite: u64,
    amax: Option<f32>,
}

impl<'a> Checked<'a> {
    pub(crate) fn new(card: &'a Card, values: Values, element: Element, rows: usize, cols: usize) -> Self {
        let host = Host::new(values, element, rows, cols);
        let bytes = host.bytes();
        let memory = card.take(bytes.len()).unwrap();
        memory.write(0, &bytes).unwrap();
        let address = if bytes.is_empty() { 16 } else { memory.address() };
        let input = Input { address, element, rows, cols };
        let what = format!("{rows}×{cols} of {values:?} {element:?}");
        Self { card, what, host, input, _elements: memory }
    }

    /// Makes one or two casts of it in one call, and compares all that is written.
    pub(crate) fn cast(&self, wanted: &[Wanted], case: Case) {
        let Input { rows, cols, .. } = self.input;
        let what = format!("{}: {wanted:?}", self.what);
        let before = Counters { saturated: 100, underflowed: 200, non_finite: 300 };
        let counters = self.card.take(Counters::BYTES).unwrap();
        let words = [before.saturated, before.underflowed, before.non_finite];
        counters.write(0, &words.map(u64::to_le_bytes).concat()).unwrap();
        let made: Vec<Made> = wanted.iter().map(|wanted| self.room(*wanted)).collect();
        let targets: Vec<Target> =
            wanted.iter().zip(&made).map(|(wanted, made)| made.target(*wanted)).collect();
        let pair = [targets.first(), targets.get(1)];
        // SAFETY: rooms of the sizes that are asked for.
        #[allow(unsafe_code)]
        unsafe {
            cast::cast(self.card, &self.input, pair, counters.address(), case == Case::Counted).unwrap();
        }
        let mut seen = before;
        for (wanted, made) in wanted.iter().zip(&made) {
            let expected = expected(self.host.matrix(rows, cols), *wanted);
            made.compare(*wanted, &expected, [rows, cols], &what);
            if case == Case::Counted {
                seen.saturated += expected.stats.saturated;
                seen.underflowed += expected.stats.underflowed;
            }
            seen.non_finite += expected.non_finite;
        }
        let mut found = [0; Counters::BYTES];
        counters.read(0, &mut found).unwrap();
        assert_eq!(Counters::from_bytes(found), seen, "{what}");
    }

    /// Compares the absolute maximum.
    pub(crate) fn amax(&self) {
        let Input { rows, cols, .. } = self.input;
        let maximum = self.card.take(4).unwrap();
        maximum.fill(0, 4, OLD).unwrap();
        // SAFETY: room for a float.
        #[allow(unsafe_code)]
        unsafe {
            cast::amax(self.card, &self.input, maximum.address()).unwrap();
        }
        let expected = amax_ignoring_nan(&cpu(), self.host.matrix(rows, cols));
        assert_eq!(floats(&maximum, 0, 1)[0].to_bits(), expected.to_bits(), "{}", self.what);
    }

    fn room(&self, wanted: Wanted) -> Made {
        let Input { rows, cols, .. } = self.input;
        let take = |bytes: usize| {
            let memory = self.card.take(bytes).unwrap();
            memory.fill(0, bytes, OLD).unwrap();
            memory
        };
        // Something, so that there is an address where there are no rows.
        let codes = [(); 2].map(|()| take(cast::codes(rows, cols).max(16)));
        let factors = [Layout::Rows, Layout::Turned]
            .map(|layout| take(4 * wanted.granularity.factors(layout, rows, cols).max(4)));
        let space = take(wanted.granularity.space(rows, cols));
        space.fill(0, space.bytes(), 0).unwrap();
        Made { codes, factors, space, amax: take(4) }
    }
}

impl Made {
    fn target(&self, wanted: Wanted) -> Target {
        let face = |i: usize, there: bool| {
            let face = Face { codes: self.codes[i].address(), factors: self.factors[i].address() };
            there.then_some(face)
        };
        let given = Scale::Given { scale: GIVEN, amax: self.amax.address() };
        let current = |rule| Scale::Current { rule, space: self.space.address() };
        Target {
            format: wanted.format,
            granularity: wanted.granularity,
            scale: wanted.rule.map_or(given, current),
            rows: face(0, wanted.rows),
            turned: face(1, wanted.turned),
        }
    }

    fn compare(&self, wanted: Wanted, expected: &Expected, [rows, cols]: [usize; 2], what: &str) {
        let [_, across] = grid([rows, cols], expected.block);
        let padded = cast::padded(rows);
        for (i, (layout, there)) in
            [(Layout::Rows, wanted.rows), (Layout::Turned, wanted.turned)].into_iter().enumerate()
        {
            let mut codes = vec![0; self.codes[i].bytes()];
            self.codes[i].read(0, &mut codes).unwrap();
            let factors = floats(&self.factors[i], 0, self.factors[i].bytes() / 4);
            if !there || rows == 0 {
                assert!(codes.iter().all(|code| *code == OLD), "{what} {layout:?}: codes were written");
                let old = f32::from_le_bytes([OLD; 4]);
                assert!(
                    factors.iter().all(|factor| *factor == old),
                    "{what} {layout:?}: factors were written"
                );
                continue;
            }
            let codes_at = |row: usize, col: usize| match layout {
                Layout::Rows => codes[row * cols + col],
                Layout::Turned => codes[col * padded + row],
            };
            for row in 0..padded {
                for col in 0..cols {
                    let code = if row < rows { expected.codes[row * cols + col] } else { 0 };
                    assert_eq!(codes_at(row, col), code, "{what} {layout:?}: code ({row}, {col})");
                }
            }
            for row in 0..rows {
                for col in 0..cols {
                    let block = row / expected.block[0] * across + col / expected.block[1];
                    let factor = 1.0 / expected.scales[block];
                    let found = factors[wanted.granularity.factor(layout, [row, col], [rows, cols])];
                    // The NaN of a scale may have any bits; no code depends on them.
                    let same = found.to_bits() == factor.to_bits() || found.is_nan() && factor.is_nan();
                    assert!(same, "{what} {layout:?}: factor of ({row}, {col}) is {found}, not {factor}");
                }
            }
        }
        if let Some(amax) = expected.amax
            && rows > 0
        {
            let found = match wanted.rule {
                None => floats(&self.amax, 0, 1)[0],
                Some(_) => floats(&self.space, 0, 1)[0],
            };
            assert!(found.to_bits() == amax.to_bits() || found.is_nan() && amax.is_nan(), "{what}: {found}");
        }
    }
}

fn cpu() -> Cpu<'static> {
    Cpu::new(Isa::Scalar, &Serial)
}

/// The floats from byte `offset` on.
pub(crate) fn floats(memory: &Memory, offset: usize, n: usize) -> Vec<f32> {
    let mut bytes = vec![0; 4 * n];
    memory.read(offset, &mut bytes).unwrap();
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn expected(x: Matrix<'_>, wanted: Wanted) -> Expected {
    let Wanted { format, granularity, rule, .. } = wanted;
    let [rows, cols] = [x.rows, x.cols];
    let block = match granularity {
        Granularity::Tensor => [rows, cols],
        Granularity::Row => [1, cols],
        Granularity::Col => [rows, 1],
        Granularity::RowBlocks => [1, 128],
        Granularity::ColBlocks => [128, 1],
        Granularity::Squares => [128, 128],
    }
    .map(|side| side.max(1));
    let [down, across] = grid([rows, cols], block);
    let mut codes = vec![0; rows * cols];
    let mut scales = vec![0.0; down * across];
    let mut stats = CastStats::default();
    let (cpu, seen) = (cpu(), Some(&mut stats));
    let mut amax = None;
    let out = Quantized { codes: &mut codes, scales: &mut scales };
    match (granularity, rule) {
        (_, None) => {
            amax = Some(cast_tensor_with_amax(&cpu, x, format, GIVEN, &mut codes, seen));
            scales.fill(GIVEN);
        }
        (Granularity::Tensor, Some(rule)) => {
            amax = Some(amax_for(&cpu, x, rule));
            let scale = rule.scale(amax.unwrap_or_default(), format);
            cast_tensor(&cpu, x, format, scale, &mut codes, seen);
            scales.fill(scale);
        }
        (Granularity::Row, Some(rule)) => cast_rows(&cpu, x, format, rule, out, seen),
        (Granularity::Col, Some(rule)) => cast_cols(&cpu, x, format, rule, out, seen),
        (_, Some(rule)) => cast_blocks(&cpu, x, format, rule, block, out, seen),
    }
    // A NaN is no maximum where a scale is given, or must be finite.
    let nan_counts = matches!(rule, Some(ScaleRule::Linear | ScaleRule::PowerOfTwo));
    let mut non_finite = vec![false; down * across];
    for i in 0..rows * cols {
        let value = x.elements.get(i);
        let part = i / cols / block[0] * across + i % cols / block[1];
        non_finite[part] |= value.is_infinite() || nan_counts && value.is_nan();
    }
    let non_finite = non_finite.into_iter().filter(|counts| *counts).count() as u64;
    Expected { codes, scales, block, stats, non_finite, amax }
}
