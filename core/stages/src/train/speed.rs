//! How fast a card is predicted to train.

use fp8flow_flow::PlanCx;
use fp8flow_model::ModelConfig;

use super::settings;
use crate::roofline::{Peaks, Work};
use crate::{Engine, card_check, forecast};

/// The prediction for a stage that is being planned, in a line; none without a card whose peaks are known.
pub(super) fn line(
    engine: &Engine,
    cx: &PlanCx<'_>,
    config: &ModelConfig,
    needs: &forecast::Needs,
) -> Option<String> {
    let card = card_check::name(&*engine.device())?;
    let peaks = Peaks::of(&card)?;
    let settings = settings(cx.params());
    let tokens = needs.tokens? as usize;
    let layers = forecast::planned_layers(cx);
    let work = Work {
        config,
        layers: &layers,
        tokens,
        length: tokens / settings.micro.max(1),
        micro_batches: settings.micro_batches(),
        recompute: forecast::options(cx.params(), tokens).recompute,
    };
    Some(work.speed(&peaks).line(&card, tokens as u64, needs.exact))
}
