//! What is measured is named, counted and set beside its limit; how fast it is, is nobody's business here.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::bench::{Bench, Said};

/// What a benchmark printed, which must have gone well.
fn lines(line: &str) -> Vec<Value> {
    let said = Bench::empty().fp8flow(line);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{line}\n{}", said.out);
    said.lines()
}

/// The lines about cases, after those about the machine: `fma_peak`, and `copy` where casts or GEMMs are measured.
fn cases(line: &str, limits: &[&str]) -> Vec<Value> {
    let mut lines = lines(line);
    let cases = lines.split_off(limits.len());
    for (limit, what) in lines.iter().zip(limits) {
        assert_eq!(limit["what"], *what, "{line}");
        expect_positive(limit, &[if *what == "copy" { "gbps" } else { "gflops" }]);
        assert!(limit["threads"].as_u64().is_some_and(|n| n > 0) && limit["isa"].is_string(), "{limit}");
    }
    cases
}

fn expect_positive(line: &Value, keys: &[&str]) {
    for key in keys {
        let number = line[key].as_f64();
        assert!(number.is_some_and(|number| number.is_finite() && number > 0.0), "{key}: {line}");
    }
}

fn names(cases: &[Value]) -> Vec<&str> {
    cases.iter().filter_map(|case| case["what"].as_str()).collect()
}

const BOTH: [&str; 2] = ["fma_peak", "copy"];
const GEMMS: [&str; 5] = ["sgemm", "bf16", "scaled_mm", "scaled_mm_dgrad", "scaled_mm_wgrad"];

#[test]
fn gemms_are_one_object_a_line_with_the_peers_keys() {
    let cases = cases("bench gemm --m 32 --k 48 --n 16 --threads 2 --reps 2 --json", &BOTH);
    assert_eq!(names(&cases), GEMMS);
    for case in &cases {
        assert_eq!([&case["m"], &case["k"], &case["n"], &case["threads"]], [32, 48, 16, 2], "{case}");
        expect_positive(case, &["gflops", "peak_share"]);
        assert!(case["isa"].is_string() && case["gbps"].is_null(), "{case}");
        let by_plugin = case["what"].as_str().is_some_and(|what| what.starts_with("scaled_mm"));
        let (backend, recipe) = (case["backend"].as_str(), case["recipe"].as_str());
        let expected = if by_plugin { (Some("torchao-rowwise"), Some("rowwise")) } else { (None, None) };
        assert_eq!((backend, recipe), expected, "{case}");
    }
}

#[test]
fn attention_has_its_sizes_and_both_passes() {
    let cases = cases(
        "bench attention --batch 2 --sequence 9 --head-dim 16 --threads 2 --reps 1 --json",
        &["fma_peak"],
    );
    assert_eq!(names(&cases), ["attention_forward", "attention_backward"]);
    for case in &cases {
        let sizes = ["batch", "sequence", "heads", "kv_heads", "head_dim"].map(|size| case[size].as_u64());
        assert_eq!(sizes, [2, 9, 8, 4, 16].map(Some), "{case}");
        expect_positive(case, &["gflops", "peak_share"]);
    }
    let said = Bench::empty().fp8flow("bench attention --sequence 16 --reps 1");
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("4×16, 8/4 × 64") && said.out.contains("of FMA peak"), "{}", said.out);
}

