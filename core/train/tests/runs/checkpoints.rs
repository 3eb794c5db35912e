//! Runs of a tiny model: interrupted, continued, damaged, diverging.

use std::path::{Path, PathBuf};

use fp8flow_train::{CHECKPOINTS, EVALUATIONS, METRICS, StepMetrics, TrainConfig, TrainError, Trained};

use crate::common::{Log, rehearsal, run, settings};

/// Name and bytes of every file of a folder.
fn bytes(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().into(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// The metrics, but for the clock.
fn lines(trained: &Trained) -> Vec<StepMetrics> {
    without_clock(&trained.metrics)
}

fn without_clock(metrics: &[StepMetrics]) -> Vec<StepMetrics> {
    metrics.iter().map(|line| StepMetrics { tokens_per_s: 0.0, ..line.clone() }).collect()
}

#[test]
fn a_rehearsal_takes_the_same_steps_and_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let expected = run(folder.path(), settings(4), &mut Log::default()).unwrap();
    for stop_after in [None, Some(2)] {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log { stop_after, ..Log::default() };
        let settings = TrainConfig { checkpoint_every: 0, ..settings(4) };
        let found = rehearsal(folder.path(), settings, &mut log).unwrap();
        let steps = stop_after.unwrap_or(4);
        assert_eq!(found.passes.trained, steps * 3);
        assert_eq!(without_clock(&found.metrics), without_clock(&expected.metrics)[..steps as usize]);
        assert_eq!(std::fs::read_dir(folder.path().join(CHECKPOINTS)).unwrap().count(), 0);
    }
}

#[test]
fn an_interrupted_run_that_goes_on_ends_with_the_same_bytes() {
    let straight = tempfile::tempdir().unwrap();
    let expected = run(straight.path(), settings(8), &mut Log::default()).unwrap();
    assert_eq!(expected.metrics.len(), 8);
    assert!(expected.metrics[7].loss < expected.metrics[0].loss);

    for stop_after in [1, 3, 4] {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log { stop_after: Some(stop_after), ..Log::default() };
        let stopped = run(folder.path(), settings(8), &mut log);
        assert!(matches!(stopped, Err(TrainError::Interrupted { step }) if step == stop_after));

        let mut log = Log::default();
        let found = run(folder.path(), settings(8), &mut log).unwrap();
        assert_eq!((log.resumed, found.steps_here), (Some(stop_after), 8 - stop_after));
        assert_eq!(lines(&found), lines(&expected));
        assert_eq!(found.evaluations, expected.evaluations);
        assert!(bytes(&found.checkpoint) == bytes(&expected.checkpoint), "after {stop_after} steps");
    }
}

#[test]
fn a_checkpoint_is_kept_for_each_of_the_newest_and_nothing_else_remains() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join(CHECKPOINTS).join(".tmp-step-00000001-1")).unwrap();
    run(folder.path(), settings(8), &mut Log::default()).unwrap();
    let names: Vec<_> = bytes_names(&folder.path().join(CHECKPOINTS));
    assert_eq!(names, ["step-00000006", "step-00000008"]);
    let metrics = std::fs::read_to_string(folder.path().join(METRICS)).unwrap();
    assert_eq!(metrics.lines().count(), 8);
    let evaluations = std::fs::read_to_string(folder.path().join(EVALUATIONS)).unwrap();
    assert_eq!(evaluations.lines().count(), 4, "before, after 3 and 6, at the end");
}

fn bytes_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_damaged_checkpoint_is_passed_over_with_a_word_and_the_one_before_taken() {
    let straight = tempfile::tempdir().unwrap();
    let expected = run(straight.path(), settings(8), &mut Log::default()).unwrap();
    for (file, damage) in [("model.safetensors", 100), ("optimizer.safetensors", 0), ("MANIFEST.json", 10)] {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log { stop_after: Some(6), ..Log::default() };
        assert!(run(folder.path(), settings(8), &mut log).is_err());
        let path = folder.path().join(CHECKPOINTS).join("step-00000006").join(file);
        let mut bytes_of_file = std::fs::read(&path).unwrap();
        if damage == 0 {
            bytes_of_file.truncate(1000);
        } else {
            bytes_of_file[damage] ^= 1;
        }
        std::fs::write(&path, bytes_of_file).unwrap();

        let mut log = Log::default();
        let found = run(folder.path(), settings(8), &mut log).unwrap();
        assert_eq!(log.resumed, Some(4), "{file}");
        assert_eq!(log.warnings.len(), 1, "{:?}", log.warnings);
        assert!(log.warnings[0].contains("step-00000006"), "{:?}", log.warnings);
        assert!(bytes(&found.checkpoint) == bytes(&expected.checkpoint), "{file}");
    }
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Log { stop_after: Some(3), ..Log::default() };
    assert!(run(folder.path(), settings(8), &mut log).is_err());
    let other = TrainConfig { identity: "another".into(), ..settings(8) };
    let error = run(folder.path(), other, &mut Log::default()).err().unwrap().to_string();
    assert!(error.contains("step-00000003") && error.contains("other settings"), "{error}");
}

#[test]
fn a_run_that_diverges_stops_and_names_where() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = settings(8);
    config.schedule.peak = 1e36;
    config.optimizer.clip = 0.0;
    let error = run(folder.path(), config, &mut Log::default()).err().unwrap();
    let TrainError::NotFinite { step, place, .. } = &error else { panic!("{error}") };
    assert!((2..8).contains(step), "{error}");
    assert!(place.contains("model."), "{error}");
}

#[test]
fn micro_batches_only_split_the_work() {
    // One sequence a micro-batch or six: the same sums but for rounding.
    let (one, six) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let split = run(one.path(), TrainConfig { micro: 1, ..settings(4) }, &mut Log::default()).unwrap();
    let whole = run(six.path(), TrainConfig { micro: 6, ..settings(4) }, &mut Log::default()).unwrap();
    for (a, b) in split.metrics.iter().zip(&whole.metrics) {
        assert_eq!(a.tokens, b.tokens);
        assert!((a.loss - b.loss).abs() < 2e-3 * b.loss, "{} and {}", a.loss, b.loss);
        assert!(
            (a.grad_norm - b.grad_norm).abs() < 2e-2 * b.grad_norm,
            "{} and {}",
            a.grad_norm,
            b.grad_norm
        );
    }
}
