//! Runs through a backend that keeps state: the proof, the telemetry, the state.

use std::path::{Path, PathBuf};

use fp8flow_train::invariants::Untrained;
use fp8flow_train::proof::{self, Passes};
use fp8flow_train::telemetry::Casts;
use fp8flow_train::{
    CHECKPOINTS, LayerTelemetry, METRICS, RecipeState, TELEMETRY, TrainConfig, TrainError, Trained,
};

use crate::common::{Log, Setup, run, run_with, settings};
use crate::toy::{Fault, SPOILT, decisions, fp8};

fn go(folder: &Path, config: TrainConfig, log: &mut Log, fault: Fault) -> Result<Trained, TrainError> {
    run_with(folder, config, log, Setup { fp8: Some(fp8(fault)), ..Setup::default() })
}

/// Bytes of every file of a checkpoint.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .map(|path| (PathBuf::from(path.file_name().unwrap()), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn counters_are_held_to_the_passes_with_recompute_and_evaluations() {
    for recompute in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup { fp8: Some(fp8(Fault::None)), recompute, ..Setup::default() };
        let trained = run_with(folder.path(), settings(4), &mut Log::default(), setup).unwrap();
        let Passes { trained: micro_batches, recomputed, evaluated } = trained.passes;
        assert_eq!((micro_batches, recomputed), (12, if recompute { 12 } else { 0 }));
        assert!(evaluated > 6, "before, after 3 and at the end, each two micro-batches and a sample");
        let due = proof::due(&decisions(&fp8(Fault::None)), trained.passes);
        assert_eq!(due[1..], [14 * 12, 14 * 12]);
        let counted = trained.counters.iter().map(|(_, counters)| counters.fprop).sum::<u64>();
        assert_eq!(counted, due[0]);
    }
}

#[test]
fn a_layer_that_counts_nothing_ends_the_run_after_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Log::default();
    let error = go(folder.path(), settings(4), &mut log, Fault::Silent).unwrap_err();
    let message = error.to_string();
    let TrainError::NotFp8 { layers, of: 14 } = error else { panic!("{message}") };
    assert_eq!((layers.len(), layers[0].layer.as_str(), layers[0].counted), (1, SPOILT, [0; 3]));
    assert!(message.starts_with("1 of 14 FP8 layers did not run as planned"), "{message}");
    assert!(message.contains(&format!("layer `{SPOILT}`: planned [")), "{message}");
    let metrics = std::fs::read_to_string(folder.path().join(METRICS)).unwrap();
    assert_eq!(metrics.lines().count(), 1);
    assert_eq!(
        std::fs::read_dir(folder.path().join(CHECKPOINTS)).unwrap().count(),
        0,
        "nothing is kept of it"
    );
}

#[test]
fn an_evaluation_that_did_not_run_in_fp8_is_found_too() {
    let folder = tempfile::tempdir().unwrap();
    let error = go(folder.path(), settings(4), &mut Log::default(), Fault::SilentInEvaluation).unwrap_err();
    assert!(matches!(error, TrainError::NotFp8 { .. }), "{error}");
}

#[test]
fn a_backend_that_writes_no_weight_gradient_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let error = go(folder.path(), settings(4), &mut Log::default(), Fault::NoGradient).unwrap_err();
    let TrainError::Untrained { step: 1, parameters, why: Untrained::NoGradient } = error else {
        panic!("{error}")
    };
    assert_eq!(parameters, [format!("{SPOILT}.weight")]);
}

#[test]
fn an_interrupted_run_goes_on_with_the_recipe_s_state_and_the_same_telemetry() {
    let straight = tempfile::tempdir().unwrap();
    let config = || TrainConfig { telemetry_every: 2, ..settings(8) };
    let expected = go(straight.path(), config(), &mut Log::default(), Fault::None).unwrap();
    let lines = |folder: &Path| std::fs::read_to_string(folder.join(TELEMETRY)).unwrap();
    for stop_after in [1, 3, 4, 5] {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log { stop_after: Some(stop_after), ..Log::default() };
        assert!(go(folder.path(), config(), &mut log, Fault::None).is_err());
        let found = go(folder.path(), config(), &mut Log::default(), Fault::None).unwrap();
        assert!(files(&found.checkpoint) == files(&expected.checkpoint), "after {stop_after}");
        assert_eq!(lines(folder.path()), lines(straight.path()));
        assert_eq!(found.worst, expected.worst);
    }
}

