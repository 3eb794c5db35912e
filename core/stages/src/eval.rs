//! `eval`: a model on held-out examples.

use fp8flow_flow::{Field, Outcome, PlanCx, Planned, StageCx, StageError, StageKind};
use fp8flow_model::{Decoder, DecoderOptions, Fp8Layers};
use fp8flow_tensor::Arena;
use fp8flow_train::checkpoint::{RECIPE, RecipeState};
use fp8flow_train::proof::{self, Passes};
use fp8flow_train::{TrainError, check_fit, evaluate, largest_micro_batch, samples};
use serde_json::json;

use crate::data_tokenize::{self, TOKENS};
use crate::failure::OrFail as _;
use crate::layer_plan::LayerPlan;
use crate::layers_filter::{self, LAYERS};
use crate::model::{self, MODEL};
use crate::train::{Watch, evaluation_line};
use crate::{Engine, backend, card_check};

pub(crate) struct Eval(pub(crate) Engine);

/// The name of the kind.
pub(crate) const EVAL: &str = "eval";

/// The result within the stage's folder.
const FILE: &str = "evaluation.json";

impl StageKind for Eval {
    fn name(&self) -> &'static str {
        EVAL
    }

    fn about(&self) -> &'static str {
        "Evaluates a model: loss, perplexity, exact match of the greedy answer, and a few answers to look at."
    }

    fn produces(&self) -> &'static str {
        "evaluation"
    }

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::edge("model", &[MODEL]).about("The model."),
            Field::edge("tokens", &[TOKENS]).about("The examples."),
            Field::edge("layers", &[LAYERS])
                .optional("no layer in FP8")
                .about("Which layers run in FP8, as in training."),
            Field::choice("split", &["held_out", "train"])
                .default("held_out")
                .about("Which examples: those held out, or those trained on."),
            Field::integer("micro", 1..).default(8).about("Sequences of a micro-batch."),
            Field::choice("precision", &["bf16", "f32"]).default("bf16").about("Type of the activations."),
            Field::integer("samples", 0..=100).default(3).about("Examples whose answers are shown."),
        ]
    }

    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        model::check_vocabulary(cx);
        model::check_attention(cx, &self.0);
        layers_filter::check_fit(cx);
        Planned::default()
    }

    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        let params = cx.params();
        let (config, weights) = model::open(cx.input("model")).or_fail()?;
        let (train, held_out) = data_tokenize::open(cx.input("tokens"))?;
        let set = if params.get::<&str>("split") == "train" { train } else { held_out };
        if set.is_empty() {
            return Err(StageError::failed("there are no examples to evaluate")
                .help("Set `held_out` of the tokenization, or `split = \"train\"`."));
        }
        check_fit(&config, &set).or_fail()?;
        if let Some(checked) = card_check::operations(&self.0, &config, model::precision(params))? {
            cx.say(checked.line());
        }
        let device = self.0.device();
        let device = &*device;
        let parameters = weights.load_until(device.cpu().pool, cx.cancel()).or_fail()?;
        let parameters = parameters.moved_to(device).map_err(TrainError::from).or_fail()?;
        drop(weights);
        let plan = match cx.optional_input("layers") {
            Some(layers) => layers_filter::read(&layers.dir, &config)?,
            None => LayerPlan::default(),
        };
        let recipe = backend::recipe(&self.0, cx.section(backend::SECTION), &plan)?;
        let fp8 = recipe.map(|recipe| Fp8Layers { recipe, layers: plan.decided() });
        let decisions = plan.decisions();
        let micro: usize = params.get("micro");
        let options = DecoderOptions {
            dtype: model::precision(params),
            recompute: true,
            tokens: largest_micro_batch(&set, micro).max(1),
        };
        let decoder = |error| TrainError::Decoder(error);
        let mut model =
            Decoder::new(&config, options, fp8, &mut Arena::of(device)).map_err(decoder).or_fail()?;
        take_over_scales(cx, &mut model)?;
        model.weights_changed(device, &parameters).map_err(decoder).or_fail()?;
        let proceed = |done: usize| {
            cx.progress(done as u64, Some(set.len() as u64), "example", "");
            !cx.cancelled()
        };
        let Some(found) = evaluate(device, &mut model, &parameters, &set, micro, proceed).or_fail()? else {
            return Err(StageError::interrupted("stopped as asked"));
        };
        let most = params.get("samples");
        let proceed = || !cx.cancelled();
        let Some(samples) = samples(device, &mut model, &parameters, &set, most, proceed).or_fail()? else {
            return Err(StageError::interrupted("stopped as asked"));
        };
        let passes = Passes { evaluated: model.evaluations(), ..Passes::default() };
        let counters = model.counters().map_err(decoder).or_fail()?;
        proof::check(&decisions, &counters, passes).or_fail()?;
        let path = cx.folder().join(FILE);
        let text = serde_json::to_string_pretty(&json!({ "evaluation": found, "samples": samples }))
            .map_err(StageError::bug)?;
        fp8flow_flow::atomic::write(&path, (text + "\n").as_bytes())
            .map_err(|error| StageError::io(&path, error))?;
        let line = evaluation_line(&found);
        let mut outcome =
            Outcome::new(json!({ "file": FILE, "evaluation": found })).summary(line.clone()).report(line);
        let watch = Watch::new(cx.reporter().clone(), 0, data_tokenize::tokenizer(cx.input("tokens")));
        for line in samples.iter().filter_map(|sample| watch.sample(sample)) {
            outcome = outcome.report(format!("  {line}"));
        }
        Ok(outcome)
    }
}

/// Gives a recipe that keeps state what the training of this model has saved of it: the scales it was trained with.
fn take_over_scales(cx: &StageCx<'_>, model: &mut Decoder) -> Result<(), StageError> {
    let state = model.recipe_state().map_err(TrainError::Decoder).or_fail()?;
    if state.0.is_empty() {
        return Ok(());
    }
    let path = model::folder(cx.input("model")).join(RECIPE);
    if !path.exists() {
        cx.say(format!("fp8: the model comes without {RECIPE}; the recipe begins with fresh scales"));
        return Ok(());
    }
    RecipeState::read(&path).and_then(|state| state.restore(model)).or_fail()
}