#[test]
fn a_gemm_that_is_not_what_the_recipe_does_is_left_out_with_the_reason() {
    let small = "--m 16 --k 16 --n 16 --reps 1 --threads 1 --json";
    for (recipe, measured, why) in [
        ("torchao-rowwise --recipe tensorwise", 5, ""),
        ("torchao-rowwise --recipe rowwise_with_gw_hp", 4, "wgrad runs in high precision"),
        ("transformer-engine-hybrid --recipe delayed", 5, ""),
        ("transformer-engine-hybrid --recipe blockwise", 2, "are not among the primitives"),
        ("none", 2, ""),
    ] {
        let cases = cases(&format!("bench gemm {small} --backend {recipe}"), &BOTH);
        let (there, left_out): (Vec<&Value>, Vec<&Value>) =
            cases.iter().partition(|case| case["left_out"].is_null());
        assert_eq!(there.len(), measured, "{recipe}");
        assert_eq!(cases.len(), if recipe == "none" { 2 } else { 5 }, "{recipe}");
        for case in left_out {
            assert!(case["gflops"].is_null() && case["m"] == 16, "{case}");
            assert!(case["left_out"].as_str().is_some_and(|words| words.contains(why)), "{case}");
        }
    }
}

#[test]
fn casts_are_those_of_the_recipe() {
    let shape = "--m 48 --k 64 --reps 2 --json";
    for (backend, expected) in [
        ("torchao-rowwise", &["cast_row", "cast_col", "cast_row_col"][..]),
        ("torchao-rowwise --recipe tensorwise", &["cast_row", "cast_col", "cast_row_col", "cast_tensor"]),
        (
            "transformer-engine-hybrid --recipe delayed",
            &["cast_row", "cast_col", "cast_row_col", "cast_tensor_delayed"],
        ),
        ("none", &["cast_row_col"]),
    ] {
        let cases = cases(&format!("bench cast {shape} --backend {backend}"), &BOTH);
        assert_eq!(names(&cases), expected, "{backend}");
        for case in &cases {
            assert_eq!([&case["m"], &case["k"]], [48, 64], "{case}");
            expect_positive(case, &["gbps", "peak_share"]);
            assert!(case["n"].is_null() && case["gflops"].is_null(), "{case}");
        }
    }
}

const TRAIN: &str = "bench train --layers 1 --batch 1 --sequence 16 --steps 1";
const PARTS: &str = "bench train --layers 1 --batch 1 --sequence 16 --steps 1 --parts";

#[test]
fn a_training_step_is_one_object_and_leaves_nothing() {
    let bench = Bench::empty();
    std::fs::create_dir(bench.path("tmp")).expect("made");
    for (more, backend, recipe, precision, fp8_layers) in [
        ("", Some("torchao-rowwise"), Some("rowwise"), "bf16", 7),
        ("--backend none --precision f32", None, None, "f32", 0),
        (
            "--backend transformer-engine-hybrid --recipe delayed --recompute block",
            Some("transformer-engine-hybrid"),
            Some("delayed"),
            "bf16",
            7,
        ),
    ] {
        let mut command = bench.command(&format!("{TRAIN} {more} --json"));
        let said = Said::new(command.env("TMPDIR", bench.path("tmp")).output().expect("it starts"));
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{more}\n{}", said.out);
        let lines = said.lines();
        assert_eq!((lines.len(), &lines[0]["what"]), (2, &"fma_peak".into()));
        let train = &lines[1];
        assert_eq!(train["what"], "train");
        assert_eq!((train["backend"].as_str(), train["recipe"].as_str()), (backend, recipe), "{train}");
        assert_eq!(
            (train["precision"].as_str(), train["fp8_layers"].as_u64()),
            (Some(precision), Some(fp8_layers))
        );
        for (key, value) in [("layers", 1), ("batch", 1), ("sequence", 16), ("steps", 1)] {
            assert_eq!(train[key], value, "{train}");
        }
        let keys = [
            "tokens_per_s",
            "step_ms",
            "peak_gb",
            "planned_gb",
            "flops_per_token",
            "peak_share",
            "loss",
            "threads",
        ];
        expect_positive(train, &keys);
        // Fresh weights know nothing: the loss is about ln 4096.
        assert!(train["loss"].as_f64().is_some_and(|loss| (7.0..10.0).contains(&loss)), "{train}");
        assert_eq!(std::fs::read_dir(bench.path("tmp")).expect("a folder").count(), 0, "{more}");
    }
}

