//! The same bytes in the final checkpoint and the export for any number of threads, any instruction set, and after
//! `kill -9` and signals.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fp8flow_kernels::Isa;

use crate::environment::{RECIPES, under};
use crate::program::{Bench, Ended};

/// What a straight run gives.
fn expected() -> String {
    expected_of(&Bench::new())
}

pub(crate) fn expected_of(bench: &Bench) -> String {
    let ended = bench.run(&[]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    let result = bench.result();
    assert!(result.contains("optimizer.safetensors") && result.contains("model.safetensors"), "{result}");
    result
}

#[test]
fn threads_and_instruction_sets_change_no_byte() {
    let expected = expected();
    println!("{expected}");
    for threads in ["1", "2", "3", "4", "8"] {
        let bench = Bench::new();
        let ended = bench.run(&["--threads", threads]);
        assert_eq!(ended.code, Some(0), "{}", ended.all());
        assert_eq!(bench.result(), expected, "{threads} threads");
    }
    for isa in Isa::ALL {
        if !isa.is_available() {
            println!("skipped: this CPU has no {}", isa.name());
            continue;
        }
        let bench = Bench::new();
        let ended: Ended =
            bench.command(&["run", "workflow.toml"]).env("FP8FLOW_ISA", isa.name()).output().unwrap().into();
        assert_eq!(ended.code, Some(0), "{}", ended.all());
        assert_eq!(bench.result(), expected, "{}", isa.name());
    }
}

/// Processors without AVX, which have to be emulated where there is none.
#[test]
fn a_processor_without_avx_changes_no_byte() {
    let version = Command::new("qemu-x86_64").arg("--version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no qemu-x86_64 (Debian has it in qemu-user)");
        return;
    }
    let expected = expected_of(&Bench::tiny());
    println!("{expected}");
    for cpu in ["Nehalem", "qemu64"] {
        let bench = Bench::tiny();
        let mut command = bench.command_under(&["qemu-x86_64", "-cpu", cpu], &["run", "workflow.toml"]);
        let ended: Ended = command.output().unwrap().into();
        assert_eq!(ended.code, Some(0), "{}", ended.all());
        let record = std::fs::read_to_string(bench.run_folder().join("run.json")).unwrap();
        assert!(record.contains("\"isa\": \"scalar\""), "{record}");
        assert_eq!(bench.result(), expected, "{cpu}");
    }
}

#[test]
fn runs_that_are_killed_and_started_again_end_with_the_same_bytes() {
    // Later and later, so that every stage is hit and the run still comes to its end.
    let kills = kill_until_it_ends(&Bench::new(), &expected(), Duration::from_millis(60));
    assert!(kills > 0);
}

/// Starts the run again and again and kills it after `delay`, twice `delay`, …; it ends as a straight one does.
pub(crate) fn kill_until_it_ends(bench: &Bench, expected: &str, delay: Duration) -> u32 {
    let began = Instant::now();
    let mut kills = 0;
    loop {
        let mut child = bench.start();
        let deadline = Instant::now() + delay * (kills + 1);
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if Instant::now() >= deadline {
                break None;
            }
            sleep(Duration::from_millis(5));
        };
        if let Some(status) = ended {
            assert_eq!(status.code(), Some(0), "after {kills} kills");
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        if bench.is_finished() {
            // The kill came after the last word.
            break;
        }
        assert!(began.elapsed() < Duration::from_mins(5), "no end after {kills} kills");
    }
    println!("killed {kills} times");
    assert_eq!(bench.result(), expected);
    kills
}

#[test]
fn a_run_under_any_recipe_goes_on_after_a_kill_with_the_same_bytes() {
    for recipe in RECIPES {
        println!("{}", recipe.1);
        let expected = expected_of(&under(Bench::new(), recipe));
        assert_eq!(expected.contains("recipe.safetensors"), recipe.1 == "delayed", "{expected}");
        kill_until_it_ends(&under(Bench::new(), recipe), &expected, Duration::from_millis(400));
    }
}

/// Recompute, telemetry and evaluations are not in the arithmetic, whatever the recipe keeps.
#[test]
fn recompute_and_evaluations_change_no_bit_under_any_recipe() {
    // What a checkpoint says about its run differs; what was computed does not.
    let computed = |bench: &Bench| {
        let names = ["model.safetensors", "optimizer.safetensors", "recipe.safetensors"];
        let result = expected_of(bench);
        let lines = result.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    for recipe in RECIPES {
        let plain = computed(&under(Bench::new(), recipe));
        let other = under(Bench::new(), recipe)
            .with("steps = 4\n", "steps = 4\nrecompute = \"block\"\nevaluate_every = 1\n");
        assert_eq!(computed(&other), plain, "{}", recipe.1);
    }
}

#[test]
fn a_signal_finishes_the_step_and_saves_and_the_next_run_goes_on() {
    let expected = expected();
    for signal in ["INT", "TERM", "USR1"] {
        let bench = Bench::new();
        let mut child = bench.start();
        let metrics = loop {
            assert!(child.try_wait().unwrap().is_none(), "ended before the signal");
            if bench.path("runs").exists()
                && let Some(path) = std::fs::read_dir(bench.path("runs"))
                    .unwrap()
                    .map(|entry| entry.unwrap().path().join("train/metrics.jsonl"))
                    .find(|path| path.exists())
                && std::fs::metadata(&path).unwrap().len() > 0
            {
                break path;
            }
            sleep(Duration::from_millis(2));
        };
        assert!(
            Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success()
        );
        let status = child.wait().unwrap();
        let steps = std::fs::read_to_string(&metrics).unwrap().lines().count();
        if status.code() == Some(0) {
            println!("SIG{signal} came after the last step");
        } else {
            assert_eq!(status.code(), Some(75), "SIG{signal}");
            assert!(steps < 4, "{steps} steps");
            let ended = bench.run(&[]);
            assert_eq!(ended.code, Some(0), "{}", ended.all());
        }
        assert_eq!(std::fs::read_to_string(&metrics).unwrap().lines().count(), 4);
        assert_eq!(bench.result(), expected, "SIG{signal}");
    }
}
