//! The memory of a run in words, and whether it is there, asked before it is taken: a process that runs out of it is
//! killed without a word.

use fp8flow_flow::StageError;
use fp8flow_host::machine::Memory;
use fp8flow_model::DecoderOptions;
use fp8flow_train::TrainConfig;

use crate::TrainingMemory;
use crate::card_room::CardRoom;
use crate::forecast;
use crate::model::gb;

/// One line on what a training stage will take.
pub(super) fn line(needs: &forecast::Needs, card: Option<&CardRoom>) -> String {
    let forecast::Needs { memory, tokens, exact, .. } = needs;
    let at_most = if *exact { "" } else { "at most " };
    let tokens =
        tokens.map(|tokens| format!(" for micro-batches of {at_most}{tokens} tokens")).unwrap_or_default();
    format!("memory: {at_most}{}{}{tokens}: {}", gb(needs.peak), place(card), parts(memory))
}

/// One line on what a run takes.
pub(super) fn plan(memory: &TrainingMemory, tokens: usize, card: Option<&CardRoom>) -> String {
    let (peak, place) = (gb(memory.peak()), place(card));
    format!("memory: {peak}{place} for micro-batches of {tokens} tokens: {}", parts(memory))
}

/// ` on NAME (85.0 GB free)`; nothing without a card.
fn place(card: Option<&CardRoom>) -> String {
    card.map(|card| format!(" on {} ({} free)", card.name, gb(card.free))).unwrap_or_default()
}

/// Who holds what.
fn parts(memory: &TrainingMemory) -> String {
    let TrainingMemory { states, activations, backend, device, examples, program, on_card, staged } = *memory;
    let listed = |parts: &[(u64, &str)]| {
        let parts = parts.iter().filter(|(bytes, _)| *bytes > 0);
        parts.map(|(bytes, who)| format!("{who} {}", gb(*bytes))).collect::<Vec<_>>().join(", ")
    };
    let model = [
        (states, "masters, moments and gradients"),
        (activations, "activations"),
        (backend, "the backend"),
        (device, "the device"),
    ];
    let host = [(staged, "weights on their way"), (examples, "examples"), (program, "the program")];
    let of_the_machine = || format!("; and {} of the machine's memory: ", gb(memory.resident()));
    let between = if on_card { of_the_machine() } else { ", ".into() };
    format!("{}{between}{}", listed(&model), listed(&host))
}

/// One line where less is free on the card than a training stage may take; none where nothing is short, or known.
pub(super) fn shortage(
    needs: &forecast::Needs,
    train: &TrainConfig,
    options: DecoderOptions,
    card: Option<&CardRoom>,
) -> Option<String> {
    let card = card.filter(|card| card.free < needs.peak)?;
    let certain = needs.exact || card.free < needs.memory.states;
    let what = if certain { "this does not" } else { "examples as long as they may be would not" };
    let advice = Needs::new(&needs.memory, train, options).advice(card.free, "a card");
    Some(format!("memory: {what} fit on {}. {advice}", card.name))
}

/// What there is to take from, where the system and the card tell.
#[derive(Clone, Debug, Default)]
pub(super) struct There {
    pub(super) host: Option<Memory>,
    pub(super) card: Option<CardRoom>,
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

    /// An error if there is less than that, where that is known.
    pub(super) fn check(&self, there: &There) -> Result<(), StageError> {
        let host = there.host.as_ref().map(|memory| memory.available);
        if !self.memory.on_card {
            return host.map_or(Ok(()), |available| self.fits(available, "", "a machine"));
        }
        if let Some(card) = &there.card {
            self.fits(card.free, &format!(" on {}", card.name), "a card")?;
        }
        let resident = self.memory.resident();
        let short = host.filter(|available| *available < resident);
        short.map_or(Ok(()), |available| {
            let (takes, available) = (gb(resident), gb(available));
            let message = format!(
                "not enough memory: beside the card this takes {takes}, and {available} are available"
            );
            Err(StageError::failed(message).help("Use a machine with more memory, or a smaller model."))
        })
    }

    /// An error if less than the peak is available `on` the device.
    fn fits(&self, available: u64, on: &str, larger: &str) -> Result<(), StageError> {
        if self.memory.peak() <= available {
            return Ok(());
        }
        let plural = if self.gradients == 1 { "" } else { "s" };
        let message = format!(
            "not enough memory{on}: this takes {} ({} of masters, moments and {} gradient{plural}, {} to work on \
             micro-batches of {} tokens), and {} are {}",
            gb(self.memory.peak()),
            gb(self.memory.states),
            self.gradients,
            gb(self.memory.working()),
            self.options.tokens,
            gb(available),
            if on.is_empty() { "available" } else { "free" },
        );
        Err(StageError::failed(message).help(self.advice(available, larger)))
    }