/// The multiplications with the weights of a block: q, k, v, o, gate, up, down.
const WEIGHTS: u64 = 2 * 512 * 512 + 2 * 256 * 512 + 3 * 1408 * 512;

#[test]
fn the_parts_of_a_step_add_up_to_it_and_change_nothing() {
    const EVERYWHERE: [&str; 16] = [
        "attention_forward",
        "attention_backward",
        "cross_entropy",
        "rms_norm_forward",
        "rms_norm_backward",
        "rope",
        "swiglu_forward",
        "swiglu_backward",
        "residual",
        "embedding_forward",
        "embedding_backward",
        "convert",
        "gradient_norm",
        "adamw",
        "other",
        "step",
    ];
    for (more, linear, forwards) in [
        ("", "linear_fp8", 1),
        ("--backend transformer-engine-hybrid --recipe delayed --recompute block", "linear_fp8", 2),
        ("--backend none", "linear", 1),
    ] {
        let without = cases(&format!("{TRAIN} {more} --json"), &["fma_peak"]);
        let mut lines = cases(&format!("{TRAIN} {more} --parts --json"), &BOTH);
        let parts = lines.split_off(1);
        assert_eq!(lines[0]["loss"], without[0]["loss"], "the same bits: {more}");

        let [forward, backward] = ["forward", "backward"].map(|way| format!("{linear}_{way}"));
        let mut expected = vec![forward.as_str(), backward.as_str()];
        expected.extend(EVERYWHERE);
        if linear == "linear_fp8" {
            expected.insert(expected.len() - 2, "recipe");
        }
        let found: Vec<&str> = parts.iter().filter_map(|part| part["part"].as_str()).collect();
        assert_eq!(found, expected, "{more}");

        let sum = |key: &str| parts.iter().filter_map(|part| part[key].as_f64()).sum::<f64>();
        let step = &parts[parts.len() - 1];
        for key in ["ms", "share", "gflop", "gbytes"] {
            let (all, whole) = (sum(key), step[key].as_f64().expect("a number"));
            assert!((all - 2.0 * whole).abs() < 2e-4 * all, "{key}: {all} with the step, {whole} of it");
        }
        for part in &parts {
            assert_eq!(part["what"], "part");
            let ms = part["ms"].as_f64();
            assert!(ms.is_some_and(|ms| ms.is_finite() && ms >= 0.0), "{part}");
            let bound = part["bound"].as_str();
            match part["part"].as_str() {
                Some("recipe" | "other") => assert!(part["floor_ms"].is_null() && bound.is_none(), "{part}"),
                Some("step") => expect_positive(part, &["floor_ms", "of_floor"]),
                _ => {
                    expect_positive(part, &["calls", "ms", "gbytes", "floor_ms", "of_floor"]);
                    assert!(matches!(bound, Some("compute" | "memory")), "{part}");
                }
            }
        }
        // Sixteen tokens; two FLOPs for a weight forward, four backward; seven layers.
        for (part, flops, calls) in [(0, 2 * forwards, 7 * forwards), (1, 4, 7)] {
            let gflop = parts[part]["gflop"].as_f64().expect("a number");
            let expected = (flops * 16 * WEIGHTS) as f64 / 1e9;
            assert!((gflop / expected - 1.0).abs() < 1e-4, "{gflop} of {expected}: {}", parts[part]);
            assert_eq!(parts[part]["calls"], calls, "{}", parts[part]);
        }
        // Fifteen tokens have a target; each meets all 4096 rows of the head, three times.
        let head = parts[4]["gflop"].as_f64().expect("a number");
        assert!((head / (6.0 * 15.0 * 4096.0 * 512.0 / 1e9) - 1.0).abs() < 1e-4, "{}", parts[4]);
    }
}

