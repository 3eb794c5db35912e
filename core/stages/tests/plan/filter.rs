//! `layers.filter`.

use serde_json::{Value, json};

use crate::bench::{Bench, fp8, layer, layers};

const TORCHAO: &str = "plugin = \"torchao-rowwise\"";

#[test]
fn by_default_everything_but_the_head_runs_in_fp8() {
    let plan = Bench::new().plan(TORCHAO, "").unwrap();
    assert_eq!(fp8(&plan).len(), 28);
    assert_eq!(layers(&plan).lines[0], "28 of 29 linear layers in FP8, 97.3 % of their FLOPs");
    let text = layers(&plan).lines.join("\n");
    assert!(
        text.contains("FP8      28 layers   97.3 %   rowwise: e4m3 activations, weights and gradients"),
        "{text}"
    );
    assert!(text.contains("model.layers.{0-3}.self_attn.{k,v}_proj     8   32 × 64"), "{text}");
    assert_eq!(layers(&plan).facts["layers"]["recipes"][0]["recipe"], "rowwise");
}

#[test]
fn patterns_blocks_and_skip_words_choose_together() {
    let keys = "include = [\"*.mlp.*\"]\nexclude = [\"model.layers.{2}.mlp.down_proj\"]\nfirst = 1\nlast = 1";
    let plan = Bench::new().plan(TORCHAO, keys).unwrap();
    assert_eq!(
        fp8(&plan),
        ["1.mlp.gate_proj", "1.mlp.up_proj", "1.mlp.down_proj", "2.mlp.gate_proj", "2.mlp.up_proj"]
            .map(|name| format!("model.layers.{name}"))
    );
    let reason = |name: &str| layer(&plan, name)["reason"].as_str().unwrap().to_owned();
    assert_eq!(reason("model.layers.1.self_attn.o_proj"), "`include` does not name it: `*.mlp.*`");
    assert_eq!(
        reason("model.layers.2.mlp.down_proj"),
        "`exclude` names it: `model.layers.{2}.mlp.down_proj`"
    );
    assert_eq!(reason("model.layers.0.mlp.up_proj"), "the first block (`first = 1`)");
    // The reference's own words may match nothing.
    assert!(Bench::new().plan(TORCHAO, "skip = [\"nobody\", \"lm_head\"]").is_ok());
}

#[test]
fn a_pattern_that_matches_nothing_is_shown_with_the_nearest_one() {
    for (keys, words) in [
        (
            "include = [\"*.mlp.*\", \"*.dwn_proj\"]",
            vec!["`*.dwn_proj` matches no linear layer", "w.toml:10:23", "did you mean `*.down_proj`?"],
        ),
        (
            "exclude = [\"q_proj\"]",
            vec!["`q_proj` matches no linear layer", "did you mean `*.q_proj`", "whole names"],
        ),
        ("exclude = [\"model.layers.{4-9}.mlp.*\"]", vec!["matches no linear layer", "w.toml:10:12"]),
        ("include = [\"model.layer.*.mlp.up_proj\"]", vec!["did you mean `model.layers.*.mlp.up_proj`?"]),
        (
            "include = [\"transformer.h.*.attn.c_attn\"]",
            vec!["The layers are called `model.layers.*.self_attn.q_proj`, ", "`lm_head`."],
        ),
        ("include = [\"model.layers.[0-3].*\"]", vec!["is no pattern", "write `{0-3}`", "w.toml:10:12"]),
        ("exclude = [\"\"]", vec!["`` is no pattern: the pattern is empty"]),
        (
            "[[stages.layers.recipes]]\nlayers = [\"*.q_proj\", \"*.qproj\"]\nrecipe = \"tensorwise\"",
            vec!["`*.qproj` matches no linear layer", "w.toml:11:23", "`*.q_proj`"],
        ),
        ("first = 5", vec!["`first` is 5, but the model has 4 blocks", "w.toml:10:9"]),
        ("last = 5", vec!["`last` is 5, but the model has 4 blocks"]),
        ("min_gain = -1", vec!["`min_gain` is out of its range"]),
        ("min_gain = \"torch\"", vec!["unknown min_gain `torch`"]),
    ] {
        let (code, said) = Bench::new().wrong(TORCHAO, keys);
        assert_eq!(code, 3, "{said}");
        for words in words {
            assert!(said.contains(words), "no `{words}` about {keys}\n{said}");
        }
    }
}