    /// What would take less.
    fn advice(&self, available: u64, larger: &str) -> String {
        let mut less = Vec::new();
        if self.memory.least_states(self.gradients as u64) <= available {
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
        format!("Take less with {}; or use {larger} with more memory.", less.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use fp8flow_flow::Params;
    use fp8flow_tensor::DType;
    use serde_json::json;

    use super::super::settings;
    use super::*;

    const MEMORY: TrainingMemory = TrainingMemory {
        states: 3_000_000_000,
        activations: 1_500_000_000,
        backend: 300_000_000,
        device: 180_000_000,
        examples: 4_000_000,
        program: 16_000_000,
        on_card: false,
        staged: 0,
    };

    const CARD: TrainingMemory = TrainingMemory { on_card: true, staged: 1_000_000_000, ..MEMORY };

    fn needs(memory: &TrainingMemory, gradients: usize, micro: usize, recompute: bool) -> Needs<'_> {
        let options = DecoderOptions { dtype: DType::Bf16, recompute, tokens: 4096 };
        Needs { memory, gradients, options, micro }
    }

    fn there(available: u64) -> There {
        There { host: Some(Memory { total: available, available, limit: None }), card: None }
    }

    fn card(free: u64) -> CardRoom {
        CardRoom { name: "NVIDIA L4".into(), free, total: 24_000_000_000 }
    }

    #[test]
    fn a_cards_memory_and_the_hosts_are_held_to_what_each_must_hold() {
        let needs = needs(&CARD, 1, 1, true);
        let check = |free, available| needs.check(&There { card: Some(card(free)), ..there(available) });
        check(4_980_000_000, 1_020_000_000).expect("both fit");
        let error = check(4_979_999_999, u64::MAX).expect_err("the card is too small");
        let said = format!("{} {}", error, error.help.clone().unwrap_or_default());
        assert!(said.starts_with("not enough memory on NVIDIA L4: this takes 4.98 GB"), "{said}");
        assert!(
            said.contains("4.98 GB are free") && said.ends_with("use a card with more memory."),
            "{said}"
        );
        let error = check(u64::MAX, 1_019_999_999).expect_err("the host is too small").to_string();
        assert_eq!(error, "not enough memory: beside the card this takes 1.02 GB, and 1.02 GB are available");
    }

    #[test]
    fn a_card_that_is_too_small_is_said_with_what_takes_less() {
        let needs = |exact| forecast::Needs {
            parameters: 0,
            peak: CARD.peak(),
            memory: CARD,
            gradients: Some(2),
            tokens: Some(512),
            exact,
        };
        let keys = json!({
            "batch": { "micro": 4, "per_step": 8 }, "shuffle": true, "clip": 1.0, "accumulate": "tree",
            "optimizer": { "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.0, "decay": "all" },
            "checkpoint": { "every_steps": 0, "keep": 1 }, "telemetry": { "every_steps": 0 }, "evaluate_every": 0,
        });
        let train = settings(&Params::new(keys, std::path::Path::new(".")));
        let options = DecoderOptions { dtype: DType::Bf16, recompute: true, tokens: 512 };
        let said = |exact, free| shortage(&needs(exact), &train, options, Some(&card(free)));
        assert_eq!(said(true, 4_980_000_000), None);
        let less = "Take less with a smaller `batch.micro`, `accumulate = \"sequential\"`, shorter examples, a smaller \
                    model; or use a card with more memory.";
        let unsure = format!("memory: examples as long as they may be would not fit on NVIDIA L4. {less}");
        let sure = format!("memory: this does not fit on NVIDIA L4. {less}");
        assert_eq!(said(false, 4_979_999_999), Some(unsure));
        assert_eq!(said(true, 4_979_999_999), Some(sure.clone()));
        // One gradient and what goes with it take 2.4 GB of the 3.
        assert_eq!(said(false, 2_400_000_000), Some(sure));
        let none = "Take less with a smaller model; or use a card with more memory.";
        assert_eq!(said(false, 2_399_999_999).map(|said| said.ends_with(none)), Some(true));
    }

    #[test]
    fn a_line_about_a_card_names_it_and_what_stays_here() {
        assert_eq!(
            plan(&CARD, 512, Some(&card(23_000_000_000))),
            "memory: 4.98 GB on NVIDIA L4 (23.0 GB free) for micro-batches of 512 tokens: masters, moments and gradients \
             3.00 GB, activations 1.50 GB, the backend 0.30 GB, the device 0.18 GB; and 1.02 GB of the machine's memory: weights on \
             their way 1.00 GB, examples 4.0 MB, the program 16.0 MB"
        );
    }

    #[test]
    fn what_fits_and_what_nobody_knows_goes_on() {
        let needs = needs(&MEMORY, 1, 1, false);
        needs.check(&There::default()).expect("unknown");
        needs.check(&there(5_000_000_000)).expect("it fits");
    }

    #[test]
    fn what_does_not_fit_is_said_with_both_numbers_and_what_takes_less() {
        let error = needs(&MEMORY, 3, 8, false).check(&there(4_999_999_999)).expect_err("too much");
        assert_eq!(
            error.to_string(),
            "not enough memory: this takes 5.00 GB (3.00 GB of masters, moments and 3 gradients, 1.68 GB to work on \
             micro-batches of 4096 tokens), and 5.00 GB are available"
        );
        let advice = |needs: Needs<'_>, available| needs.advice(available, "a machine");
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
            plan(&MEMORY, 4096, None),
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
        let line = |exact| line(&needs(exact, Some(512)), None);
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
