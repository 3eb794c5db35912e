//! Workflows with `device = "cuda"`, from the command line to the exported model, on an emulated card.
//!
//! The binary is unchanged: it finds a driver, an NVRTC and a cuBLASLt in `FP8FLOW_CUDA_DIR`, which run on the CPU.

mod conformance;
mod workflow;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::conformance::built;
use crate::program::{Bench, Ended};
use workflow::{
    DELAYED, Fp8, HOPPER, ROWWISE, STEPS, bench, bytes, emulated, ended, kill_until_it_ends, losses, run,
    write_model,
};

/// The losses on the card lie within what rounding makes of those on the CPU; every checkpoint has the same bytes in the
/// next run, after kills where there is a recipe, and under recompute.
fn a_run_is_the_cpus_and_its_own(fp8: Fp8) {
    if emulated().is_none() {
        return;
    }
    let card = bench(fp8);
    let ended = run(&card);
    let record: Value =
        serde_json::from_str(&std::fs::read_to_string(card.run_folder().join("run.json")).unwrap()).unwrap();
    assert_eq!(record["environment"]["device"], "cuda:0 (NVIDIA H100 80GB HBM3, sm_90a)", "{record:#}");
    for words in ["NVIDIA H100 80GB HBM3 computes what the CPU does", "on NVIDIA H100 80GB HBM3"] {
        assert!(ended.all().contains(words), "no `{words}` in {}", ended.all());
    }
    if fp8 != Fp8::None {
        for words in
            ["14 of 15 linear layers, every one as planned", "was seen to compute in FP8", "; NVIDIA H100"]
        {
            assert!(ended.all().contains(words), "no `{words}` in {}", ended.all());
        }
    }
    follows(fp8, &losses(&card));
    let expected = bytes(&card);
    let models = expected.keys().filter(|name| name.ends_with("model.safetensors")).count();
    assert_eq!(models as u64, STEPS + 1, "{expected:#?}");

    let again = bench(fp8);
    if fp8 == Fp8::None {
        run(&again);
    } else {
        let kills = kill_until_it_ends(&again, Duration::from_millis(400));
        println!("{fp8:?}: killed {kills} times");
        assert!(kills > 0);
    }
    assert_eq!(bytes(&again), expected, "{fp8:?}, again");

    // What a checkpoint says about its run differs; what was computed does not.
    let computed = |files: BTreeMap<String, String>| {
        let is = |name: &String| name.ends_with(".safetensors");
        files.into_iter().filter(|(name, _)| is(name)).collect::<BTreeMap<_, _>>()
    };
    let recomputed = bench(fp8).with("checkpoint =", "recompute = \"block\"\ncheckpoint =");
    run(&recomputed);
    assert_eq!(computed(bytes(&recomputed)), computed(expected), "{fp8:?} with recompute");
}

/// Holds losses of a card to those of the CPU: they are as near as those from weights that are a millionth off.
fn follows(fp8: Fp8, found: &[f64]) {
    let of = |shake| {
        let bench = bench(fp8);
        write_model(&bench, shake);
        let ended = bench.run(&[]);
        assert_eq!(ended.code, Some(0), "{}", ended.all());
        losses(&bench)
    };
    let expected = of(0.0);
    let shaken = [1e-6, -1e-6, 2e-6, -2e-6].map(of);
    let mut band = 0.0_f64;
    assert_eq!(found.len() as u64, STEPS);
    for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
        band = shaken.iter().fold(band, |band, losses| band.max((losses[step] - expected).abs()));
        let off = (found - expected).abs();
        println!("{fp8:?} {}: {expected:.5}, off by {off:.5} beside {band:.5}", step + 1);
        assert!(off <= band, "{fp8:?}, step {}: {found}, not {expected} ± {band}", step + 1);
    }
    assert!(expected[0] - expected[STEPS as usize - 1] > 0.3, "it learns: {expected:?}");
}

#[test]
fn a_run_without_fp8_is_the_cpus_and_its_own() {
    a_run_is_the_cpus_and_its_own(Fp8::None);
}

#[test]
fn a_run_with_a_scale_a_row_is_the_cpus_and_its_own() {
    a_run_is_the_cpus_and_its_own(ROWWISE);
}

#[test]
fn a_run_with_delayed_scales_is_the_cpus_and_its_own() {
    a_run_is_the_cpus_and_its_own(DELAYED);
}

