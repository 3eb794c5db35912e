//! The keys of a training stage, and what none of them can say of itself.

use fp8flow_flow::{Amount, Field, PlanCx, above};
use serde_json::json;

use super::Task;
use super::settings::MOST_STEPS;
use crate::data_tokenize::TOKENS;
use crate::layers_filter::LAYERS;
use crate::model::MODEL;

pub(super) fn fields(task: Task) -> Vec<Field> {
    let mut fields = vec![
        Field::edge("model", &[MODEL]).about("The model to start from."),
        Field::edge("tokens", &[TOKENS]).about("The examples."),
        Field::edge("layers", &[LAYERS])
            .optional("no layer in FP8; only with `plugin = \"none\"`")
            .about("Which layers run in FP8."),
        Field::integer("steps", 1..)
            .optional("as many as `epochs` give")
            .about("Optimizer steps; instead of `epochs`."),
        Field::number("epochs", above(0.0))
            .optional("1, unless `steps` is set")
            .about("Passes over the examples, the last partial step of each left out; instead of `steps`."),
        Field::table(
            "batch",
            vec![
                Field::integer("micro", 1..)
                    .default(1)
                    .about("Sequences of a micro-batch: one forward and backward, without padding."),
                Field::integer("per_step", 1..)
                    .optional("`micro`")
                    .about("Sequences of an optimizer step; a multiple of `micro`."),
            ],
        )
        .about("Sizes of batches, in sequences."),
        Field::choice("precision", &["bf16", "f32"])
            .default("bf16")
            .about("Type of the activations; masters, moments, statistics and the loss are f32 always."),
        Field::bool("shuffle")
            .default(true)
            .about("Whether each epoch has an order of its own, from the seed."),
        Field::number("clip", 0.0..)
            .default(1.0)
            .about("Largest global norm of the gradient; 0 for no limit."),
        Field::table(
            "optimizer",
            vec![
                Field::choice("kind", &["adamw"]).default("adamw").about("AdamW with decoupled decay."),
                Field::number("lr", above(0.0)).default(5e-5).about("Learning rate after the warmup."),
                Field::numbers("betas", 0.0..1.0, 2..=2)
                    .default(json!([0.9, 0.95]))
                    .about("Decays of the first and second moment."),
                Field::number("eps", above(0.0)).default(1e-8).about("Added to the denominator."),
                Field::number("weight_decay", 0.0..).default(0.0).about("Decoupled decay."),
                Field::choice("decay", &["matrices", "all"])
                    .default("matrices")
                    .about("What decays: two-dimensional parameters, or all."),
            ],
        )
        .about("The optimizer."),
        Field::table(
            "schedule",
            vec![
                Field::choice("kind", &["constant", "linear", "cosine"])
                    .default("constant")
                    .about("How the learning rate falls after the warmup."),
                Field::amount("warmup")
                    .default(0)
                    .about("Steps of the warmup: a count, or a share of all steps rounded up."),
                Field::integer("steps", 1..)
                    .optional("the steps of the run")
                    .about("The step at which the decay would reach 0."),
            ],
        )
        .about("The learning rate over the run."),
        Field::choice("recompute", &["none", "block"]).default("none").about(
            "Whether activations inside a block are kept, or computed again for backward: the same bits.",
        ),
        Field::choice("accumulate", &["tree", "sequential"]).default("tree").about(
            "How gradients of micro-batches are added: in the canonical tree, or one by one in less memory.",
        ),
        Field::table(
            "checkpoint",
            vec![
                Field::integer("every_steps", 0..)
                    .default(0)
                    .changes_no_result()
                    .about("Steps between checkpoints; 0: only at the end."),
                Field::integer("keep", 1..).default(2).changes_no_result().about("Newest checkpoints kept."),
            ],
        )
        .about("Saving the state."),
        Field::table(
            "telemetry",
            vec![
                Field::integer("every_steps", 0..).default(0).changes_no_result().about(
                    "Steps between those whose casts to FP8 are watched; the first and the last always are.",
                ),
                Field::number("warn_saturated", 0.0..=1.0)
                    .default(0.01)
                    .changes_no_result()
                    .about("Share of a tensor that may be clipped without a warning."),
                Field::number("warn_underflowed", 0.0..=1.0)
                    .default(0.1)
                    .changes_no_result()
                    .about("Share of a tensor that may become zero without a warning."),
            ],
        )
        .about("Watching what casts to FP8 do to numbers; costs time and changes no bit."),
        Field::existing_path("recipe_state").optional("the recipe's own beginning").about(
            "The `recipe.safetensors` of another run's checkpoint, whose scales a fresh run starts from.",
        ),
        Field::integer("evaluate_every", 0..)
            .default(0)
            .changes_no_result()
            .about("Steps between evaluations of held-out examples; 0: only before and after."),
    ];
    if task == Task::PreTrain {
        fields.push(
            Field::integer("block", 2..)
                .optional("the model's context")
                .about("Tokens of a block that documents are cut into."),
        );
    }
    fields
}

/// Checks what the table cannot say.
pub(super) fn check(cx: &mut PlanCx<'_>) {
    let params = cx.params();
    let (steps, epochs) = (params.get::<Option<u64>>("steps"), params.get::<Option<f64>>("epochs"));
    if steps.is_some() && epochs.is_some() {
        cx.error("epochs", "`steps` and `epochs` are both set").help("Keep one of them.");
    }
    let (micro, per_step): (u64, Option<u64>) = (params.get("batch.micro"), params.get("batch.per_step"));
    if let Some(per_step) = per_step
        && per_step % micro != 0
    {
        cx.error("batch.per_step", format!("{per_step} is not a multiple of `micro`, which is {micro}"))
            .help("Micro-batches of a step are equally many sequences.");
    }
    let all = params.get::<Option<u64>>("schedule.steps").or(steps);
    if let (Amount::Count(warmup), Some(all)) = (params.get("schedule.warmup"), all)
        && warmup > all
    {
        cx.error("schedule.warmup", format!("{warmup} steps of warmup are more than the {all} steps"));
    }
    if let Some(epochs) = epochs.filter(|&epochs| epochs > MOST_STEPS as f64) {
        cx.error("epochs", format!("{epochs:e} passes are more than can be counted"));
    }
    check_numbers(cx);
}

/// Checks that the optimizer's numbers are still numbers where it computes: in f32.
fn check_numbers(cx: &mut PlanCx<'_>) {
    let params = cx.params();
    for key in ["optimizer.lr", "optimizer.eps", "optimizer.weight_decay", "clip"] {
        let x: f64 = params.get(key);
        if !(x as f32).is_finite() || (x > 0.0 && x as f32 == 0.0) {
            cx.error(key, format!("{x:e} is {} in f32, which the optimizer computes in", x as f32));
        }
    }
    let betas: Vec<f64> = params.get("optimizer.betas");
    for (i, beta) in betas.into_iter().enumerate().filter(|&(_, beta)| beta as f32 >= 1.0) {
        let message = format!("{beta} is 1 in f32, which the optimizer computes in: the moment would stay 0");
        cx.error(&format!("optimizer.betas.{i}"), message);
    }
}
