//! The memory of a run in words, and whether it is there, asked before it is taken: a process that runs out of it is
//! killed without a word.

use fp8flow_flow::StageError;
use fp8flow_host::machine::Memory;
use fp8flow_model::DecoderOptions;
use fp8flow_train::TrainConfig;

use crate::TrainingMemory;
use crate::forecast;
use crate::model::gb;

/// One line on what a training stage will take.
pub(super) fn line(needs: &forecast::Needs) -> String {
    let forecast::Needs { memory, tokens, exact, .. } = needs;
    let at_most = if *exact { "" } else { "at most " };
    let tokens =
        tokens.map(|tokens| format!(" for micro-batches of {at_most}{tokens} tokens")).unwrap_or_default();
    format!("memory: {at_most}{}{tokens}: {}", gb(needs.peak), parts(memory))
}

/// One line on what a run takes.
pub(super) fn plan(memory: &TrainingMemory, tokens: usize) -> String {
    format!("memory: {} for micro-batches of {tokens} tokens: {}", gb(memory.peak()), parts(memory))
}

/// Who holds what.
fn parts(memory: &TrainingMemory) -> String {
    let TrainingMemory { states, activations, backend, device, examples, program } = *memory;
    let parts = [
        (states, "masters, moments and gradients"),
        (activations, "activations"),
        (backend, "the backend"),
        (device, "the device"),
        (examples, "examples"),
        (program, "the program"),
    ];
    let parts = parts.into_iter().filter(|(bytes, _)| *bytes > 0);
    parts.map(|(bytes, who)| format!("{who} {}", gb(bytes))).collect::<Vec<_>>().join(", ")
}

/// What a run takes, and how it could be less.
#[derive(Clone, Copy)]
pub(super) struct Needs<'a> {
    memory: &'a TrainingMemory,
    gradients: usize,
    options: DecoderOptions,
    micro: usize,
}

impl<'a> Needs<'a> {
    /// The needs of a run.
    pub(super) fn new(memory: &'a TrainingMemory, train: &TrainConfig, options: DecoderOptions) -> Self {
        Self { memory, gradients: train.gradients(), options, micro: train.micro }
    }

    /// An error if there is less than that, where the system tells.
    pub(super) fn check(&self, there: Option<Memory>) -> Result<(), StageError> {
        let Some(available) = there.map(|memory| memory.available) else { return Ok(()) };
        if self.memory.peak() <= available {
            return Ok(());
        }
        let plural = if self.gradients == 1 { "" } else { "s" };
        let message = format!(
            "not enough memory: this takes {} ({} of masters, moments and {} gradient{plural}, {} to work on \
             micro-batches of {} tokens), and {} are available",
            gb(self.memory.peak()),
            gb(self.memory.states),
            self.gradients,
            gb(self.memory.working()),
            self.options.tokens,
            gb(available),
        );
        Err(StageError::failed(message).help(self.advice(available)))
    }

    /// What would take less.
    fn advice(&self, available: u64) -> String {
        let mut less = Vec::new();
        if self.memory.states <= available || self.gradients > 1 {
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

    const MEMORY: TrainingMemory = TrainingMemory {
        states: 3_000_000_000,
        activations: 1_500_000_000,
        backend: 300_000_000,
        device: 180_000_000,
        examples: 4_000_000,
        program: 16_000_000,
    };

    fn needs(memory: &TrainingMemory, gradients: usize, micro: usize, recompute: bool) -> Needs<'_> {
        let options = DecoderOptions { dtype: DType::Bf16, recompute, tokens: 4096 };
        Needs { memory, gradients, options, micro }
    }

    fn there(available: u64) -> Memory {
        Memory { total: available, available, limit: None }
    }

    #[test]
    fn what_fits_and_what_nobody_knows_goes_on() {
        let needs = needs(&MEMORY, 1, 1, false);
        needs.check(None).expect("unknown");
        needs.check(Some(there(5_000_000_000))).expect("it fits");
    }

    #[test]
    fn what_does_not_fit_is_said_with_both_numbers_and_what_takes_less() {
        let error = needs(&MEMORY, 3, 8, false).check(Some(there(4_999_999_999))).expect_err("too much");
        assert_eq!(
            error.to_string(),
            "not enough memory: this takes 5.00 GB (3.00 GB of masters, moments and 3 gradients, 1.68 GB to work on \
             micro-batches of 4096 tokens), and 5.00 GB are available"
        );
        let advice = |needs: Needs<'_>, available| needs.advice(available);
        let small = TrainingMemory { states: 3, ..MEMORY };
        assert_eq!(
            advice(needs(&small, 3, 8, false), 4),
            "Take less with a smaller `batch.micro`, `recompute = \"block\"`, `accumulate = \"sequential\"`, shorter \
             examples, a smaller model; or use a machine with more memory."
        );
        assert_eq!(
            advice(needs(&small, 1, 1, true), 2),
            "Take less with a smaller model; or use a machine with more memory."
        );
    }

    #[test]
    fn a_line_names_every_part_that_is_there() {
        assert_eq!(
            plan(&MEMORY, 4096),
            "memory: 5.00 GB for micro-batches of 4096 tokens: masters, moments and gradients 3.00 GB, activations \
             1.50 GB, the backend 0.30 GB, the device 0.18 GB, examples 4.0 MB, the program 16.0 MB"
        );
        let memory = TrainingMemory { examples: 0, backend: 0, ..MEMORY };
        let needs = |exact, tokens| forecast::Needs {
            parameters: 0,
            peak: memory.peak(),
            memory,
            gradients: Some(1),
            tokens,
            exact,
        };
        let line = |exact| line(&needs(exact, Some(512)));
        assert!(
            line(true).starts_with("memory: 4.70 GB for micro-batches of 512 tokens: masters"),
            "{}",
            line(true)
        );
        assert!(
            line(false)
                .starts_with("memory: at most 4.70 GB for micro-batches of at most 512 tokens: masters")
        );
        assert!(!line(true).contains("examples") && !line(true).contains("backend"));
    }
}