/// A run on `cards` fails with `code` and `words`, and leaves nothing that was trained.
fn fails(bench: &Bench, cards: Option<&str>, device: &str, code: i32, words: &[&str]) {
    let set = format!("workflow.device=\"{device}\"");
    let ended = ended(bench, cards, &["run", "workflow.toml", "--set", &set]);
    assert_eq!(ended.code, Some(code), "{}", ended.all());
    let said = ended.all().split_whitespace().collect::<Vec<_>>().join(" ");
    for words in words {
        assert!(said.contains(words), "no `{words}` in {said}");
    }
    let trained = std::fs::read_dir(bench.path("runs")).into_iter().flatten().flatten();
    let trained: Vec<_> =
        trained.map(|run| run.path().join("train/checkpoints")).filter(|path| path.exists()).collect();
    assert!(trained.is_empty() && !bench.path("out").exists(), "{trained:?}");
}

#[test]
fn what_is_no_card_for_a_workflow_is_said_before_anything_runs() {
    if emulated().is_none() {
        return;
    }
    let rowwise = bench(ROWWISE);
    fails(
        &rowwise,
        Some(HOPPER),
        "cuda:7",
        69,
        &["there is no card 7: the driver shows 1", "workflow.device=\"cuda:7\""],
    );
    fails(&rowwise, None, "cuda", 69, &["libcuda.so.1", "fp8flow doctor"]);
    fails(&rowwise, Some("error-100"), "cuda", 69, &["cuInit"]);
    fails(
        &rowwise,
        Some("ampere"),
        "cuda",
        69,
        &["NVIDIA A100-SXM4-80GB has compute capability 8.0", "Ada (8.9)"],
    );
    fails(&rowwise, Some(HOPPER), "cuda:x", 3, &["unknown device `cuda:x`"]);
    assert!(!rowwise.path("runs").exists());
    let blockwise = bench(Fp8::Recipe("transformer-engine-hybrid", "blockwise"));
    let words = [
        "recipe `blockwise` does not run on NVIDIA GeForce RTX 4090",
        "9.0 or higher",
        "rowwise, tensorwise",
    ];
    fails(&blockwise, Some("ada"), "cuda", 69, &words);
    assert!(!blockwise.path("runs").exists());
}

#[test]
fn heads_that_no_kernel_takes_are_refused_before_anything_runs() {
    if emulated().is_none() {
        return;
    }
    let bench = bench(ROWWISE)
        .with("uses = \"model.load\"\npath = \"model\"", "uses = \"model.init\"\nconfig = \"odd.json\"");
    let config = std::fs::read_to_string(bench.path("model/config.json")).unwrap();
    bench.write("odd.json", config.replace("\"head_dim\":64", "\"head_dim\":48"));
    let words = [
        "does not run on NVIDIA H100 80GB HBM3",
        "takes a head_dim of [16, 32, 64, 80, 96, 128], not 48",
        "Set `precision = \"f32\"`",
    ];
    let in_stage = |stage| [&words[..], &[stage]].concat();
    fails(&bench, Some(HOPPER), "cuda", 69, &in_stage("[stages.train]"));
    let bench = bench.with("uses = \"train.sft\"", "uses = \"train.sft\"\nprecision = \"f32\"");
    fails(&bench, Some(HOPPER), "cuda", 69, &in_stage("[stages.eval]"));
    assert!(!bench.path("runs").exists());
}

#[test]
fn a_library_under_a_name_that_is_not_its_own_is_refused_by_its_path() {
    if emulated().is_none() {
        return;
    }
    let bench = bench(ROWWISE);
    let driver = built("cuda_stand_in");
    let folder = bench.path("renamed");
    std::fs::create_dir(&folder).unwrap();
    for name in ["libcuda.so.1", "libnvrtc.so.12", "libcublasLt.so.12"] {
        std::os::unix::fs::symlink(&driver, folder.join(name)).unwrap();
    }
    let mut command = bench.command(&["plan", "workflow.toml", "--set", "workflow.device=\"cuda\""]);
    let ended: Ended = command.env("FP8FLOW_CUDA_DIR", &folder).output().unwrap().into();
    assert_eq!(ended.code, Some(69), "{}", ended.all());
    let said = ended.all().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("renamed/libcuda.so.1") && said.contains("SONAME libcuda.so.1"), "{said}");
}

#[test]
fn a_plugin_that_is_no_cards_is_refused_by_name() {
    if emulated().is_none() {
        return;
    }
    let library = built("pretending");
    let bench = bench(Fp8::Recipe("LIBRARY", "fp8")).with("LIBRARY", &library.display().to_string());
    let words =
        ["plugin `pretending` runs on cpu alone", "the workflow's device is cuda:0 (NVIDIA H100 80GB HBM3"];
    fails(&bench, Some(HOPPER), "cuda", 3, &words);
    assert!(!bench.path("runs").exists());
}