#[test]
fn a_signal_ends_training_after_its_step_and_leaves_nothing() {
    let bench = Bench::empty();
    std::fs::create_dir(bench.path("tmp")).expect("made");
    let mut command = bench.command(&format!("{TRAIN}0000 --json"));
    command.env("TMPDIR", bench.path("tmp")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    // The limit is the first that is known; then comes the folder, and then the steps.
    lines.next().expect("a line").expect("text");
    while std::fs::read_dir(bench.path("tmp")).expect("a folder").count() == 0 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("it starts");
    assert!(sent.success());
    let error: Value = serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON");
    assert_eq!(
        (error["class"].as_str(), child.wait().expect("it ends").code()),
        (Some("interrupted"), Some(75))
    );
    assert_eq!(std::fs::read_dir(bench.path("tmp")).expect("a folder").count(), 0);
}

#[test]
fn people_get_a_line_on_the_machine_and_a_row_a_case_in_100_columns() {
    let bench = Bench::empty();
    for (line, rows) in [
        ("bench gemm --m 16 --k 16 --n 16 --reps 1", &GEMMS[..]),
        (
            "bench gemm --m 16 --k 16 --n 16 --reps 1 --backend transformer-engine-hybrid --recipe blockwise",
            &GEMMS[..],
        ),
        ("bench cast --m 16 --k 16 --reps 1", &["cast_row", "cast_col", "cast_row_col"]),
        (TRAIN, &["train"]),
        (PARTS, &["train", "linear_fp8_forward", "rope", "other", "step"]),
    ] {
        let said = bench.fp8flow(line);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{line}\n{}", said.out);
        let first = said.out.split("\n\n").next().expect("a first line");
        assert!(first.contains("thread") && first.contains("FMA peak "), "{}", said.out);
        assert_eq!(first.contains("copy "), line != TRAIN, "{}", said.out);
        let found = said.out.lines().filter_map(|line| line.split_whitespace().next());
        let found: Vec<&str> = found.filter(|word| rows.contains(word)).collect();
        assert_eq!(found, rows, "{}", said.out);
        let longest = said.out.lines().map(|line| line.chars().count()).max();
        assert!(longest.is_some_and(|columns| columns <= 100), "{}", said.out);
    }
}

#[test]
fn a_wrong_shape_is_exit_2_and_a_backend_that_is_not_there_69() {
    let bench = Bench::empty();
    for line in
        ["bench", "bench gemm --m 8 --n 8", "bench cast --m 8", "bench train --backend none --recipe rowwise"]
    {
        let said = bench.fp8flow(line);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{line}: {}", said.err);
    }
    assert!(bench.fp8flow("bench gemm --m 8 --n 8").err.contains("--k"));
    for (line, why) in [
        ("bench gemm --device gpu", "unknown device `gpu`"),
        ("bench gemm --sizes small", "only there on a card"),
        ("bench train --model 8b", "only there on a card"),
        ("bench train --device cuda --parts", "only there on the CPU"),
        ("bench attention --heads 4 --kv-heads 3", "do not divide 4 heads"),
    ] {
        let said = bench.fp8flow(line);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{line}: {}", said.err);
        assert!(said.err.contains(why), "{line}: {}", said.err);
    }
    // Whether this machine has a card or not, it has no thousand.
    let said = bench.fp8flow("bench attention --device cuda:999");
    assert_eq!((said.code, said.out.as_str()), (69, ""), "{}", said.err);
    assert!(said.err.contains("the card cannot be used"), "{}", said.err);
    let said = bench.fp8flow("bench train --backend nobodys-plugin");
    assert_eq!((said.code, said.out.as_str()), (69, ""), "{}", said.err);
    assert!(said.err.contains("nobodys-plugin") && said.err.contains("places searched"), "{}", said.err);
    let said = bench.fp8flow("bench gemm --recipe rowise --json");
    assert_eq!((said.code, said.lines()[0]["event"].as_str()), (69, Some("error")), "{}", said.out);
    assert!(said.out.contains("did you mean `rowwise`?"), "{}", said.out);
}
