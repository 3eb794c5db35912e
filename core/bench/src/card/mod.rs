//! The same benchmarks on an NVIDIA card, beside its data sheet and beside what it was seen to do in this very run.
//!
//! Everything is timed by events in the card's stream, around batches of launches; see `time`. Two ceilings are measured
//! before all else: a product of large bf16 matrices and a large copy. A card's data sheet is known by its name.
//!
//! * [`sheet`]: what NVIDIA says that a card can do;
//! * `head`: the card, its libraries, its ceilings;
//! * [`gemm()`], [`cast()`], [`attention()`], [`train()`]: the benchmarks;
//! * `line`: what they print.

pub mod attention;
pub mod cast;
mod fit;
pub mod gemm;
mod head;
pub mod line;
mod operand;
pub mod sheet;
mod time;
pub mod train;

use std::sync::Arc;

use fp8flow_cuda::Card;
use fp8flow_cuda::gemm::Gemm;
use fp8flow_stages::Engine;
use fp8flow_tensor::Device;

use self::line::{CardCase, CardLeftOut, CardLine, Extent};
use self::sheet::Sheet;
use self::time::time;
use crate::line::{Line, Unit};
use crate::{BenchError, Repeats};

pub use attention::attention;
pub use cast::cast;
pub use gemm::gemm;
pub use train::train;

/// How large the usual cases are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sizes {
    /// As in training.
    #[default]
    Usual,
    /// So small that they say nothing of a card: to see that everything works, on an emulated one too.
    Small,
}

/// What every benchmark on a card needs to know.
pub struct CardBench {
    device: Arc<dyn Device>,
    card: Card,
    gemm: Gemm,
    repeats: Repeats,
    sizes: Sizes,
    sheet: Option<Sheet>,
    ceilings: Ceilings,
}

/// What this card was seen to do in this run.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ceilings {
    /// Operations a second of a product of large bf16 matrices.
    bf16: f64,
    /// Bytes a second, read and written, of a large copy.
    copy: f64,
}

/// What a case does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    /// Operations on FP8 operands.
    Fp8(f64),
    /// Operations on bf16 operands.
    Bf16(f64),
    /// Bytes that have to move.
    Bytes(f64),
}

/// What a case is called.
#[derive(Clone, Copy, Debug)]
struct Name {
    what: &'static str,
    scales: Option<&'static str>,
    extent: Extent,
}

impl CardBench {
    /// On the card of `engine`, whose ceilings are measured first; `None` if it is on the CPU.
    pub fn begin(
        engine: &Engine,
        repeats: Repeats,
        sizes: Sizes,
        show: &mut dyn FnMut(Line),
    ) -> Result<Option<Self>, BenchError> {
        let device = engine.device();
        let Some(card) = device.card().cloned() else { return Ok(None) };
        // Algorithms that are chosen here are nobody else's.
        let gemm = Gemm::keeping(&card, None)?;
        let sheet = Sheet::of(&card.properties().name);
        let ceilings = Ceilings { bf16: f64::NAN, copy: f64::NAN };
        let mut bench = Self { device, card, gemm, repeats, sizes, sheet, ceilings };
        bench.ceilings = head::ceilings(&bench)?;
        show(Line::Card(CardLine::Card(Box::new(head::head(&bench)?))));
        Ok(Some(bench))
    }

    /// Measures `call`, which is told how often it was called and asks the card's stream for the work.
    fn case(
        &self,
        name: Name,
        work: Work,
        call: impl FnMut(usize) -> fp8flow_cuda::Result<()>,
    ) -> Result<CardCase, BenchError> {
        let seconds = time(&self.card, self.repeats, call)?;
        self.device.settle()?;
        Ok(self.named(name, work, seconds))
    }

    fn named(&self, Name { what, scales, extent }: Name, work: Work, seconds: f64) -> CardCase {
        let (units, unit) = match work {
            Work::Fp8(flops) | Work::Bf16(flops) => (flops, Unit::Gflops),
            Work::Bytes(bytes) => (bytes, Unit::Gbps),
        };
        let rate = units / seconds;
        let [sheet_share, ceiling_share] = self.shares(work, rate);
        CardCase {
            what,
            scales,
            extent,
            us: 1e6 * seconds,
            rate: crate::line::Rate(rate / 1e9, unit),
            sheet_share,
            ceiling_share,
            best_algorithm: None,
        }
    }

    /// `rate` as a share of the data sheet's, and of what this card was seen to do.
    fn shares(&self, work: Work, rate: f64) -> [Option<f64>; 2] {
        let Ceilings { bf16, copy } = self.ceilings;
        let (sheet, ceiling) = match work {
            Work::Fp8(_) => (self.sheet.map(Sheet::fp8), bf16),
            Work::Bf16(_) => (self.sheet.map(Sheet::bf16), bf16),
            Work::Bytes(_) => (self.sheet.map(Sheet::bytes), copy),
        };
        [sheet.map(|most| rate / most), ceiling.is_finite().then_some(rate / ceiling)]
    }

    /// That a case was not measured, and why.
    fn left_out(Name { what, scales, extent }: Name, left_out: String) -> Line {
        Line::Card(CardLine::LeftOut(CardLeftOut { what, scales, extent, left_out }))
    }

    /// Why so many bytes do not fit the card, if so.
    fn objection(&self, needed: usize) -> Result<Option<String>, BenchError> {
        let (free, total) = self.card.memory_info()?;
        let gb = |bytes: usize| bytes as f64 / 1e9;
        Ok((needed > free).then(|| {
            format!("this takes {:.1} GB, and {:.1} of {:.1} GB are free", gb(needed), gb(free), gb(total))
        }))
    }
}
