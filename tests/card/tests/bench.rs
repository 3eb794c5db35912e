//! Every benchmark measures on a card what it says, in lines that are whole: how fast, is nobody's business here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fp8flow_bench::card::train::CardTraining;
use fp8flow_bench::card::{self, CardBench};
use fp8flow_bench::model::Size;
use fp8flow_bench::{Fp8, Heads, Line, Repeats, Sizes};
use fp8flow_card_tests::card;
use fp8flow_host::{Pool, Services};
use fp8flow_kernels::Isa;
use fp8flow_model::{ModelConfig, initialise, initialise_on};
use fp8flow_stages::Engine;
use fp8flow_tensor::DType;
use serde_json::{Value, json};

/// An engine on the card, with the plugins that Cargo has built beside the tests; none without a card.
fn engine() -> Option<Engine> {
    card()?;
    let pool = Arc::new(Pool::new(2).unwrap());
    let host = Services::new(Isa::best(), pool.clone(), Arc::new(AtomicBool::new(false))).host();
    let built: PathBuf = std::env::current_exe().unwrap().parent().unwrap().into();
    // `on-a-card` packs plugins apart from tests.
    let places = [built.clone(), built.join("../bin")].map(|folder| folder.join("libtorchao_rowwise.so"));
    let plugin = places.into_iter().find(|plugin| plugin.is_file()).expect("a plugin was built");
    let engine = Engine::new(Isa::best(), pool, host, vec![plugin]);
    assert!(engine.take_device("cuda").unwrap());
    Some(engine)
}

/// What a benchmark takes of the card is told by what is free of it: nobody else may take or give back meanwhile.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lines of `run`, after that on the card.
fn lines(run: impl FnOnce(&CardBench, &mut dyn FnMut(Line))) -> Option<Vec<Value>> {
    let _alone = alone();
    let engine = engine()?;
    let mut lines = Vec::new();
    let mut show = |line: Line| lines.push(json!(line));
    let bench = CardBench::begin(&engine, Repeats::Exactly(1), Sizes::Small, &mut show).unwrap().unwrap();
    run(&bench, &mut show);
    let head = lines.remove(0);
    assert_eq!(head["what"], "card", "{head}");
    expect_positive(&head, &["memory_gb", "free_gb", "bf16_tflops", "copy_tbps"]);
    for version in ["card", "cuda", "nvrtc", "cublaslt", "architecture"] {
        assert!(head[version].as_str().is_some_and(|text| !text.is_empty()), "{version}: {head}");
    }
    for line in lines.iter().filter(|line| line["left_out"].is_null()) {
        let share = if line["what"] == "train" { "fp8_peak_share" } else { "sheet_share" };
        if head["sheet"].is_null() {
            assert!(line[share].is_null(), "{line}");
        } else {
            expect_positive(line, &[share]);
        }
    }
    Some(lines)
}

fn expect_positive(line: &Value, keys: &[&str]) {
    for key in keys {
        let number = line[key].as_f64();
        assert!(number.is_some_and(|number| number.is_finite() && number > 0.0), "{key}: {line}");
    }
}

/// Every line was measured, at a rate in `unit`.
fn expect_measured(lines: &[Value], unit: &str) {
    for line in lines {
        assert!(line["left_out"].is_null(), "{line}");
        expect_positive(line, &["us", unit, "ceiling_share"]);
    }
}

/// The case and its scales of each line.
fn names(lines: &[Value]) -> Vec<(&str, &str)> {
    lines.iter().map(|line| (line["what"].as_str().unwrap(), line["scales"].as_str().unwrap_or(""))).collect()
}

#[test]
fn all_gemms_of_a_layer_with_scales_of_every_kind() {
    let Some(lines) = lines(|bench, show| card::gemm(bench, None, show).unwrap()) else { return };
    let expected: Vec<(&str, &str)> = ["none", "tensor", "row", "blocks"]
        .into_iter()
        .flat_map(|scales| ["fprop", "dgrad", "wgrad"].map(|what| (what, scales)))
        .collect();
    assert_eq!(names(&lines), expected);
    expect_measured(&lines, "gflops");
    for line in &lines {
        assert_eq!([&line["m"], &line["k"], &line["n"]], [48, 128, 64], "{line}");
        expect_positive(line, &["best_algorithm"]);
    }
}

