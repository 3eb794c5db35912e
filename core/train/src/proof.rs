//! The proof that FP8 ran: what every layer counted against what was planned.

use fp8flow_sdk::{Counters, Decision, Precision};

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

/// Fails unless each layer decided as FP8 has run all its FP8 GEMMs in `micro_batches` training micro-batches.
///
/// Forward may have run more often, for evaluation and recompute.
pub fn check(
    decisions: &[(String, Decision)],
    counters: &[(String, Counters)],
    micro_batches: u64,
) -> Result<(), TrainError> {
    for (layer, decision) in decisions.iter().filter(|(_, decision)| decision.precision == Precision::Fp8) {
        let [fprop, dgrad, wgrad] = decision.fp8_gemms.map(|gemms| u64::from(gemms) * micro_batches);
        let found = counters.iter().find(|(name, _)| name == layer).map(|(_, counters)| *counters);
        let counted = found.unwrap_or_default();
        if counted.fprop < fprop || counted.dgrad != dgrad || counted.wgrad != wgrad {
            return Err(TrainError::NotFp8 {
                layer: layer.clone(),
                planned: [fprop, dgrad, wgrad],
                counted: [counted.fprop, counted.dgrad, counted.wgrad],
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(gemms: [u8; 3]) -> Vec<(String, Decision)> {
        let decision = Decision { precision: Precision::Fp8, reason: String::new(), fp8_gemms: gemms };
        vec![("q_proj".into(), decision)]
    }

    fn counted(fprop: u64, dgrad: u64, wgrad: u64) -> Vec<(String, Counters)> {
        vec![("q_proj".into(), Counters { fprop, dgrad, wgrad, ..Counters::default() })]
    }

    #[test]
    fn a_layer_that_did_not_run_all_its_gemms_is_named() {
        assert!(check(&planned([1, 1, 1]), &counted(7, 5, 5), 5).is_ok());
        assert!(check(&planned([1, 1, 0]), &counted(5, 5, 0), 5).is_ok());
        for (gemms, counters) in [
            ([1, 1, 1], counted(4, 5, 5)),
            ([1, 1, 1], counted(5, 0, 5)),
            ([1, 1, 1], counted(5, 5, 4)),
            ([1, 1, 0], counted(5, 5, 5)),
            ([1, 1, 1], Vec::new()),
        ] {
            let error = check(&planned(gemms), &counters, 5).unwrap_err();
            assert!(error.to_string().contains("layer `q_proj`"), "{error}");
        }
    }

    #[test]
    fn a_layer_in_high_precision_owes_nothing() {
        let mut decisions = planned([0, 0, 0]);
        decisions[0].1.precision = Precision::High;
        assert!(check(&decisions, &[], 5).is_ok());
    }
}
