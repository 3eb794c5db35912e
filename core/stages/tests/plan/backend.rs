//! `[backend]`: what is chosen, what is passed over, what happens where there is nothing.

use serde_json::{Value, json};

use crate::bench::{Bench, built, fp8, layers, patched};

#[test]
fn auto_takes_the_first_and_says_so() {
    let plan = Bench::new().plan("", "").unwrap();
    let section = plan.section("backend").unwrap();
    assert_eq!(
        (&section.facts["plugin"], &section.facts["recipe"]),
        (&json!("torchao-rowwise"), &json!("rowwise"))
    );
    assert_eq!(section.facts["auto"], json!({ "why": "it comes first", "passed_over": [] }));
    assert_eq!(section.lines[2], "auto: torchao-rowwise, because it comes first");
    // What is found is written out.
    assert_eq!(section.params.get::<&str>("recipe"), "rowwise");
    assert_eq!(section.params.table("options").json()["round_scales_to_power_of_2"], true);
}

#[test]
fn a_named_plugin_is_taken_by_name_or_path() {
    let path = built().join("libtorchao_rowwise.so");
    for backend in ["plugin = \"torchao-rowwise\"".to_owned(), format!("plugin = \"{}\"", path.display())] {
        let plan = Bench::new().plan(&backend, "").unwrap();
        let facts = &plan.section("backend").unwrap().facts;
        assert_eq!(facts["plugin"], "torchao-rowwise");
        assert!(facts.get("auto").is_none() && facts["digest"].as_str().unwrap().len() == 64);
    }
}

#[test]
fn what_was_asked_for_and_is_not_there_is_exit_69_with_where_and_how() {
    let (code, said) = Bench::new().wrong("plugin = \"torchao-colwise\"", "");
    assert_eq!(code, 69);
    for words in [
        "no plugin `torchao-colwise` was found",
        "did you mean `torchao-rowwise`",
        "places searched",
        "cargo build --release",
        "w.toml:2:10",
    ] {
        assert!(said.contains(words), "no `{words}` in\n{said}");
    }
    let (code, said) = Bench::new().wrong("plugin = \"./libnothing.so\"", "");
    assert_eq!(code, 69, "{said}");
}

#[test]
fn a_recipe_that_nobody_has_is_answered_with_all_there_are() {
    let (code, said) = Bench::new().wrong("recipe = \"rowwize\"", "");
    assert_eq!(code, 3, "a slip of the pen: {said}");
    for words in [
        "has a recipe `rowwize`",
        "torchao-rowwise: rowwise, tensorwise, rowwise_with_gw_hp",
        "did you mean `rowwise`?",
        "w.toml:2:10",
    ] {
        assert!(said.contains(words), "no `{words}` in\n{said}");
    }
    let (code, said) = Bench::new().wrong("plugin = \"torchao-rowwise\"\nrecipe = \"delayed\"", "");
    assert_eq!(code, 3);
    assert!(said.contains("`torchao-rowwise` has no recipe `delayed`; it has rowwise, tensorwise"), "{said}");
}

#[test]
fn no_plugin_has_no_recipe_and_no_options() {
    let (code, said) = Bench::new().wrong(
        "plugin = \"none\"\nrecipe = \"rowwise\"\noptions = { round_scales_to_power_of_2 = true }",
        "",
    );
    assert_eq!(code, 3);
    for words in [
        "`recipe` is set, but `plugin = \"none\"` has no recipe",
        "`options` is set",
        "--set 'backend={plugin=\"none\"}'",
        "w.toml:3:10",
    ] {
        assert!(said.contains(words), "no `{words}` in\n{said}");
    }
}

#[test]
fn places_that_are_not_there_are_errors() {
    let (code, said) = Bench::new().wrong("paths = [\".\", \"plugins\"]", "");
    assert_eq!(code, 3);
    assert!(said.contains("F0108") && said.contains("plugins") && said.contains("w.toml:2:15"), "{said}");
    let (code, said) = Bench::new().with_plugin_path("/nowhere/at/all").wrong("", "");
    assert_eq!(code, 69);
    assert!(said.contains("--plugin-path /nowhere/at/all: no such file or folder"), "{said}");
}