#[test]
fn a_product_that_a_card_does_not_take_is_left_out_with_the_reason() {
    let Some(lines) = lines(|bench, show| card::gemm(bench, Some([16, 24, 16]), show).unwrap()) else {
        return;
    };
    let (left_out, measured): (Vec<&Value>, Vec<&Value>) =
        lines.iter().partition(|line| line["left_out"].is_string());
    assert_eq!((left_out.len(), measured.len()), (9, 3), "24 is a multiple of 16 for bf16 alone");
    assert!(left_out.iter().all(|line| line["left_out"].as_str().unwrap().contains("multiple of 16")));
}

#[test]
fn all_casts() {
    let Some(lines) = lines(|bench, show| card::cast(bench, None, show).unwrap()) else { return };
    let expected = [
        ("cast_tensor_delayed", "tensor"),
        ("cast_tensor", "tensor"),
        ("cast_row", "row"),
        ("cast_col", "col"),
        ("cast_row_col", "row, col"),
        ("cast_blocks", "blocks"),
        ("cast_squares", "squares"),
    ];
    assert_eq!(names(&lines), expected);
    expect_measured(&lines, "gbps");
}

#[test]
fn attention_forward_and_backward() {
    let heads = Heads { batch: 1, sequence: 33, heads: 2, kv_heads: 2, head_dim: 64 };
    let Some(lines) = lines(|bench, show| {
        card::attention(bench, None, show).unwrap();
        card::attention(bench, Some(heads), show).unwrap();
    }) else {
        return;
    };
    assert_eq!(names(&lines), [("attention_forward", ""), ("attention_backward", "")].repeat(2));
    expect_measured(&lines, "gflops");
    assert_eq!([&lines[3]["sequence"], &lines[3]["heads"], &lines[3]["head_dim"]], [33, 2, 64]);
}

#[test]
fn training_steps_of_a_recipe_and_without_fp8() {
    let asked =
        CardTraining { steps: 1, blocks: Some(1), batch: Some(2), dtype: DType::Bf16, recompute: None };
    let stop = AtomicBool::new(false);
    let Some(engine) = engine() else { return };
    let rowwise = Fp8::open(&engine, "torchao-rowwise", Some("rowwise")).unwrap();
    assert!(rowwise.is_some());
    for (fp8, layers) in [(rowwise.as_ref(), 7), (None, 0)] {
        let lines = lines(|bench, show| {
            card::train(bench, &[], None, &asked, fp8, &stop, show).unwrap();
        });
        let lines = lines.unwrap();
        let [line] = lines.as_slice() else { panic!("one line was expected: {lines:?}") };
        assert_eq!([&line["what"], &line["model"], &line["recompute"]], ["train", "small", "none"], "{line}");
        assert_eq!([&line["layers"], &line["of_layers"], &line["fp8_layers"]], [1, 8, layers], "{line}");
        let keys = ["tokens_per_s", "step_ms", "tflops", "ceiling_share", "planned_gb", "loss"];
        expect_positive(line, &keys);
        let (used, planned) = (line["used_gb"].as_f64().unwrap(), line["planned_gb"].as_f64().unwrap());
        // Each of many small stretches takes a page of a real card.
        assert!(used > 0.5 * planned && used < planned + 0.5, "{used} of {planned} GB");
    }
}

#[test]
fn a_model_that_does_not_fit_is_left_out_with_both_figures() {
    let asked = CardTraining {
        steps: 1,
        blocks: Some(32),
        batch: Some(1),
        dtype: DType::Bf16,
        recompute: Some(true),
    };
    let stop = AtomicBool::new(false);
    let Some(lines) = lines(|bench, show| {
        card::train(bench, &[Size::Llama8B], Some(2048), &asked, None, &stop, show).unwrap();
    }) else {
        return;
    };
    let why = lines[0]["left_out"].as_str().unwrap();
    assert!(why.starts_with("32 blocks take 1") && why.ends_with("GB are free"), "{why}");
}

#[test]
fn weights_that_are_drawn_for_a_card_are_those_of_the_cpu() {
    let _alone = alone();
    let Some(engine) = engine() else { return };
    // An embedding so large that it goes to the card in several pieces.
    let config = ModelConfig { vocab_size: 20_000, ..fp8flow_bench::model::model(1, 32).unwrap() };
    let device = engine.device();
    let (there, here) =
        (initialise_on(&config, 3, &*device).unwrap(), initialise(&config, 3, engine.cpu().pool));
    for ((spec, there), (_, here)) in there.iter().zip(here.iter()) {
        assert!(there.card().is_some());
        assert_eq!(there.here().unwrap().f32(), here.f32(), "{}", spec.name);
    }
}
