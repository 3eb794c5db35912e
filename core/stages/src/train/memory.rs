//! Whether a run's memory is there, asked before it is taken: a process that runs out of it is killed without a word.

use fp8flow_flow::StageError;
use fp8flow_host::machine::Memory;
use fp8flow_model::{DecoderOptions, ModelConfig, parameter_count};
use fp8flow_train::TrainConfig;

use crate::forecast;
use crate::model::gb;

/// What a run takes, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Needs {
    states: u64,
    gradients: usize,
    working: u64,
    options: DecoderOptions,
    micro: usize,
}

impl Needs {
    /// The needs of a run; `measure` says what activations and backend take for so many tokens.
    pub(super) fn new(
        config: &ModelConfig,
        train: &TrainConfig,
        options: DecoderOptions,
        measure: impl Fn(usize) -> Option<u64>,
    ) -> Self {
        Self {
            states: train.state_bytes(parameter_count(config)),
            gradients: train.gradients(),
            // A backend that does not tell will say why when it is used.
            working: forecast::at(options.tokens, measure).unwrap_or(0),
            options,
            micro: train.micro,
        }
    }

    /// An error if there is less than that, where the system tells.
    pub(super) fn check(&self, there: Option<Memory>) -> Result<(), StageError> {
        let Some(available) = there.map(|memory| memory.available) else { return Ok(()) };
        let all = self.states.saturating_add(self.working);
        if all <= available {
            return Ok(());
        }
        let plural = if self.gradients == 1 { "" } else { "s" };
        let message = format!(
            "not enough memory: this takes {} ({} of masters, moments and {} gradient{plural}, {} of activations for \
             micro-batches of {} tokens), and {} are available",
            gb(all),
            gb(self.states),
            self.gradients,
            gb(self.working),
            self.options.tokens,
            gb(available),
        );
        Err(StageError::failed(message).help(self.advice(available)))
    }

    /// What would take less.
    fn advice(&self, available: u64) -> String {
        let mut less = Vec::new();
        if self.states <= available || self.gradients > 1 {
            if self.micro > 1 {
                less.push("a smaller `batch.micro`");
            }
            if !self.options.recompute {
                less.push("`recompute = \"block\"`");
            }
            if self.gradients > 1 {
                less.push("`accumulate = \"sequential\"`");
            }
            less.push("shorter examples");
        }
        less.push("a smaller model");
        format!("Take less with {}; or use a machine with more memory.", less.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use fp8flow_tensor::DType;

    use super::*;

    fn needs(states: u64, gradients: usize, micro: usize, recompute: bool) -> Needs {
        let options = DecoderOptions { dtype: DType::Bf16, recompute, tokens: 4096 };
        Needs { states, gradients, working: 2_000_000_000, options, micro }
    }

    fn there(available: u64) -> Memory {
        Memory { total: available, available, limit: None }
    }

    #[test]
    fn what_fits_and_what_nobody_knows_goes_on() {
        let needs = needs(3_000_000_000, 1, 1, false);
        needs.check(None).expect("unknown");
        needs.check(Some(there(5_000_000_000))).expect("it fits");
    }

    #[test]
    fn what_does_not_fit_is_said_with_both_numbers_and_what_takes_less() {
        let error =
            needs(3_000_000_000, 3, 8, false).check(Some(there(4_999_999_999))).expect_err("too much");
        assert_eq!(
            error.to_string(),
            "not enough memory: this takes 5.0 GB (3.0 GB of masters, moments and 3 gradients, 2.0 GB of activations \
             for micro-batches of 4096 tokens), and 5.0 GB are available"
        );
        let advice = |needs: Needs, available| needs.advice(available);
        assert_eq!(
            advice(needs(3, 3, 8, false), 4),
            "Take less with a smaller `batch.micro`, `recompute = \"block\"`, `accumulate = \"sequential\"`, shorter \
             examples, a smaller model; or use a machine with more memory."
        );
        assert_eq!(
            advice(needs(3, 1, 1, true), 2),
            "Take less with a smaller model; or use a machine with more memory."
        );
    }
}
