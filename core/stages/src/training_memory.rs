//! The memory of a training run at its peak: the sum of what each part says it holds.
//!
//! Nothing is left out that grows with a model or a micro-batch. The peak is in a step: before it there is less (weights
//! that were read are no longer mapped, what was freed has been given back), and checkpoints and evaluations take nothing of
//! their own.
//!
//! On a card, states, activations and what backend and device hold are the card's; beside it the host holds the examples and
//! the program, and the weights on their way.

use fp8flow_data::TokenSet;
use fp8flow_model::{Decoder, parameter_count};
use fp8flow_tensor::Device;
use fp8flow_train::TrainConfig;
use serde::{Deserialize, Serialize};

/// What is resident of the program itself: 10.5 MB of its code and constants, 2 MB of the C library, 1.5 MB of a plugin,
/// and 2 MB of heap and stacks. Measured on Linux with glibc as `Rss` in `/proc/PID/smaps` of the quickstart workflow.
const PROGRAM: u64 = 16_000_000;

/// Bytes of a tokenizer for each of its tokens: names both ways and merges. Measured on one of 128,000 tokens.
const TOKENIZER: u64 = 300;

/// What a training run holds at its peak, in bytes, by who holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingMemory {
    /// Masters, moments and gradients.
    pub states: u64,
    /// Activations, tables, weights in the activations' type, and what is lent to the backend.
    pub activations: u64,
    /// What the backend holds itself: casts of weights.
    pub backend: u64,
    /// What the device works in: a chunk of logits, packed operands, tiles.
    pub device: u64,
    /// The examples, where they are known, and the tokenizer that answers to them are shown with.
    pub examples: u64,
    /// The program itself.
    pub program: u64,
    /// Whether the first four are a card's memory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_card: bool,
    /// Weights that are read into the host's memory before they go to a card.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub staged: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

impl TrainingMemory {
    /// Of a run with `train` of `decoder`, which need not have taken its memory, on `device`.
    pub fn of(train: &TrainConfig, decoder: &Decoder, device: &dyn Device) -> Self {
        let parameters = parameter_count(decoder.config());
        let states = Self {
            activations: decoder.bytes() as u64,
            backend: decoder.backend_bytes() as u64,
            device: device.workspace(&decoder.workload()) as u64,
            ..Self::of_states(train.state_bytes(parameters))
        };
        // What the card's products work in is taken when it is opened. A backend takes as much for those of its own and has
        // no call to say so: the device's figure stands for both.
        if device.card().is_some() { states.moved_to_card(parameters) } else { states }
    }

    /// The same on a card, for a model of so many parameters.
    #[must_use]
    pub(crate) fn moved_to_card(self, parameters: u64) -> Self {
        Self { on_card: true, staged: parameters.saturating_mul(4), ..self }
    }

    /// The program with so many bytes of states: all there is where nothing runs.
    pub(crate) fn of_states(states: u64) -> Self {
        Self { states, program: PROGRAM, ..Self::default() }
    }

    /// The same with the examples of a run.
    #[must_use]
    pub fn with_examples(self, sets: &[&TokenSet]) -> Self {
        let bytes: u64 = sets.iter().map(|set| set.bytes() as u64).sum();
        Self { examples: self.examples.saturating_add(bytes), ..self }
    }

    /// The same with a tokenizer of so many tokens.
    #[must_use]
    pub(crate) fn with_tokenizer(self, tokens: u64) -> Self {
        Self { examples: self.examples.saturating_add(TOKENIZER.saturating_mul(tokens)), ..self }
    }

    /// The peak where the model runs: all of it, or the card's part.
    pub fn peak(&self) -> u64 {
        let model = self.states.saturating_add(self.backend).saturating_add(self.working());
        if self.on_card { model } else { model.saturating_add(self.host()) }
    }

    /// The peak of the process in the host's memory.
    pub fn resident(&self) -> u64 {
        if self.on_card { self.host() } else { self.peak() }
    }

    /// The states of the same run with one gradient, where there are so many: fewer there cannot be.
    pub(crate) fn least_states(&self, gradients: u64) -> u64 {
        self.states.saturating_mul(4) / (3 + gradients)
    }

    /// What is the host's wherever the model runs.
    fn host(&self) -> u64 {
        [self.examples, self.program, self.staged].into_iter().fold(0, u64::saturating_add)
    }

    /// What follows from the length of a micro-batch, and the room it is worked on in.
    pub(crate) fn working(&self) -> u64 {
        self.activations.saturating_add(self.device)
    }
}
