//! What the machine can do at most, on the threads that the benchmark uses, at the same moment.
//!
//! Other users of a machine take their share of it from second to second, so a limit is not measured once and for all:
//! [`Limit::sample`] is taken between the repeats of a case (see [`crate::sample`]), over as long a time as a repeat takes.
//! A shorter one would find a core free that a longer one has to share.

use std::time::Instant;

use fp8flow_host::machine::{Memory, largest_cache};
use fp8flow_kernels::Cpu;

use crate::fma;
use crate::line::{Rate, Unit};
use crate::together::together;

/// Seconds of a short sample, and how many of them show a peak.
const SHORT: (f64, usize) = (5e-3, 20);
/// Least seconds between two looks at the clock.
const CHUNK: f64 = 20e-6;
/// Bytes that a thread copies between two looks at the clock.
const WINDOW: usize = 1 << 20;
/// Least and most bytes that are copied from.
const FROM: [usize; 2] = [256 << 20, 512 << 20];

/// Something that the machine can do at most.
pub trait Limit {
    /// What it is called in lines.
    fn name(&self) -> &'static str;

    /// What it is counted in.
    fn unit(&self) -> Unit;

    /// How much it is over the next so many seconds.
    fn sample(&mut self, seconds: f64) -> Rate;

    /// The most that was seen in several short samples.
    fn peak(&mut self) -> Rate {
        let best = (0..SHORT.1).map(|_| self.sample(SHORT.0).0).fold(0.0, f64::max);
        Rate(best, self.unit())
    }
}

/// Multiply-adds in f32, in the instruction set that the kernels use.
#[derive(Debug)]
pub struct FmaPeak<'a> {
    cpu: Cpu<'a>,
    steps: usize,
}

impl<'a> FmaPeak<'a> {
    /// On all threads of `cpu`.
    pub fn new(cpu: Cpu<'a>) -> Self {
        let mut steps = 1 << 6;
        let long_enough = |steps| {
            let began = Instant::now();
            fma::run(cpu.isa, steps);
            began.elapsed().as_secs_f64() >= CHUNK
        };
        while !long_enough(steps) {
            steps *= 2;
        }
        Self { cpu, steps }
    }
}

impl Limit for FmaPeak<'_> {
    fn name(&self) -> &'static str {
        "fma_peak"
    }

    fn unit(&self) -> Unit {
        Unit::Gflops
    }

    fn sample(&mut self, seconds: f64) -> Rate {
        let Self { cpu: Cpu { isa, pool }, steps } = *self;
        let rate = together(pool, 0..pool.threads(), seconds, |_| fma::run(isa, steps));
        Rate(rate * (steps * fma::flops(isa)) as f64 / 1e9, self.unit())
    }
}

/// A copy from memory to memory; bytes read and bytes written count.
#[derive(Debug)]
pub struct Copy<'a> {
    cpu: Cpu<'a>,
    /// One a thread.
    parts: Vec<Part>,
}

/// What one thread copies, and where it goes on.
#[derive(Debug)]
struct Part {
    from: Vec<u8>,
    to: Vec<u8>,
    at: usize,
}

impl<'a> Copy<'a> {
    /// On all threads of `cpu`, between buffers that are larger than the caches, if there is memory for them.
    pub fn new(cpu: Cpu<'a>) -> Self {
        let threads = cpu.pool.threads();
        let caches = largest_cache().map_or(0, |bytes| 4 * bytes as usize);
        let room = Memory::look().map_or(usize::MAX, |memory| memory.available as usize / 8);
        let bytes = caches.clamp(FROM[0], FROM[1]).min(room);
        Self { cpu, parts: (0..threads).map(|_| Part::new(bytes / threads)).collect() }
    }

    /// Bytes of its buffers.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| (part.from.len() + part.to.len()) as u64).sum()
    }
}

impl Part {
    fn new(bytes: usize) -> Self {
        let bytes = bytes.max(1).next_multiple_of(WINDOW);
        // Written, so that the pages are there.
        Self { from: vec![1; bytes], to: vec![2; bytes], at: 0 }
    }

    /// Copies the next window: what it touches was last touched a whole buffer ago.
    fn copy(&mut self) {
        let window = self.at..self.at + WINDOW;
        self.at = window.end % self.from.len();
        self.to[window.clone()].copy_from_slice(&self.from[window]);
    }
}

impl Limit for Copy<'_> {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn unit(&self) -> Unit {
        Unit::Gbps
    }

    fn sample(&mut self, seconds: f64) -> Rate {
        let rate = together(self.cpu.pool, self.parts.iter_mut(), seconds, |part| part.copy());
        Rate(rate * (2 * WINDOW) as f64 / 1e9, self.unit())
    }
}

#[cfg(test)]
mod tests {
    use fp8flow_kernels::{Isa, Serial};

    use super::*;

    #[test]
    fn every_instruction_set_of_this_machine_has_a_peak() {
        for isa in Isa::available() {
            let mut peak = FmaPeak::new(Cpu::new(isa, &Serial));
            let Rate(gflops, unit) = peak.sample(1e-3);
            assert!(gflops.is_finite() && gflops > 0.0 && unit == Unit::Gflops, "{isa:?}: {gflops}");
        }
    }

    #[test]
    fn a_copy_goes_through_its_buffers_again_and_again() {
        let mut part = Part::new(2 * WINDOW - 1);
        assert_eq!(part.from.len(), 2 * WINDOW);
        for at in [WINDOW, 0, WINDOW] {
            part.copy();
            assert_eq!(part.at, at);
        }
        assert!(part.to.iter().all(|&byte| byte == 1));
        let Rate(gbps, unit) = Copy { cpu: Cpu::new(Isa::best(), &Serial), parts: vec![part] }.sample(1e-3);
        assert!(gbps.is_finite() && gbps > 0.0 && unit == Unit::Gbps, "{gbps}");
    }
}