#[test]
fn a_recipe_leads_auto_to_the_plugin_that_has_it() {
    let plan = Bench::new().plan("recipe = \"delayed\"", "").unwrap();
    let section = plan.section("backend").unwrap();
    assert_eq!(section.facts["plugin"], "transformer-engine-hybrid");
    assert_eq!(
        section.facts["auto"],
        json!({
            "why": "it is the first with the recipe `delayed`",
            "passed_over": ["torchao-rowwise has other recipes (rowwise, tensorwise, rowwise_with_gw_hp)"],
        })
    );
    assert!(section.lines.iter().all(|line| line.chars().count() <= 97 || line.starts_with('/')));
    assert!(plan.warnings.is_empty());
}

#[test]
fn what_auto_refuses_is_said_aloud() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("plugins")).unwrap();
    patched("\"panic\":\"unwind\"", "\"panic\":\"aborts\"", &bench.path("plugins/libtorchao_rowwise.so"));
    // A name stands for the first place that has it, so the good one beside the tests is not looked at.
    let plan = bench.plan("paths = [\"plugins\"]", "").unwrap();
    let section = plan.section("backend").unwrap();
    assert_eq!(section.facts["plugin"], "transformer-engine-hybrid");
    assert_eq!(section.facts["auto"]["passed_over"], json!(["torchao-rowwise is refused"]));
    let warned = plan.warnings.to_string();
    assert!(
        warned.contains("passed over: plugin `torchao-rowwise`") && warned.contains("aborts"),
        "{warned}"
    );

    let (code, said) = bench.wrong("paths = [\"plugins\"]\nrecipe = \"rowwise\"", "");
    assert_eq!(code, 69, "{said}");
    for words in [
        "no plugin that can be used has a recipe `rowwise`",
        "torchao-rowwise is refused",
        "aborts",
        "cargo build --release",
    ] {
        assert!(said.contains(words), "no `{words}` in\n{said}");
    }
}

#[test]
fn a_fallback_is_loud_in_the_plan_in_the_run_and_in_every_layer() {
    let bench = Bench::new();
    let plan =
        bench.plan("plugin = \"torchao-colwise\"\nfallback = \"bf16\"", "exclude = [\"*.o_proj\"]").unwrap();
    let section = plan.section("backend").unwrap();
    let why = section.facts["why"].as_str().unwrap();
    assert!(why.starts_with("no plugin `torchao-colwise` was found"), "{why}");
    assert_eq!(section.facts, json!({ "fp8": false, "fallback": "bf16", "why": why }));
    assert!(section.lines.iter().all(|line| line.starts_with("!! NO FP8 !!")), "{:?}", section.lines);
    let warned = plan.warnings.to_string();
    assert!(warned.contains("this is no FP8 run: no plugin `torchao-colwise` was found"), "{warned}");
    assert!(warned.contains("places searched") && warned.contains("w.toml:3:12"), "{warned}");

    assert_eq!(fp8(&plan), [""; 0]);
    let text = layers(&plan).lines.join("\n");
    assert!(
        text.contains("0 of 29 linear layers in FP8")
            && text.contains("fallback: no plugin `torchao-colwise`"),
        "{text}"
    );

    let (folder, warnings) = bench.run(&plan);
    assert!(warnings[0].contains("no layer runs in FP8: fallback = \"bf16\""), "{warnings:?}");
    let json: Value = serde_json::from_slice(&std::fs::read(folder.join("plan.json")).unwrap()).unwrap();
    assert_eq!(json["sections"]["backend"]["facts"]["fallback"], "bf16");
    let written = std::fs::read_to_string(folder.join("layers/layers.json")).unwrap();
    assert!(written.contains("fallback: no plugin"), "{written}");
}

#[test]
fn a_fallback_takes_the_place_of_what_is_missing_only() {
    let bench = Bench::new();
    // A plugin that is there is used.
    let plan = bench.plan("fallback = \"bf16\"", "").unwrap();
    assert_eq!(fp8(&plan).len(), 28);
    assert!(plan.warnings.is_empty());
    // A mistake in the workflow stays one.
    for backend in [
        "recipe = \"rowwize\"",
        "plugin = \"torchao-rowwise\"\nrecipe = \"delayed\"",
        "options = { round = 1 }",
    ] {
        assert_eq!(bench.wrong(&format!("{backend}\nfallback = \"bf16\""), "").0, 3, "{backend}");
    }
    assert_eq!(bench.wrong("plugin = \"nobody\"\nfallback = \"f16\"", "").0, 3);
}