#[test]
fn watched_casts_change_no_bit_and_give_a_line_for_every_layer() {
    let (seldom, often) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = go(seldom.path(), settings(8), &mut Log::default(), Fault::None).unwrap();
    let mut log = Log::default();
    let config = TrainConfig { telemetry_every: 1, ..settings(8) };
    let found = go(often.path(), config, &mut log, Fault::None).unwrap();
    assert!(files(&found.checkpoint) == files(&expected.checkpoint));

    let read = |folder: &Path| -> Vec<LayerTelemetry> {
        let text = std::fs::read_to_string(folder.join(TELEMETRY)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let lines = read(often.path());
    assert_eq!(lines, log.telemetry);
    assert_eq!(lines.len(), 8 * 14);
    let few: Vec<u64> = read(seldom.path()).iter().map(|line| line.step).collect();
    assert_eq!(few, [[1; 14], [8; 14]].concat(), "by default the first step and the last");

    let Casts { elements, amax, saturated, underflowed, scale_age } = lines[3 * 14].gradient.unwrap();
    assert_eq!((lines[3 * 14].step, lines[3 * 14].layer.as_str()), (4, "model.layers.0.self_attn.q_proj"));
    assert!(elements > 0 && amax > 0.0 && scale_age == 1, "{elements} elements up to {amax}");
    assert!((0.0..1.0).contains(&saturated) && (0.0..1.0).contains(&underflowed));
    assert!(lines.iter().all(|line| line.weight.is_some_and(|casts| casts.elements >= 16 * 32)));
    let k_proj = lines.iter().find(|line| line.layer.ends_with("k_proj")).unwrap();
    assert!(k_proj.input.is_none(), "q_proj has cast the input for the group");
}

#[test]
fn a_checkpoint_without_the_recipe_s_state_is_refused_where_the_recipe_has_some() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Log { stop_after: Some(2), ..Log::default() };
    assert!(go(folder.path(), settings(8), &mut log, Fault::Stateless).is_err());
    let error = go(folder.path(), settings(8), &mut Log::default(), Fault::None).unwrap_err().to_string();
    assert!(
        error.contains("step-00000002: it has no recipe.safetensors, but the recipe keeps state"),
        "{error}"
    );
    assert!(error.contains("--fresh"), "{error}");
}

#[test]
fn state_that_the_recipe_does_not_know_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Log { stop_after: Some(2), ..Log::default() };
    assert!(go(folder.path(), settings(8), &mut log, Fault::None).is_err());
    for setup in [Setup { fp8: Some(fp8(Fault::Stateless)), ..Setup::default() }, Setup::default()] {
        let error = run_with(folder.path(), settings(8), &mut Log::default(), setup).unwrap_err().to_string();
        assert!(error.contains("recipe.safetensors: the recipe refuses this state"), "{error}");
    }
}

#[test]
fn a_fresh_run_can_start_from_the_state_of_another() {
    let other = tempfile::tempdir().unwrap();
    let trained = go(other.path(), settings(4), &mut Log::default(), Fault::None).unwrap();
    let state = RecipeState::read(&trained.checkpoint.join("recipe.safetensors")).unwrap();

    let started = |state: Option<RecipeState>| {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup { fp8: Some(fp8(Fault::None)), recipe_state: state, ..Setup::default() };
        run_with(folder.path(), settings(1), &mut Log::default(), setup)
            .map(|trained| trained.metrics[0].loss)
    };
    let (without, with) = (started(None).unwrap(), started(Some(state.clone())).unwrap());
    assert_ne!(without, with, "other scales, other roundings");

    let folder = tempfile::tempdir().unwrap();
    let setup = Setup { recipe_state: Some(state), ..Setup::default() };
    let error = run_with(folder.path(), settings(1), &mut Log::default(), setup).unwrap_err().to_string();
    assert!(error.contains("recipe.safetensors: the recipe refuses this state"), "{error}");
    assert!(RecipeState::read(&trained.checkpoint.join("config.json")).is_err(), "no state");
    assert!(RecipeState::read(Path::new("nowhere.safetensors")).is_err());
}

#[test]
fn a_precision_that_was_not_asked_for_stands_in_every_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { precision: Some("bf16 (fallback)".into()), ..settings(3) };
    run(folder.path(), config, &mut Log::default()).unwrap();
    let metrics = std::fs::read_to_string(folder.path().join(METRICS)).unwrap();
    assert_eq!(metrics.matches("\"precision\":\"bf16 (fallback)\"").count(), 3);
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), settings(3), &mut Log::default()).unwrap();
    assert!(!std::fs::read_to_string(folder.path().join(METRICS)).unwrap().contains("precision"));
}