#[test]
fn no_layer_at_all_is_an_error_that_says_why_for_each() {
    let (code, said) = Bench::new().wrong(TORCHAO, "first = 2\nlast = 2");
    assert_eq!(code, 3);
    for words in [
        "no layer of this model would run in FP8",
        "one of the first 2 blocks",
        "one of the last 2 blocks",
        "plugin = \"none\"",
    ] {
        assert!(said.contains(words), "no `{words}` in\n{said}");
    }
    // Tiny layers are not worth it on any card.
    let (_, said) = Bench::new().wrong(TORCHAO, "min_gain = 1.0");
    assert!(said.contains("`min_gain = 1`: 0.61× predicted (N = 64, K = 64, M = 8192, H100)"), "{said}");
    let (_, said) = Bench::new().wrong(TORCHAO, "min_gain = \"torchao\"");
    assert!(said.contains("`min_gain`, torchao: N = 64, K = 64 is too small (N ≤ 2048)"), "{said}");
}

#[test]
fn a_least_gain_needs_a_formula_for_the_recipe() {
    let hp = format!("{TORCHAO}\nrecipe = \"rowwise_with_gw_hp\"");
    let (code, said) = Bench::new().wrong(&hp, "min_gain = \"torchao\"");
    assert_eq!(code, 3);
    assert!(said.contains("torchao publishes no thresholds for recipe `rowwise_with_gw_hp`"), "{said}");
    assert!(said.contains("w.toml:11:12"), "{said}");
    // Only recipes that some layer may run under count.
    let keys = "min_gain = 0\n[[stages.layers.recipes]]\nlayers = [\"*.q_proj\"]\nrecipe = \"tensorwise\"";
    let plan = Bench::new().plan(&hp, keys).unwrap();
    assert!(layer(&plan, "model.layers.0.mlp.up_proj")["gain"].as_f64().is_some_and(|gain| gain > 0.1));
}

#[test]
fn the_tokens_of_a_micro_batch_are_told_or_said_to_be_assumed() {
    let plan = |keys: &str| Bench::new().plan(TORCHAO, &format!("min_gain = 0.0\n{keys}")).unwrap();
    let gain = |keys: &str| layer(&plan(keys), "model.layers.0.mlp.up_proj")["gain"].as_f64().unwrap();
    assert_eq!(gain(""), gain("tokens = 8192"));
    assert_ne!(gain("tokens = 262144"), gain("tokens = 8192"));
    let said = |keys: &str| layers(&plan(keys)).lines.last().unwrap().clone();
    assert!(said("").contains("M = 8192 tokens a micro-batch (assumed: see `tokens`)"), "{}", said(""));
    assert!(
        said("tokens = 99").contains("M = 99 tokens a micro-batch on an H100"),
        "{}",
        said("tokens = 99")
    );
}

