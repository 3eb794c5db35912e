//! Every parameter is trained, or the run ends with an error that names it.

use fp8flow_kernels::Serial;
use fp8flow_model::{ParameterKind, ParameterSpec, Parameters, initialise, parameter_specs};
use fp8flow_train::invariants::Untrained;
use fp8flow_train::{TrainConfig, TrainError};

use crate::common::{Log, Setup, model, run, run_with, settings};
use crate::meddling::{Meddle, Meddling};

/// Trains for a step or more on a device that meddles.
fn fail(meddle: Meddle) -> TrainError {
    let folder = tempfile::tempdir().unwrap();
    let device = Meddling::new(meddle, parameter_specs(&model()).len());
    let setup = Setup { device: Some(&device), ..Setup::default() };
    run_with(folder.path(), settings(4), &mut Log::default(), setup).unwrap_err()
}

#[test]
fn a_parameter_that_the_optimizer_leaves_out_is_named_after_the_first_step() {
    for (i, spec) in parameter_specs(&model()).iter().enumerate() {
        let error = fail(Meddle::SkipStep(i));
        let TrainError::Untrained { step: 1, parameters, why: Untrained::NotMoved } = &error else {
            panic!("{error}")
        };
        assert_eq!(parameters, std::slice::from_ref(&spec.name));
        assert!(error.to_string().contains(&format!("step 1: `{}`: did not move", spec.name)), "{error}");
    }
}

#[test]
fn a_parameter_that_is_stepped_twice_is_named() {
    let error = fail(Meddle::StepTwice(5));
    let name = parameter_specs(&model())[5].name.clone();
    let TrainError::Untrained { parameters, why: Untrained::MovedElsewhere, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(parameters, [name]);
}

#[test]
fn a_gradient_that_is_never_added_to_is_named() {
    let error = fail(Meddle::SkipNorms);
    let TrainError::Untrained { step: 1, parameters, why: Untrained::NoGradient } = &error else {
        panic!("{error}")
    };
    assert_eq!(parameters.len(), 5, "{parameters:?}");
    assert!(parameters.contains(&"model.norm.weight".to_owned()));
    assert!(error.to_string().contains("and 1 more: no gradient was written"), "{error}");
}

/// What a run says that starts from these parameters.
fn start_from(specs: &[ParameterSpec]) -> TrainError {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup { parameters: Some(Parameters::zeros(specs)), ..Setup::default() };
    run_with(folder.path(), settings(4), &mut Log::default(), setup).unwrap_err()
}

#[test]
fn every_parameter_is_there_once_and_a_tied_head_is_no_second_one() {
    let specs = parameter_specs(&model());
    let named = |error: TrainError| match error {
        TrainError::Untrained { parameters, why: Untrained::NotOnce, .. } => parameters,
        error => panic!("{error}"),
    };
    assert!(!specs.iter().any(|spec| spec.kind == ParameterKind::Head), "the model of these tests is tied");

    let missing = named(start_from(&specs[..specs.len() - 1]));
    assert_eq!(missing, ["model.norm.weight"]);

    let head = ParameterSpec { name: "lm_head.weight".into(), kind: ParameterKind::Head, ..specs[0].clone() };
    let untied = named(start_from(&[&specs[..], &[head]].concat()));
    assert_eq!(untied, ["lm_head.weight"]);

    let twice = named(start_from(&[&specs[..], &specs[..1]].concat()));
    assert_eq!(twice[0], "model.embed_tokens.weight");

    let mut other = specs.clone();
    other[3].shape = vec![1, 1];
    assert_eq!(named(start_from(&other)), [specs[3].name.clone()]);
}

#[test]
fn a_rate_too_small_to_move_anything_is_no_error_but_said_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = settings(3);
    config.schedule.peak = 1e-12;
    config.optimizer.weight_decay = 0.0;
    let mut log = Log::default();
    let setup = Setup { parameters: Some(far_from_zero()), ..Setup::default() };
    run_with(folder.path(), config, &mut log, setup).unwrap();
    let [warning] = &log.warnings[..] else { panic!("{:?}", log.warnings) };
    assert!(warning.starts_with("not moved in 3 steps: `model.embed_tokens.weight`, "), "{warning}");
    assert!(warning.contains("below the resolution of f32"), "{warning}");
}

#[test]
fn the_first_step_that_could_move_a_parameter_must() {
    // The warmup starts below the resolution and ends above.
    let folder = tempfile::tempdir().unwrap();
    let mut config = settings(6);
    (config.schedule.peak, config.schedule.warmup) = (1e-6, 40);
    config.optimizer.weight_decay = 0.0;
    let setup = Setup { parameters: Some(far_from_zero()), ..Setup::default() };
    let mut log = Log::default();
    run_with(folder.path(), config.clone(), &mut log, setup).unwrap();
    assert_eq!(log.warnings, [""; 0], "in the last steps everything has moved");

    let folder = tempfile::tempdir().unwrap();
    let device = Meddling::new(Meddle::SkipStep(2), parameter_specs(&model()).len());
    let setup = Setup { device: Some(&device), parameters: Some(far_from_zero()), ..Setup::default() };
    let error = run_with(folder.path(), config, &mut Log::default(), setup).unwrap_err();
    let TrainError::Untrained { step, why: Untrained::NotMoved, .. } = error else { panic!("{error}") };
    assert!((2..=6).contains(&step), "step {step}: in the first nothing could move");
}

/// Fresh parameters, each element between a half and one in magnitude, so that the resolution is the same for all.
fn far_from_zero() -> Parameters {
    let mut parameters = initialise(&model(), 3, &Serial);
    for tensor in parameters.tensors_mut() {
        for x in tensor.f32_mut() {
            *x = (0.5 + x.abs().fract() * 0.25).copysign(*x);
        }
    }
    parameters
}

#[test]
fn a_checkpoint_that_is_continued_is_checked_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Log { stop_after: Some(3), ..Log::default() };
    assert!(run(folder.path(), settings(8), &mut log).is_err());
    let device = Meddling::new(Meddle::SkipStep(1), parameter_specs(&model()).len());
    let setup = Setup { device: Some(&device), ..Setup::default() };
    let error = run_with(folder.path(), settings(8), &mut Log::default(), setup).unwrap_err();
    assert!(matches!(error, TrainError::Untrained { step: 4, .. }), "{error}");
}

#[test]
fn a_run_without_clipping_with_decay_and_in_one_sum_passes() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = TrainConfig { accumulation: fp8flow_train::Accumulation::Sequential, ..settings(4) };
    (config.optimizer.clip, config.optimizer.weight_decay) = (0.0, 0.5);
    let mut log = Log::default();
    run(folder.path(), config, &mut log).unwrap();
    assert_eq!(log.warnings, [""; 0]);
}
