//! What the keys of a training stage say to the trainer.

use fp8flow_flow::{Amount, Extent, Params, StageError};
use fp8flow_model::{ModelConfig, parameter_count};
use fp8flow_train::telemetry::Shares;
use fp8flow_train::{Accumulation, Decay, Decayed, OptimizerConfig, Schedule, TrainConfig, Warmup};

use crate::model;

/// Held-out examples that every evaluation answers.
const SAMPLES: usize = 3;

/// Up to here f64 counts one by one.
pub(super) const MOST_STEPS: u64 = 1 << 53;

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
    use serde_json::json;

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
