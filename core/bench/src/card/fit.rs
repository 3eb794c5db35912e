//! What of a model fits a card: all of it, else with blocks computed again for backward, else fewer blocks.

use fp8flow_model::ModelConfig;
use fp8flow_stages::{LayerPlan, TrainingMemory};
use fp8flow_tensor::Arena;

use super::train::{CardTraining, TOKENS};
use super::{CardBench, Sizes};
use crate::model::Size;
use crate::train::{self, TrainBench};
use crate::{BenchError, Fp8};

/// What of the card's memory nothing is planned in: the code of kernels, and what lies between stretches.
const SPARE: usize = 512 << 20;

/// A run that fits.
pub(super) struct Fitting {
    pub(super) what: TrainBench,
    pub(super) config: ModelConfig,
    pub(super) plan: LayerPlan,
    /// Bytes of the card that it takes.
    pub(super) planned: u64,
}

/// The largest run of `size` as `asked` that fits what is free; in words, that none does.
pub(super) fn fit(
    bench: &CardBench,
    (size, sequence): (Size, usize),
    asked: &CardTraining,
    fp8: Option<&Fp8>,
) -> Result<Result<Fitting, String>, BenchError> {
    let (free, _) = bench.card.memory_info()?;
    let tokens = match bench.sizes {
        Sizes::Usual => TOKENS[0],
        Sizes::Small => TOKENS[1],
    };
    let mut last = None;
    for (blocks, recompute) in candidates(size, asked) {
        let what = TrainBench {
            steps: asked.steps,
            blocks,
            batch: asked.batch.unwrap_or_else(|| (tokens / sequence).max(1)),
            sequence,
            dtype: asked.dtype,
            recompute,
            parts: false,
        };
        let config = size.config(blocks, sequence)?;
        let plan = train::layers(&config, &what, fp8)?;
        let device = &*bench.device;
        let measured = train::decoder(&config, &what, &plan, fp8, None, &mut Arena::measure_of(device))?;
        let memory = TrainingMemory::of(&what.settings(), &measured, device);
        let planned = memory.states + memory.activations + memory.backend + memory.device;
        if planned + SPARE as u64 <= free as u64 {
            return Ok(Ok(Fitting { what, config, plan, planned }));
        }
        last = Some((blocks, planned));
    }
    let (blocks, planned) = last.unwrap_or_default();
    let take = if blocks == 1 { "block takes" } else { "blocks take" };
    Ok(Err(format!(
        "{blocks} {take} {:.1} GB, and {:.1} GB are free",
        planned as f64 / 1e9,
        free as f64 / 1e9
    )))
}

/// Blocks, and whether they are computed again, in the order in which they are tried.
fn candidates(size: Size, asked: &CardTraining) -> Vec<(usize, bool)> {
    let most = asked.blocks.unwrap_or_else(|| size.blocks());
    let ways = asked.recompute.map_or(vec![false, true], |recompute| vec![recompute]);
    let least = if asked.blocks.is_some() { most } else { 1 };
    let fewer = (least..most).rev().map(|blocks| (blocks, asked.recompute.unwrap_or(true)));
    ways.into_iter().map(|recompute| (most, recompute)).chain(fewer).collect()
}

#[cfg(test)]
mod tests {
    use fp8flow_tensor::DType;

    use super::*;

    #[test]
    fn all_blocks_are_tried_before_fewer_and_only_those_that_were_asked_for() {
        let open = CardTraining { steps: 1, blocks: None, batch: None, dtype: DType::Bf16, recompute: None };
        let tried = candidates(Size::Small, &open);
        assert_eq!(tried[..3], [(8, false), (8, true), (7, true)]);
        assert_eq!((tried.len(), tried.last()), (9, Some(&(1, true))));
        let asked = CardTraining { blocks: Some(3), recompute: Some(false), ..open };
        assert_eq!(candidates(Size::Llama8B, &asked), [(3, false)]);
    }
}
