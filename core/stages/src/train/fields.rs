//! The keys of a training stage, and what they say to the trainer.

use fp8flow_flow::{Amount, Extent, Field, Params, PlanCx, StageError, above};
use fp8flow_model::{ModelConfig, parameter_count};
use fp8flow_train::telemetry::Shares;
use fp8flow_train::{Accumulation, Decay, Decayed, OptimizerConfig, Schedule, TrainConfig, Warmup};
use serde_json::json;

use super::Task;
use crate::data_tokenize::TOKENS;
use crate::layers_filter::LAYERS;
use crate::model::{self, MODEL};

/// Held-out examples that every evaluation answers.
const SAMPLES: usize = 3;

/// Up to here f64 counts one by one.
const MOST_STEPS: u64 = 1 << 53;

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

/// The shares of casts above which a run warns.
pub(super) fn limits(params: &Params) -> Shares {
    Shares {
        saturated: params.get("telemetry.warn_saturated"),
        underflowed: params.get("telemetry.warn_underflowed"),
    }
}

/// What the number of steps has to do with the state after each of them: nothing, unless the learning rate is a function of
/// it.
pub(super) fn extent(params: &Params) -> Extent {
    let Some(steps) = params.get::<Option<u64>>("steps") else {
        let why = "another number of `epochs` is another run; written as `steps`, it would go on from this one where the schedule allows";
        return Extent::Bound { key: "epochs", why: why.into() };
    };
    let horizon = params.get::<Option<u64>>("schedule.steps");
    let on_steps = match (params.get("schedule.warmup"), params.get::<&str>("schedule.kind")) {
        _ if horizon.is_some() => return Extent::Open("steps"),
        (Amount::Count(_), "constant") => return Extent::Open("steps"),
        (Amount::Fraction(_), "constant") => "a warmup that is a share of them".to_owned(),
        (_, kind) => format!("the {kind} schedule over them"),
    };
    let why = format!(
        "another number of `steps` is another run, because of {on_steps}; with `schedule.steps = {steps}` it would go on from this one"
    );
    Extent::Bound { key: "steps", why }
}

/// Sets the number of steps, which may depend on the examples, and the schedule over them.
pub(super) fn set_steps(config: &mut TrainConfig, params: &Params, per_epoch: u64) -> Result<(), StageError> {
    let epochs = params.get::<Option<f64>>("epochs").unwrap_or(1.0);
    let in_epochs = || ((epochs * per_epoch as f64).floor() as u64).max(1);
    let steps = params.get::<Option<u64>>("steps").unwrap_or_else(in_epochs);
    if steps > MOST_STEPS {
        let message =
            format!("`epochs`: {epochs:e} passes of {per_epoch} steps are more than can be counted");
        return Err(StageError::failed(message));
    }
    let horizon = params.get::<Option<u64>>("schedule.steps").unwrap_or(steps);
    let warmup = match params.get("schedule.warmup") {
        Amount::Count(warmup) if warmup > horizon => {
            let message =
                format!("`schedule.warmup`: {warmup} steps of warmup are more than the {horizon} steps");
            return Err(
                StageError::failed(message).help("Take a share of the steps, such as 0.1, or more `epochs`.")
            );
        }
        Amount::Count(steps) => Warmup::Steps(steps),
        Amount::Fraction(share) => Warmup::Share(share),
    };
    let decay = Decay::from_name(params.get("schedule.kind")).unwrap_or(Decay::Constant);
    config.steps = steps;
    config.schedule = Schedule::new(params.get("optimizer.lr"), warmup, horizon, decay);
    Ok(())
}

/// The trainer's settings, all but the number of steps.
pub(super) fn settings(params: &Params, seed: u64) -> TrainConfig {
    let micro: usize = params.get("batch.micro");
    let betas: Vec<f64> = params.get("optimizer.betas");
    TrainConfig {
        steps: 0,
        micro,
        per_step: params.get::<Option<usize>>("batch.per_step").unwrap_or(micro),
        shuffle: params.get("shuffle"),
        seed,
        optimizer: OptimizerConfig {
            betas: [betas[0], betas[1]],
            eps: params.get("optimizer.eps"),
            weight_decay: params.get("optimizer.weight_decay"),
            decayed: if params.get::<&str>("optimizer.decay") == "all" {
                Decayed::All
            } else {
                Decayed::Matrices
            },
            clip: params.get("clip"),
        },
        schedule: Schedule { peak: 0.0, warmup: 0, steps: 0, decay: Decay::Constant },
        accumulation: if params.get::<&str>("accumulate") == "sequential" {
            Accumulation::Sequential
        } else {
            Accumulation::Tree
        },
        checkpoint_every: params.get("checkpoint.every_steps"),
        keep: params.get("checkpoint.keep"),
        evaluate_every: params.get("evaluate_every"),
        samples: SAMPLES,
        telemetry_every: params.get("telemetry.every_steps"),
        precision: None,
        identity: String::new(),
    }
}

