//! The proof that FP8 ran: what every layer counted against what was planned.

use std::fmt;

use fp8flow_sdk::{Counters, Decision, Precision};
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// FP8 GEMMs and casts of all layers, for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fp8Gemms {
    /// Layers that run in FP8.
    pub layers: usize,
    /// `y = x·Wᵀ`: training, recompute and evaluation.
    pub fprop: u64,
    /// `dx = dy·W`.
    pub dgrad: u64,
    /// `dW = dyᵀ·x`.
    pub wgrad: u64,
    /// Casts whose scale came from an infinity or NaN.
    pub non_finite: u64,
    /// Elements whose cast was watched.
    pub cast: u64,
    /// Of these, finite ones clipped to the format's largest number.
    pub saturated: u64,
    /// Of these, non-zero ones that became zero.
    pub underflowed: u64,
}

impl Fp8Gemms {
    /// Adds up the layers' counters.
    pub fn sum(counters: &[(String, Counters)]) -> Self {
        counters.iter().fold(Self::default(), |sum, (_, layer)| Self {
            layers: sum.layers + 1,
            fprop: sum.fprop + layer.fprop,
            dgrad: sum.dgrad + layer.dgrad,
            wgrad: sum.wgrad + layer.wgrad,
            non_finite: sum.non_finite + layer.non_finite.iter().sum::<u64>(),
            cast: sum.cast + layer.cast.iter().sum::<u64>(),
            saturated: sum.saturated + layer.saturated.iter().sum::<u64>(),
            underflowed: sum.underflowed + layer.underflowed.iter().sum::<u64>(),
        })
    }
}

/// Passes of a decoder since its layers were created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passes {
    /// Micro-batches trained on: one forward and one backward each.
    pub trained: u64,
    /// Forwards run again for backward.
    pub recomputed: u64,
    /// Forwards for evaluation.
    pub evaluated: u64,
}

impl Passes {
    /// How often `[fprop, dgrad, wgrad]` of a layer ran.
    fn of_role(self) -> [u64; 3] {
        [self.trained + self.recomputed + self.evaluated, self.trained, self.trained]
    }

    /// FP8 GEMMs that a layer of this decision owes, by role.
    fn due(self, decision: &Decision) -> [u64; 3] {
        let mut due = self.of_role();
        due.iter_mut().zip(decision.fp8_gemms).for_each(|(due, gemms)| *due *= u64::from(gemms));
        if decision.precision == Precision::Fp8 { due } else { [0; 3] }
    }
}

/// FP8 GEMMs that all layers together owe, by role.
pub fn due(decisions: &[(String, Decision)], passes: Passes) -> [u64; 3] {
    decisions.iter().fold([0; 3], |sum, (_, decision)| {
        let due = passes.due(decision);
        [sum[0] + due[0], sum[1] + due[1], sum[2] + due[2]]
    })
}

/// What a layer owed and what it counted, `[fprop, dgrad, wgrad]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerCount {
    /// The layer.
    pub layer: String,
    /// FP8 GEMMs that were due.
    pub planned: [u64; 3],
    /// FP8 GEMMs that the backend counted.
    pub counted: [u64; 3],
}

/// The account of every layer, in the order of `decisions`.
pub fn by_layer(
    decisions: &[(String, Decision)],
    counters: &[(String, Counters)],
    passes: Passes,
) -> Vec<LayerCount> {
    let count = |(layer, decision): &(String, Decision)| {
        let counters = counters.iter().find(|(name, _)| name == layer).map(|(_, counters)| *counters);
        let Counters { fprop, dgrad, wgrad, .. } = counters.unwrap_or_default();
        LayerCount { layer: layer.clone(), planned: passes.due(decision), counted: [fprop, dgrad, wgrad] }
    };
    decisions.iter().map(count).collect()
}

/// A layer that has not run what was planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// The layer.
    pub layer: String,
    /// FP8 GEMMs that were due: fprop, dgrad, wgrad.
    pub planned: [u64; 3],
    /// FP8 GEMMs that the backend counted.
    pub counted: [u64; 3],
    /// GEMMs that the backend says it ran in high precision.
    pub high_precision: u64,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layer, planned, counted, high_precision } = self;
        write!(f, "layer `{layer}`: planned {planned:?}, counted {counted:?}")?;
        if *high_precision > 0 { write!(f, " and {high_precision} in high precision") } else { Ok(()) }
    }
}

