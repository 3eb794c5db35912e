//! The parts of a training step: what each takes, beside the least that it could take here.
//!
//! The step is the one that is always measured. Its device and its recipe are wrapped in ones that delegate every call
//! and note how long it took; without that wish there are no wrappers. Operations are called one after the other from the
//! thread that trains, so that their times add up.
//!
//! * [`device`], [`recipe`]: the wrappers;
//! * [`ledger`]: parts, calls and seconds of the step at hand;
//! * [`work`]: the operations and the least traffic of a call, by formula.
//!
//! A part's floor is the larger of two times: its operations at the FMA peak, its traffic at the bandwidth of a copy, both
//! as they were between the steps. Memory-bound parts can be faster: operands may lie in caches, and a copy fetches the
//! lines that it overwrites, which nobody counts and which an update in place does not need.

mod device;
mod ledger;
mod recipe;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;

use fp8flow_kernels::Cpu;
use fp8flow_sdk::Recipe;
use fp8flow_tensor::Device;

use crate::limits::{Copy, Limit};
use crate::line::{Bound, PartLine};
use crate::parts::device::TimedDevice;
use crate::parts::ledger::{Ledger, Part, Tally};
use crate::parts::recipe::TimedRecipe;
use crate::parts::work::Work;
use crate::sample::{beside, median};

/// What the step's parts have taken, step by step.
pub(crate) struct Parts<'a> {
    ledger: Arc<Ledger>,
    copy: Copy<'a>,
    /// 10⁹ bytes a second, after each step.
    bandwidths: Vec<f64>,
    steps: Vec<Step>,
}

/// One step.
struct Step {
    seconds: f64,
    parts: BTreeMap<Part, Tally>,
}

impl<'a> Parts<'a> {
    pub(crate) fn new(cpu: Cpu<'a>) -> Self {
        Self { ledger: Arc::default(), copy: Copy::new(cpu), bandwidths: Vec::new(), steps: Vec::new() }
    }

    /// The limit beside the FMA peak.
    pub(crate) fn copy(&mut self) -> &mut dyn Limit {
        &mut self.copy
    }

    /// Memory that is taken for measuring alone, for as long as this lives.
    pub(crate) fn bytes(&self) -> u64 {
        self.copy.bytes()
    }

    /// `device`, timed.
    pub(crate) fn device<'d>(&self, device: &'d dyn Device) -> TimedDevice<'d> {
        TimedDevice::new(device, Arc::clone(&self.ledger))
    }

    /// `recipe`, timed.
    pub(crate) fn recipe(&self, recipe: Box<dyn Recipe>) -> Box<dyn Recipe> {
        Box::new(TimedRecipe::new(recipe, Arc::clone(&self.ledger)))
    }

    /// A step is done, and took so long; samples the bandwidth beside it.
    pub(crate) fn step(&mut self, seconds: f64) {
        self.steps.push(Step { seconds, parts: self.ledger.take() });
        self.bandwidths.push(self.copy.sample(beside(seconds)).0);
    }

    /// A line for each part that was called in the steps after the first, what is left of them, and the sum; `gflops` is
    /// the FMA peak between the steps.
    pub(crate) fn lines(&self, gflops: f64) -> Vec<PartLine> {
        lines(self.steps.get(1..).unwrap_or_default(), gflops, median(self.bandwidths.clone()))
    }
}

/// Medians over `steps`, whose calls are all the same.
fn lines(steps: &[Step], gflops: f64, gbps: f64) -> Vec<PartLine> {
    let Some(last) = steps.last() else { return Vec::new() };
    let ms = |of: &dyn Fn(&Step) -> f64| median(steps.iter().map(|step| 1e3 * of(step)).collect());
    let mut lines: Vec<PartLine> = last
        .parts
        .iter()
        .map(|(part, tally)| PartLine {
            calls: Some(tally.calls),
            ..line(
                part.name(),
                ms(&|step| step.parts.get(part).map_or(0.0, |tally| tally.seconds)),
                tally.work,
                [gflops, gbps],
            )
        })
        .collect();
    let counted = |step: &Step| step.parts.values().map(|tally| tally.seconds).sum::<f64>();
    lines.push(line("other", ms(&|step| step.seconds - counted(step)), None, [gflops, gbps]));
    let sum = |of: &dyn Fn(&PartLine) -> f64| lines.iter().map(of).sum::<f64>();
    // What a part gains on its floor makes up for no other.
    let floor_ms = sum(&|line| line.floor_ms.map_or(0.0, |floor| floor.min(line.ms)));
    let step_ms = sum(&|line| line.ms);
    let step = PartLine {
        gflop: Some(sum(&|line| line.gflop.unwrap_or_default())),
        gbytes: Some(sum(&|line| line.gbytes.unwrap_or_default())),
        floor_ms: Some(floor_ms),
        of_floor: Some(floor_ms / step_ms),
        ..line("step", step_ms, None, [gflops, gbps])
    };
    lines.push(step);
    for line in &mut lines {
        line.share = line.ms / step_ms;
    }
    lines
}

