//! The examples of a training stage: as they were tokenized, or in blocks, and how many steps they make.

use fp8flow_data::{Order, TokenSet};
use fp8flow_flow::{StageCx, StageError};
use fp8flow_model::ModelConfig;
use fp8flow_train::{TrainConfig, TrainError};

use super::Task;
use crate::data_tokenize;
use crate::failure::OrFail as _;

/// What is trained on and what is held out.
pub(super) fn open(
    task: Task,
    cx: &StageCx<'_>,
    config: &ModelConfig,
) -> Result<(TokenSet, TokenSet), StageError> {
    let (examples, held_out) = data_tokenize::open(cx.input("tokens"))?;
    if task == Task::FineTune {
        return Ok((examples, held_out));
    }
    let length = cx.params().get::<Option<usize>>("block").unwrap_or(config.max_positions);
    let examples = blocks(cx, &examples, length, config)?;
    Ok((examples, if held_out.is_empty() { held_out } else { blocks(cx, &held_out, length, config)? }))
}

/// `set` as blocks of `length` tokens, each document with its end token.
fn blocks(
    cx: &StageCx<'_>,
    set: &TokenSet,
    length: usize,
    config: &ModelConfig,
) -> Result<TokenSet, StageError> {
    let known = |end: &u32| (*end as usize) < set.vocabulary();
    let blocks = set.blocks(length, config.eos_token_ids.first().copied().filter(known)).or_fail()?;
    cx.say(format!(
        "{} documents in {} blocks of {length} tokens; the last {} tokens do not fill one",
        set.len(),
        blocks.set.len(),
        blocks.left_out
    ));
    Ok(blocks.set)
}

/// Steps of an epoch; says how many examples are left out of each.
pub(super) fn steps_per_epoch(
    cx: &StageCx<'_>,
    settings: &TrainConfig,
    examples: usize,
) -> Result<u64, StageError> {
    let order = Order::new(examples, settings.per_step, settings.seed, settings.shuffle)
        .map_err(TrainError::from)
        .or_fail()?;
    if order.left_out_per_epoch() > 0 {
        cx.say(format!(
            "{} of {examples} examples are left out of each epoch: they do not fill a step of {}",
            order.left_out_per_epoch(),
            settings.per_step
        ));
    }
    Ok(order.steps_per_epoch())
}