/// Lines for the plan.
pub(super) fn summary(params: &Params, config: &ModelConfig) -> String {
    let train = settings(params, 0);
    let per_step = train.per_step;
    let length = match (params.get::<Option<u64>>("steps"), params.get::<Option<f64>>("epochs")) {
        (Some(steps), _) => format!("{steps} steps"),
        (None, epochs) => format!("{} epochs", epochs.unwrap_or(1.0)),
    };
    let (parameters, gradients) = (parameter_count(config), train.gradients());
    format!(
        "{length} of {per_step} sequences ({} a micro-batch), lr {:e}, {} activations\n{} parameters: {:.2} GB for masters, moments and {gradients} gradient{}",
        train.micro,
        params.get::<f64>("optimizer.lr"),
        params.get::<&str>("precision"),
        model::count(parameters),
        train.state_bytes(parameters) as f64 / 1e9,
        if gradients == 1 { "" } else { "s" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `keys` of a training stage come to for so many steps an epoch.
    fn steps(keys: &serde_json::Value, per_epoch: u64) -> Result<TrainConfig, StageError> {
        let mut values = json!({
            "batch": { "micro": 1, "per_step": null }, "shuffle": true, "clip": 1.0, "accumulate": "tree",
            "optimizer": { "lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.0, "decay": "all" },
            "schedule": { "kind": "constant", "warmup": 0, "steps": null }, "steps": null, "epochs": null,
            "checkpoint": { "every_steps": 0, "keep": 1 }, "telemetry": { "every_steps": 0 }, "evaluate_every": 0,
        });
        for (key, value) in keys.as_object().expect("a table") {
            values[key] = value.clone();
        }
        let params = Params::new(values, std::path::Path::new("."));
        let mut config = settings(&params, 0);
        set_steps(&mut config, &params, per_epoch).map(|()| config)
    }

    #[test]
    fn the_number_of_steps_is_open_where_no_rate_depends_on_it() {
        let extent = |kind: &str, warmup: serde_json::Value, horizon: Option<u64>, steps: Option<u64>| {
            let schedule = json!({ "kind": kind, "warmup": warmup, "steps": horizon });
            let values = json!({ "steps": steps, "schedule": schedule });
            extent(&Params::new(values, std::path::Path::new(".")))
        };
        assert_eq!(extent("constant", json!(3), None, Some(9)), Extent::Open("steps"));
        assert_eq!(extent("cosine", json!(0.1), Some(20), Some(9)), Extent::Open("steps"));
        for (kind, warmup, words) in [
            (
                "constant",
                json!(0.1),
                "because of a warmup that is a share of them; with `schedule.steps = 9` it",
            ),
            ("cosine", json!(0), "because of the cosine schedule over them; with `schedule.steps = 9` it"),
        ] {
            let Extent::Bound { key: "steps", why } = extent(kind, warmup, None, Some(9)) else {
                panic!("{kind} depends on the steps")
            };
            assert!(why.contains(words), "{why}");
        }
        assert!(matches!(extent("constant", json!(0), None, None), Extent::Bound { key: "epochs", .. }));
    }

    #[test]
    fn a_warmup_longer_than_the_epochs_and_epochs_without_end_are_errors() {
        let schedule = json!({ "kind": "constant", "warmup": 11, "steps": null });
        let keys = json!({ "epochs": 2.0, "schedule": schedule });
        assert_eq!(steps(&keys, 6).expect("12 steps").steps, 12);
        let error = steps(&keys, 5).expect_err("10 steps").to_string();
        assert_eq!(error, "`schedule.warmup`: 11 steps of warmup are more than the 10 steps");
        let error = steps(&json!({ "epochs": 1e15 }), 100).expect_err("without end").to_string();
        assert_eq!(error, "`epochs`: 1e15 passes of 100 steps are more than can be counted");
    }
}
