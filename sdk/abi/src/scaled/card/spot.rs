//! Where casts lie in a region, and how they are made.

#![allow(unsafe_code)]

use fp8flow_cuda::Memory;
use fp8flow_cuda::cast::{self, Element, Face, Granularity as OnCard, Input, Layout, Scale, Target};
use fp8flow_cuda::gemm::{Factors, Format, Operand};

use super::bench::Bench;
use super::notes::{Notes, float};
use super::on_card;
use crate::scaled::cast::{Cast, Source};
use crate::scaled::operand::Role;
use crate::scaled::scales::Scales;
use crate::{Counters, DType, Error, Pass, Result};

/// Every piece of a region starts at a multiple of this.
pub(super) const ALIGN: usize = 256;

/// Bytes of the maximum that a cast with a delayed scale meets.
const AMAX: usize = size_of::<f32>();

/// The cast of a `rows × cols` matrix in one layout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    pub(super) cast: Cast,
    pub(super) layout: Layout,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl Side {
    /// For sizes: one that a card has not is refused when the cast is made.
    fn granularity(self) -> OnCard {
        on_card(self.cast).unwrap_or(OnCard::Tensor)
    }

    /// Bytes of codes, of factors, and of the maximum that is met.
    fn pieces(self) -> [usize; 3] {
        let Self { cast, layout, rows, cols } = self;
        let factors = self.granularity().factors(layout, rows, cols) * size_of::<f32>();
        let amax = match cast.source {
            Source::Current(_) => 0,
            Source::Delayed => AMAX,
        };
        [cast::codes(rows, cols), factors, amax]
    }

    /// Bytes of a region that it takes.
    pub(super) fn bytes(self) -> usize {
        self.pieces().map(|bytes| bytes.next_multiple_of(ALIGN)).iter().sum()
    }

    /// Bytes of zeros that the cast raises maxima from.
    fn zeros(self) -> usize {
        match self.cast.source {
            Source::Current(_) => self.granularity().space(self.rows, self.cols).next_multiple_of(ALIGN),
            Source::Delayed => 0,
        }
    }

    /// Lines of codes that a product reads.
    pub(super) fn lines(self) -> usize {
        match self.layout {
            Layout::Rows => self.rows,
            Layout::Turned => self.cols,
        }
    }

    /// Codes of a line, with what pads them.
    fn line(self) -> usize {
        match self.layout {
            Layout::Rows => self.cols,
            Layout::Turned => cast::padded(self.rows),
        }
    }

    /// As a side of a product.
    pub(super) fn operand(self) -> Result<Operand> {
        let factors = match on_card(self.cast)? {
            OnCard::Tensor => Factors::Tensor,
            OnCard::Row | OnCard::Col => Factors::PerRow,
            OnCard::RowBlocks | OnCard::ColBlocks => Factors::Block1x128,
            OnCard::Squares => Factors::Block128x128,
        };
        Ok(Operand::rows(Format::Fp8(self.cast.format), self.line()).times(factors))
    }
}

/// Where a cast lies: addresses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spot {
    pub(super) codes: u64,
    pub(super) factors: Option<u64>,
    amax: u64,
}

impl Spot {
    /// Elements that were not cast.
    pub(super) fn of(elements: u64) -> Self {
        Self { codes: elements, ..Self::default() }
    }

    /// The same codes with other factors.
    pub(super) fn with_factors(self, factors: u64) -> Self {
        Self { factors: Some(factors), ..self }
    }
}

/// Deals out a region on a card from its front.
#[derive(Debug)]
pub(super) struct Cursor {
    name: &'static str,
    next: u64,
    end: u64,
}

impl Cursor {
    /// The region whose address and length `region` has.
    pub(super) fn new(name: &'static str, region: &mut [u8]) -> Self {
        Self::to_read(name, region)
    }

    /// The same of a region that was written before.
    pub(super) fn to_read(name: &'static str, region: &[u8]) -> Self {
        Self::from(name, region.as_ptr().addr() as u64, region.len())
    }

    /// All of `memory`.
    pub(super) fn of(memory: &Memory) -> Self {
        Self::from("the layer's own memory", memory.address(), memory.bytes())
    }

    /// No region.
    pub(super) fn nothing() -> Self {
        Self::from("no region", 0, 0)
    }

    /// `bytes` bytes from `start` on.
    fn from(name: &'static str, start: u64, bytes: usize) -> Self {
        Self { name, next: start, end: start + bytes as u64 }
    }

    /// The address of the next `bytes` bytes.
    pub(super) fn take(&mut self, bytes: usize) -> Result<u64> {
        let (at, left) = (self.next, self.end - self.next);
        let taken = bytes.next_multiple_of(ALIGN) as u64;
        if taken > left {
            let name = self.name;
            return Err(Error::protocol(format!("{name}: {taken} more bytes needed, {left} left"))
                .with_help("lend what `Linear::memory` asks for this number of tokens"));
        }
        self.next += taken;
        Ok(at)
    }

    /// A cast with its place, if there is one.
    pub(super) fn placed(&mut self, side: Option<Side>) -> Result<Option<(Side, Spot)>> {
        side.map(|side| Ok((side, self.spot(side)?))).transpose()
    }