#[test]
fn recipes_of_their_own_for_some_layers() {
    let keys = "[[stages.layers.recipes]]\nlayers = [\"*.{k,v}_proj\"]\nrecipe = \"tensorwise\"\n\
                [[stages.layers.recipes]]\nlayers = [\"*.down_proj\"]\noptions = { round_scales_to_power_of_2 = false }";
    let bench = Bench::new();
    let plan = bench.plan(TORCHAO, keys).unwrap();
    let facts = &layers(&plan).facts["layers"];
    let choice = |recipe: &str, round: bool| json!({ "recipe": recipe, "options": { "round_scales_to_power_of_2": round } });
    assert_eq!(
        facts["recipes"],
        json!([choice("rowwise", true), choice("tensorwise", false), choice("rowwise", false)])
    );
    let of = |name: &str| layer(&plan, &format!("model.layers.3.{name}"));
    assert_eq!(
        (&of("self_attn.q_proj")["recipe"], &of("self_attn.k_proj")["recipe"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(of("mlp.down_proj")["recipe"], 2);
    assert_eq!(of("self_attn.q_proj")["group"], json!(["model.layers.3.self_attn.q_proj"]));
    assert_eq!(
        of("self_attn.v_proj")["group"],
        json!(["model.layers.3.self_attn.k_proj", "model.layers.3.self_attn.v_proj"])
    );
    let text = layers(&plan).lines.join("\n");
    assert!(text.contains("tensorwise: e4m3 activations and weights, e5m2 gradients"), "{text}");

    // The artifact is what was planned.
    let (folder, warnings) = bench.run(&plan);
    let written: Value =
        serde_json::from_slice(&std::fs::read(folder.join("layers/layers.json")).unwrap()).unwrap();
    assert_eq!(written, *facts);
    assert_eq!(std::fs::read_to_string(folder.join("layers/layers.txt")).unwrap().trim_end(), text);
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn an_unknown_recipe_or_option_of_an_entry_is_shown_at_the_entry() {
    let entry = |keys: &str| {
        let keys = format!(
            "[[stages.layers.recipes]]\nlayers = [\"*.q_proj\"]\n[[stages.layers.recipes]]\nlayers = [\"*.k_proj\"]\n{keys}"
        );
        let (code, said) = Bench::new().wrong(TORCHAO, &keys);
        assert_eq!(code, 3, "{said}");
        said
    };
    let said = entry("recipe = \"tensorwize\"");
    for words in
        ["`torchao-rowwise` has no recipe `tensorwize`", "w.toml:14:10", "did you mean `tensorwise`?"]
    {
        assert!(said.contains(words), "{said}");
    }
    let said = entry("options = { round = 1 }");
    for words in ["option `round`: recipe `rowwise` has no such option", "w.toml:14:21"] {
        assert!(said.contains(words), "{said}");
    }
    let said = entry("options = { round_scales_to_power_of_2 = 3 }");
    assert!(said.contains("expected true or false, found 3"), "{said}");
    let said = entry("recipes = 3");
    assert!(said.contains("unknown key `recipes` in `recipes` number 2 of stage `layers`"), "{said}");
}

#[test]
fn e5m2_in_the_forward_of_some_layers_is_refused_with_the_way_out() {
    let keys = "[[stages.layers.recipes]]\nlayers = [\"*.q_proj\"]\noptions = { format = \"E5M2\" }";
    let (code, said) =
        Bench::new().wrong("plugin = \"transformer-engine-hybrid\"\nrecipe = \"current\"", keys);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("`E5M2` in the forward is not supported") && said.contains("HYBRID"), "{said}");
}

#[test]
fn options_of_an_entry_are_laid_over_the_backends_or_over_the_recipes_defaults() {
    let backend =
        format!("{TORCHAO}\nrecipe = \"rowwise\"\noptions = {{ round_scales_to_power_of_2 = false }}");
    let plan = |keys: &str| {
        let keys = format!("[[stages.layers.recipes]]\nlayers = [\"*.q_proj\"]\n{keys}");
        let plan = Bench::new().plan(&backend, &keys).unwrap();
        layers(&plan).facts["layers"]["recipes"].as_array().unwrap().len()
    };
    assert_eq!(plan(""), 1, "the same recipe with the same options");
    assert_eq!(plan("recipe = \"rowwise\""), 2, "named, so with its own defaults");
}

#[test]
fn an_entry_without_effect_is_warned_of() {
    let keys = "[[stages.layers.recipes]]\nlayers = [\"*.q_proj\"]\nrecipe = \"tensorwise\"\n\
                [[stages.layers.recipes]]\nlayers = [\"*\"]\nrecipe = \"rowwise_with_gw_hp\"";
    let plan = Bench::new().plan(TORCHAO, keys).unwrap();
    let warned = plan.warnings.to_string();
    assert!(
        warned.contains("later entries name all of these layers") && warned.contains("w.toml:11:10"),
        "{warned}"
    );
    assert_eq!(layers(&plan).facts["layers"]["recipes"].as_array().unwrap().len(), 1);
}

#[test]
fn without_fp8_the_rule_still_says_what_it_would_keep_back() {
    let keys = "exclude = [\"*.o_proj\"]\n[[stages.layers.recipes]]\nlayers = [\"*.q_proj\"]\nrecipe = \"tensorwise\"";
    let plan = Bench::new().plan("plugin = \"none\"", keys).unwrap();
    assert_eq!(fp8(&plan), [""; 0]);
    let text = layers(&plan).lines.join("\n");
    assert!(
        text.contains("high     24 layers") && text.contains("no FP8 backend (plugin = \"none\")"),
        "{text}"
    );
    assert!(text.contains("`exclude` names it: `*.o_proj`"), "{text}");
    let (_, said) = Bench::new().wrong("plugin = \"none\"", "include = [\"*.oproj\"]");
    assert!(said.contains("did you mean `*.o_proj`?"), "{said}");
}
