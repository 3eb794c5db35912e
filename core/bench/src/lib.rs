//! How fast GEMMs, casts and training steps are here, each beside what the machine could do at most.
//!
//! A figure by itself says as much about the machine, and about who else uses it, as about the program. So every case
//! is measured between samples of a limit on the same threads: the FMA units at their peak for whatever multiplies,
//! a copy of memory for casts. [`gemm()`], [`cast()`], [`mod@attention`] and [`train()`] give [`Line`]s as they come; what a
//! terminal makes of them is not their business.
//!
//! * [`limits`]: the FMA peak and the bandwidth of a copy, on all threads at once;
//! * [`sample`]: repeats and their median, and the limit as it was around them;
//! * [`fp8`]: a plugin's recipe, and how it casts the operands of its GEMMs;
//! * [`mod@linear`]: whole layers under recipes of several plugins, beside each other;
//! * [`model`]: the models of the training benchmarks, and the FLOPs of a token;
//! * [`mod@card`]: the same on an NVIDIA card;
//! * `parts`: the parts of a training step, each beside its floor.

pub mod attention;
pub mod card;
pub mod cast;
pub mod error;
mod fma;
pub mod fp8;
pub mod gemm;
pub mod limits;
pub mod line;
pub mod linear;
pub mod model;
mod numbers;
mod parts;
mod room;
pub mod sample;
mod together;
pub mod train;

use fp8flow_kernels::Cpu;
use fp8flow_stages::Engine;

use crate::limits::Limit;
use crate::line::{CaseLine, LimitLine};
use crate::sample::measure;

pub use attention::attention;
pub use card::line::{Extent, Heads};
pub use card::{CardBench, Sizes};
pub use cast::cast;
pub use error::BenchError;
pub use fp8::Fp8;
pub use gemm::gemm;
pub use line::Line;
pub use linear::linear;
pub use sample::Repeats;
pub use train::{TrainBench, train};

/// What every benchmark needs to know.
pub struct Bench<'a> {
    /// The device, the threads and the places of plugins.
    pub engine: &'a Engine,
    /// How often a case is repeated.
    pub repeats: Repeats,
}

impl Bench<'_> {
    fn cpu(&self) -> Cpu<'_> {
        self.engine.cpu()
    }

    /// Shows what the machine can do at most.
    fn limit(&self, limit: &mut dyn Limit, show: &mut dyn FnMut(Line)) {
        let Cpu { isa, pool } = self.cpu();
        let (what, rate) = (limit.name(), limit.peak());
        show(Line::Limit(LimitLine { what, threads: pool.threads(), isa: isa.name(), rate }));
    }

    /// Measures `call`, which does so many of `limit`'s units; by the plugin of `fp8`, or by the engine itself.
    fn case(
        &self,
        what: &'static str,
        extent: Extent,
        fp8: Option<&Fp8>,
        units: f64,
        limit: &mut dyn Limit,
        call: impl FnMut() -> Result<(), BenchError>,
    ) -> Result<Line, BenchError> {
        let measured = measure(self.repeats, limit, call)?;
        let (rate, peak_share) = measured.rate(units, limit);
        let Cpu { isa, pool } = self.cpu();
        Ok(Line::Case(CaseLine {
            what,
            extent,
            threads: pool.threads(),
            isa: isa.name(),
            rate,
            backend: fp8.map(Fp8::backend),
            recipe: fp8.map(Fp8::recipe),
            peak_share,
        }))
    }
}
