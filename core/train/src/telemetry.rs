//! What casts to FP8 do to numbers, layer by layer: the largest, the share that is clipped, the share that becomes zero.
//!
//! Watching costs time and changes no bit. A watched step gives a line for every layer; the report keeps the worst of
//! each tensor.

use std::collections::BTreeMap;
use std::path::Path;

use fp8flow_sdk::Counters;
use serde::{Deserialize, Serialize};

use crate::job::TELEMETRY;
use crate::metrics::Line;
use crate::{TrainError, digests};

/// The casts of one layer in one step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerTelemetry {
    /// The step, counted from 1.
    pub step: u64,
    /// The layer.
    pub layer: String,
    /// Of the input; absent where another layer of the same input has cast it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Casts>,
    /// Of the weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<Casts>,
    /// Of the gradient of the output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient: Option<Casts>,
}

/// The casts of one tensor in one step, all its micro-batches together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Casts {
    /// Elements cast.
    pub elements: u64,
    /// Largest finite magnitude, of the last cast.
    pub amax: f64,
    /// Share of the elements that were finite and clipped to the format's largest number.
    pub saturated: f64,
    /// Share of the elements that were not zero and became zero.
    pub underflowed: f64,
    /// Micro-batches since the scale was made; 0 where every cast makes its own.
    pub scale_age: u64,
}

impl Line for LayerTelemetry {
    fn step(&self) -> u64 {
        self.step
    }
}

impl LayerTelemetry {
    /// Every tensor that was cast, with its name.
    pub fn tensors(&self) -> impl Iterator<Item = (&'static str, Casts)> {
        [("input", self.input), ("weight", self.weight), ("gradient", self.gradient)]
            .into_iter()
            .filter_map(|(name, casts)| Some((name, casts?)))
    }

    /// What `now` has counted more than `before`.
    fn between(step: u64, layer: &str, before: &Counters, now: &Counters) -> Self {
        let casts = |i: usize| {
            let elements = now.cast[i].saturating_sub(before.cast[i]);
            let share = |now: [u64; 3], before: [u64; 3]| {
                now[i].saturating_sub(before[i]) as f64 / elements.max(1) as f64
            };
            (elements > 0).then(|| Casts {
                elements,
                amax: now.amax[i],
                saturated: share(now.saturated, before.saturated),
                underflowed: share(now.underflowed, before.underflowed),
                scale_age: now.scale_age[i],
            })
        };
        Self { step, layer: layer.to_owned(), input: casts(0), weight: casts(1), gradient: casts(2) }
    }
}

/// The lines of the file in a training stage's folder, one by one; none if there is no file. It ends before a line that was
/// cut off.
pub fn read_telemetry(folder: &Path) -> Result<impl Iterator<Item = LayerTelemetry> + use<>, TrainError> {
    digests::lines(&folder.join(TELEMETRY))
}

/// The weight among the tensors of [`Counters`].
const WEIGHT: usize = 1;

/// Turns running totals into lines.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    before: Vec<(String, Counters)>,
}

impl Observer {
    /// A watched step begins, maybe after an evaluation that was watched too: that may have made the casts of the
    /// weights that the step uses, which belong to it, and others, which do not.
    pub(crate) fn begin(&mut self, now: Vec<(String, Counters)>) {
        let before = std::mem::replace(&mut self.before, now);
        for (i, (_, now)) in self.before.iter_mut().enumerate() {
            let before = before.get(i).map_or_else(Counters::default, |(_, before)| *before);
            now.cast[WEIGHT] = before.cast[WEIGHT];
            now.saturated[WEIGHT] = before.saturated[WEIGHT];
            now.underflowed[WEIGHT] = before.underflowed[WEIGHT];
        }
    }

    /// The lines of `step`, from the counters after it. Elements are counted in watched steps only.
    pub(crate) fn lines(&mut self, step: u64, now: Vec<(String, Counters)>) -> Vec<LayerTelemetry> {
        let nothing = Counters::default();
        let lines = now.iter().enumerate().map(|(i, (layer, now))| {
            let before = self.before.get(i).map_or(&nothing, |(_, before)| before);
            LayerTelemetry::between(step, layer, before, now)
        });
        let lines = lines.filter(|line| line.tensors().next().is_some()).collect();
        self.before = now;
        lines
    }
}

/// The largest shares of every tensor over the watched steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Worst(BTreeMap<(String, &'static str), Shares>);

/// The largest shares of one tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// Clipped.
    pub saturated: f64,
    /// Became zero.
    pub underflowed: f64,
}

impl Worst {
    /// Layer, tensor and shares, by the names of the layers.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &'static str, Shares)> {
        self.0.iter().map(|((layer, tensor), shares)| (layer.as_str(), *tensor, *shares))
    }
}

impl Extend<LayerTelemetry> for Worst {
    fn extend<T: IntoIterator<Item = LayerTelemetry>>(&mut self, lines: T) {
        for line in lines {
            for (tensor, casts) in line.tensors() {
                let worst = self.0.entry((line.layer.clone(), tensor)).or_default();
                worst.saturated = worst.saturated.max(casts.saturated);
                worst.underflowed = worst.underflowed.max(casts.underflowed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(cast: [u64; 3], saturated: [u64; 3], underflowed: [u64; 3]) -> Vec<(String, Counters)> {
        let counted = Counters {
            cast,
            saturated,
            underflowed,
            amax: [2.5, 0.5, 1e-3],
            scale_age: [1, 0, 7],
            ..Counters::default()
        };
        vec![("q_proj".into(), counted), ("idle".into(), Counters::default())]
    }

    #[test]
    fn a_line_holds_what_its_own_step_has_counted() {
        let mut observer = Observer::default();
        let first = observer.lines(1, counters([100, 50, 0], [1, 0, 0], [10, 5, 0]));
        assert_eq!(first.len(), 1, "a layer that cast nothing has no line");
        let input = Casts { elements: 100, amax: 2.5, saturated: 0.01, underflowed: 0.1, scale_age: 1 };
        assert_eq!(first[0].input, Some(input));
        assert_eq!(first[0].gradient, None);
        // The evaluation before has cast the weight and inputs of its own.
        observer.begin(counters([200, 70, 0], [1, 0, 0], [10, 5, 0]));
        let second = observer.lines(9, counters([300, 90, 40], [1, 0, 10], [10, 5, 20]));
        assert_eq!(second[0].input, Some(Casts { elements: 100, saturated: 0.0, underflowed: 0.0, ..input }));
        assert_eq!(second[0].weight.unwrap().elements, 40);
        let gradient = Casts { elements: 40, amax: 1e-3, saturated: 0.25, underflowed: 0.5, scale_age: 7 };
        assert_eq!(second[0].gradient, Some(gradient));

        let mut worst = Worst::default();
        worst.extend(first.into_iter().chain(second));
        let found: Vec<_> = worst.tensors().collect();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], ("q_proj", "gradient", Shares { saturated: 0.25, underflowed: 0.5 }));
        assert_eq!(found[1], ("q_proj", "input", Shares { saturated: 0.01, underflowed: 0.1 }));
    }
}