    /// The place of a cast.
    pub(super) fn spot(&mut self, side: Side) -> Result<Spot> {
        let [codes, factors, amax] = side.pieces();
        let (codes, factors) = (self.take(codes)?, self.take(factors)?);
        Ok(Spot { codes, factors: Some(factors), amax: self.take(amax)? })
    }
}

/// The element type of what is cast.
pub(super) fn element(what: &str, dtype: DType) -> Result<Element> {
    match dtype {
        DType::F32 => Ok(Element::F32),
        DType::BF16 => Ok(Element::Bf16),
        other => Err(Error::invalid(format!("{what}: expected bf16 or f32, found {}", other.name()))),
    }
}

/// Makes casts of one role, and tells whoever wants to know of them.
#[derive(Debug)]
pub(super) struct Encoder<'a> {
    pub(super) bench: &'a Bench,
    pub(super) role: Role,
    pub(super) pass: Pass,
    pub(super) telemetry: bool,
    pub(super) scales: Option<&'a mut (dyn Scales + 'static)>,
    pub(super) notes: Option<&'a Notes>,
    pub(super) counters: &'a mut Counters,
}

impl Encoder<'_> {
    fn notes(&self) -> Result<&Notes> {
        self.notes.ok_or_else(|| Error::protocol("a cast before the card was opened"))
    }

    /// Casts `x` for each of `wanted`; where one cast serves both layouts, in one go.
    pub(super) fn encode(&mut self, x: &Input, wanted: [Option<(Side, Spot)>; 2]) -> Result<()> {
        let bytes = wanted.iter().flatten().map(|(side, _)| side.zeros()).sum();
        let zeros = &mut Cursor::from("zeros", self.bench.zeros.take(&self.bench.card, bytes)?, bytes);
        let targets = match wanted {
            [Some((first, a)), Some((second, b))] if first.cast == second.cast => {
                let mut both = self.target(x, first, a, zeros)?;
                both.turned = Some(face(second, b)?);
                [Some(both), None]
            }
            wanted => {
                let [first, second] = wanted;
                let mut target = |side: Option<(Side, Spot)>| {
                    side.map(|(side, spot)| self.target(x, side, spot, zeros)).transpose()
                };
                [target(first)?, target(second)?]
            }
        };
        let role = self.role as usize;
        if self.telemetry {
            let watched = self.notes()?.watched(self.role);
            // SAFETY: the matrix is the engine's, for this call; the note is the layer's own.
            unsafe { cast::amax(&self.bench.card, x, watched)? };
            self.counters.cast[role] += (targets.iter().flatten().count() * x.rows * x.cols) as u64;
        }
        let counters = self.notes()?.counters(self.role);
        let [first, second] = &targets;
        // SAFETY: the matrix is the engine's, for this call; places were dealt out of what it lends, or are the layer's own,
        // each of the size that its docs say.
        unsafe {
            cast::cast(&self.bench.card, x, [first.as_ref(), second.as_ref()], counters, self.telemetry)?;
        }
        Ok(())
    }

    fn target(&mut self, x: &Input, side: Side, spot: Spot, zeros: &mut Cursor) -> Result<Target> {
        let scale = match side.cast.source {
            Source::Current(rule) => Scale::Current { rule, space: zeros.take(side.zeros())? },
            Source::Delayed => Scale::Given { scale: self.delayed(x, spot)?, amax: spot.amax },
        };
        let face = Some(face(side, spot)?);
        let (rows, turned) = match side.layout {
            Layout::Rows => (face, None),
            Layout::Turned => (None, face),
        };
        Ok(Target { format: side.cast.format, granularity: on_card(side.cast)?, scale, rows, turned })
    }

    /// The recipe's scale. Where it depends on the tensor itself, the card is asked for its maximum, and waited for.
    fn delayed(&mut self, x: &Input, spot: Spot) -> Result<f32> {
        let (bench, role, pass) = (self.bench, self.role, self.pass);
        let scales = self.scales.as_mut().ok_or_else(|| Error::protocol("a delayed cast without scales"))?;
        let mut failure = None;
        let scale = scales.scale(role, pass, &mut || {
            // SAFETY: the matrix is the engine's, for this call; the scalar was dealt out for this cast.
            let asked = unsafe { cast::amax(&bench.card, x, spot.amax) };
            let found = asked.map_err(Error::from).and_then(|()| float(&bench.lent(spot.amax, 4), 0));
            found.unwrap_or_else(|error| {
                failure = Some(error);
                0.0
            })
        });
        failure.map_or(Ok(scale), Err)
    }

    /// Tells the recipe what a delayed cast of a training pass has met, once that is known.
    pub(super) fn record(&mut self, (side, spot): (Side, Spot)) -> Result<()> {
        if side.cast.source != Source::Delayed || self.pass != Pass::Train {
            return Ok(());
        }
        // SAFETY: a scalar of the cast's place, which the engine keeps as long as the stream needs it.
        let later = unsafe { self.notes()?.keep(self.role, spot.amax)? };
        match &mut self.scales {
            Some(scales) => scales.record_later(self.role, later),
            None => Err(Error::protocol("a delayed cast without scales")),
        }
    }
}

fn face(side: Side, spot: Spot) -> Result<Face> {
    let factors = spot
        .factors
        .ok_or_else(|| Error::protocol(format!("no place for the factors of {:?}", side.cast)))?;
    Ok(Face { codes: spot.codes, factors })
}