/// Fails unless each layer decided as FP8 has run exactly its FP8 GEMMs in `passes`, and no other layer any.
pub fn check(
    decisions: &[(String, Decision)],
    counters: &[(String, Counters)],
    passes: Passes,
) -> Result<(), TrainError> {
    let mut layers = Vec::new();
    let mut hold = |layer: &str, decision: Option<&Decision>, counters: Counters| {
        let Counters { fprop, dgrad, wgrad, high_precision, .. } = counters;
        let (planned, counted) =
            (decision.map_or([0; 3], |decision| passes.due(decision)), [fprop, dgrad, wgrad]);
        let all: u64 = passes.of_role().iter().sum();
        // A backend need not count what it runs in high precision, but what it counts must have been planned.
        if counted != planned || high_precision > all - planned.iter().sum::<u64>() {
            layers.push(Shortfall { layer: layer.to_owned(), planned, counted, high_precision });
        }
    };
    let planned = decisions.iter().filter(|(_, decision)| decision.precision == Precision::Fp8);
    for (layer, decision) in planned.clone() {
        let counted = counters.iter().find(|(name, _)| name == layer).map(|(_, counters)| *counters);
        hold(layer, Some(decision), counted.unwrap_or_default());
    }
    for (layer, counters) in counters {
        if !planned.clone().any(|(name, _)| name == layer) {
            hold(layer, None, *counters);
        }
    }
    let of = planned.count();
    if layers.is_empty() { Ok(()) } else { Err(TrainError::NotFp8 { layers, of }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Five micro-batches with recompute, and three evaluations.
    const PASSES: Passes = Passes { trained: 5, recomputed: 5, evaluated: 3 };

    fn planned(names: &[&str], gemms: [u8; 3]) -> Vec<(String, Decision)> {
        let decision = Decision { precision: Precision::Fp8, reason: String::new(), fp8_gemms: gemms };
        names.iter().map(|name| ((*name).to_owned(), decision.clone())).collect()
    }

    fn counted(fprop: u64, dgrad: u64, wgrad: u64) -> Vec<(String, Counters)> {
        vec![("q_proj".into(), Counters { fprop, dgrad, wgrad, ..Counters::default() })]
    }

    #[test]
    fn every_role_is_held_to_the_exact_number() {
        assert!(check(&planned(&["q_proj"], [1, 1, 1]), &counted(13, 5, 5), PASSES).is_ok());
        assert!(check(&planned(&["q_proj"], [1, 1, 0]), &counted(13, 5, 0), PASSES).is_ok());
        for (gemms, counters) in [
            ([1, 1, 1], counted(12, 5, 5)),
            ([1, 1, 1], counted(14, 5, 5)),
            ([1, 1, 1], counted(13, 0, 5)),
            ([1, 1, 1], counted(13, 5, 4)),
            ([1, 1, 0], counted(13, 5, 5)),
            ([1, 1, 1], Vec::new()),
        ] {
            let error = check(&planned(&["q_proj"], gemms), &counters, PASSES).unwrap_err();
            assert!(error.to_string().contains("layer `q_proj`: planned [13, 5, "), "{error}");
        }
    }

    #[test]
    fn a_gemm_in_high_precision_must_have_been_planned() {
        let mut counters = counted(13, 5, 0);
        counters[0].1.high_precision = 5;
        assert!(check(&planned(&["q_proj"], [1, 1, 0]), &counters, PASSES).is_ok());
        counters[0].1.high_precision = 6;
        let error = check(&planned(&["q_proj"], [1, 1, 0]), &counters, PASSES).unwrap_err().to_string();
        assert!(error.contains("and 6 in high precision"), "{error}");
    }

    #[test]
    fn the_first_few_of_many_failing_layers_are_named() {
        let names: Vec<String> = (0..9).map(|i| format!("layer_{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let error = check(&planned(&names, [1, 1, 1]), &[], PASSES).unwrap_err().to_string();
        assert!(error.starts_with("9 of 9 FP8 layers"), "{error}");
        assert!(error.contains("`layer_0`") && error.contains("`layer_3`"), "{error}");
        assert!(!error.contains("`layer_4`") && error.contains("and 5 more"), "{error}");
    }

    #[test]
    fn a_layer_in_high_precision_owes_nothing_and_may_not_count() {
        let mut decisions = planned(&["q_proj"], [0, 0, 0]);
        decisions[0].1.precision = Precision::High;
        assert!(check(&decisions, &[], PASSES).is_ok());
        assert!(check(&decisions, &counted(13, 5, 5), PASSES).is_err());
    }

    #[test]
    fn the_account_names_every_layer_with_what_it_owed_and_counted() {
        let accounts = by_layer(&planned(&["q_proj", "lm_head"], [1, 1, 0]), &counted(13, 5, 0), PASSES);
        let of = |layer: &str, counted| LayerCount { layer: layer.into(), planned: [13, 5, 0], counted };
        assert_eq!(accounts, [of("q_proj", [13, 5, 0]), of("lm_head", [0; 3])]);
    }

    #[test]
    fn what_is_due_adds_up_over_the_layers() {
        let mut decisions = planned(&["q_proj", "k_proj"], [1, 1, 0]);
        decisions[0].1.fp8_gemms = [1, 1, 1];
        assert_eq!(due(&decisions, PASSES), [26, 10, 5]);
    }
}