#[test]
fn a_card_that_is_too_small_is_said_with_both_figures() {
    if emulated().is_none() {
        return;
    }
    let words =
        ["not enough memory on NVIDIA H100 80GB HBM3: this takes", "are free", "use a card with more memory"];
    fails(&bench(ROWWISE), Some("hopper:36"), "cuda", 1, &words);
}

#[test]
fn a_card_that_computes_wrongly_is_not_trained_on() {
    if emulated().is_none() {
        return;
    }
    let trains = |idle: &str, words: &[&str]| {
        fails(&bench(ROWWISE), Some(&format!("{HOPPER},idle:{idle}")), "cuda", 1, words);
    };
    trains("rms_norm_dx", &["NVIDIA H100 80GB HBM3 computes wrongly: rms_norm_backward dx"]);
    trains("attention_dkv", &["computes wrongly: attention_backward"]);
    // One casts for training, the other for evaluations.
    for cast in ["cast_lines", "cast_rows"] {
        trains(cast, &["does not compute recipe `rowwise` as the CPU does", "Nothing was computed with it"]);
    }
}

#[test]
fn the_doctor_and_the_plan_tell_of_the_card() {
    if emulated().is_none() {
        return;
    }
    let bench = bench(ROWWISE);
    let set = ["--set", "workflow.device=\"cuda\""];
    let flat = |ended: &Ended| ended.all().split_whitespace().collect::<Vec<_>>().join(" ");
    let doctor =
        ended(&bench, Some(HOPPER), &[&["doctor", "--workflow", "workflow.toml"][..], &set].concat());
    assert_eq!(doctor.code, Some(0), "{}", doctor.all());
    for words in ["NVIDIA H100 80GB HBM3 computes what the CPU does", "in FP8; on the card"] {
        assert!(flat(&doctor).contains(words), "no `{words}` in {}", doctor.all());
    }
    let f32 = ["--set", "stages.train.precision=\"f32\"", "--set", "stages.eval.precision=\"f32\""];
    let arguments = [&["doctor", "--workflow", "workflow.toml"][..], &set, &f32].concat();
    let doctor = ended(&bench, Some(HOPPER), &arguments);
    assert_eq!(doctor.code, Some(0), "{}", doctor.all());
    let wrong = [HOPPER, ",idle:rope"].concat();
    let doctor =
        ended(&bench, Some(&wrong), &[&["doctor", "--workflow", "workflow.toml"][..], &set].concat());
    assert_eq!(doctor.code, Some(69), "{}", doctor.all());
    assert!(flat(&doctor).contains("computes wrongly: rope"), "{}", doctor.all());

    let plan = ended(&bench, Some(HOPPER), &[&["plan", "workflow.toml"][..], &set].concat());
    assert_eq!(plan.code, Some(0), "{}", plan.all());
    for words in
        ["cuda:0 (NVIDIA H100 80GB HBM3, sm_90a)", "on NVIDIA H100 80GB HBM3 (", "tokens/s predicted"]
    {
        assert!(flat(&plan).contains(words), "no `{words}` in {}", plan.all());
    }
    assert!(!flat(&plan).contains("not fit"), "{}", plan.all());
    let plan = ended(&bench, Some("hopper:36"), &[&["plan", "workflow.toml"][..], &set].concat());
    assert!(flat(&plan).contains("not fit on NVIDIA H100 80GB HBM3. Take less with"), "{}", plan.all());

    // Where nobody names a device, a Hopper is taken, and an Ada is not.
    let plan = ended(&bench, Some(HOPPER), &["plan", "workflow.toml"]);
    assert!(flat(&plan).contains("cuda:0 (NVIDIA H100 80GB HBM3, sm_90a)"), "{}", plan.all());
    let plan = ended(&bench, Some("ada,hopper"), &["plan", "workflow.toml"]);
    assert!(flat(&plan).contains("cuda:1 (NVIDIA H100 80GB HBM3, sm_90a)"), "{}", plan.all());
    for (cards, device) in [("ada", "cuda"), ("ampere,ada", "cuda:1")] {
        let plan = ended(&bench, Some(cards), &["plan", "workflow.toml"]);
        let said = flat(&plan);
        assert!(said.contains("the CPU, although NVIDIA GeForce RTX 4090 is here"), "{}", plan.all());
        assert!(said.contains(&format!("`device = \"{device}\"` uses it")), "{}", plan.all());
    }
}