/// A part without its calls and its share.
fn line(part: &'static str, ms: f64, work: Option<Work>, [gflops, gbps]: [f64; 2]) -> PartLine {
    let work = work.map(|Work { flops, bytes }| [flops as f64 / 1e9, bytes as f64 / 1e9]);
    let floors = work.map(|[gflop, gbytes]| [1e3 * gflop / gflops, 1e3 * gbytes / gbps]);
    let floor_ms = floors.map(|[compute, memory]| compute.max(memory));
    PartLine {
        what: "part",
        part,
        calls: None,
        ms,
        share: 0.0,
        gflop: work.map(|[gflop, _]| gflop),
        gbytes: work.map(|[_, gbytes]| gbytes),
        floor_ms,
        bound: floors.map(|[compute, memory]| if compute > memory { Bound::Compute } else { Bound::Memory }),
        of_floor: floor_ms.map(|floor| floor / ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(seconds: f64, parts: &[(Part, f64, Option<Work>)]) -> Step {
        let tally = |seconds, work| Tally { calls: 2, seconds, work };
        let parts = parts.iter().map(|&(part, seconds, work)| (part, tally(seconds, work)));
        Step { seconds, parts: parts.collect() }
    }

    #[test]
    fn parts_and_the_rest_add_up_to_the_step() {
        let multiplied = Some(Work { flops: 8_000_000_000, bytes: 1_000_000 });
        let moved = Some(Work { flops: 1_000_000, bytes: 2_000_000_000 });
        let steps = [0.0, 0.25, 0.125].map(|more| {
            let linear = (Part::LinearFp8Forward, 0.5 + more, multiplied);
            step(1.25 + 2.0 * more, &[linear, (Part::Adamw, 0.25, moved), (Part::Recipe, 0.125, None)])
        });
        // 8 GFLOP at 32 GFLOP/s are 250 ms, 2 GB at 16 GB/s are 125.
        let lines = lines(&steps, 32.0, 16.0);
        let names: Vec<&str> = lines.iter().map(|line| line.part).collect();
        assert_eq!(names, ["linear_fp8_forward", "adamw", "recipe", "other", "step"]);
        let ms: Vec<f64> = lines.iter().map(|line| line.ms).collect();
        assert_eq!(ms, [625.0, 250.0, 125.0, 500.0, 1500.0]);
        assert_eq!(lines.iter().map(|line| line.share).sum::<f64>(), 2.0, "each part once, and the step");
        let floors: Vec<_> = lines.iter().map(|line| (line.floor_ms, line.bound, line.of_floor)).collect();
        assert_eq!(floors[0], (Some(250.0), Some(Bound::Compute), Some(0.4)));
        assert_eq!(floors[1], (Some(125.0), Some(Bound::Memory), Some(0.5)));
        assert_eq!([floors[2], floors[3]], [(None, None, None); 2]);
        assert_eq!(floors[4], (Some(375.0), None, Some(0.25)));
        assert_eq!((lines[0].calls, lines[3].calls), (Some(2), None));
    }

    #[test]
    fn a_part_that_is_faster_than_its_floor_makes_up_for_no_other() {
        let moved = Some(Work { flops: 0, bytes: 4_000_000_000 });
        let steps = [step(1.0, &[(Part::Residual, 0.125, moved), (Part::Adamw, 0.5, moved)])];
        let lines = lines(&steps, 1.0, 16.0);
        let of_floor: Vec<_> = lines.iter().map(|line| line.of_floor).collect();
        assert_eq!(of_floor, [Some(2.0), Some(0.5), None, Some(0.375)]);
    }

    #[test]
    fn without_a_step_there_is_nothing_to_say() {
        assert!(lines(&[], 1.0, 1.0).is_empty());
    }
}
