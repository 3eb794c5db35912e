//! The reference's rule on the reference's names, what was added to it, and the table.

use fp8flow_sdk::{Error, Event, Linear, Options, Recipe, Result};
use serde_json::{Value, json};

use super::*;
use crate::glob::Glob;

fn layer(name: &str, block: Option<usize>, n: usize, k: usize) -> LayerFacts {
    LayerFacts {
        device: None,
        name: name.into(),
        in_features: k,
        out_features: n,
        tokens: None,
        block,
        group: vec![name.into()],
    }
}

fn rule() -> FilterRule {
    FilterRule {
        skip: ["embed", "lm_head", "output", "classifier"].map(String::from).into(),
        multiple_of: 16,
        ..FilterRule::default()
    }
}

fn globs(texts: &[&str]) -> Vec<Glob> {
    texts.iter().map(|text| Glob::new(text).expect("a pattern")).collect()
}

/// Takes every layer, for its name's sake.
struct Always(&'static str);

impl Recipe for Always {
    fn describe(&self) -> Value {
        json!(self.0)
    }
    fn decide(&self, _: &LayerFacts) -> Decision {
        Decision { precision: Precision::Fp8, reason: format!("{} takes all", self.0), fp8_gemms: [1, 1, 0] }
    }
    fn linear(&mut self, _: &LayerFacts) -> Result<Box<dyn Linear>> {
        Err(Error::unsupported("not in this test"))
    }
    fn on(&mut self, _: Event) -> Result<()> {
        Ok(())
    }
}

fn choice(name: &str) -> RecipeChoice {
    RecipeChoice { recipe: name.into(), options: Options::default() }
}

fn menu(name: &'static str) -> Menu {
    Menu::new(choice(name), Box::new(Always(name)))
}

fn assign(menu: &mut Menu, layers: &[&str], name: &'static str) {
    let make = |_: &RecipeChoice| Ok::<_, Error>(Box::new(Always(name)) as Box<dyn Recipe>);
    menu.assign(globs(layers), choice(name), make).expect("assigned");
}

fn decide(layers: &[LayerFacts], rule: &FilterRule) -> LayerPlan {
    LayerPlan::decide(layers.to_vec(), rule, Offer::Recipes(&menu("rowwise")))
}

/// Names of the layers that `rule` lets through.
fn through<'a>(layers: &'a [LayerFacts], rule: &FilterRule) -> Vec<&'a str> {
    let plan = decide(layers, rule);
    let fp8 = |name: &str| plan.fp8().any(|layer| layer.facts.name == name);
    layers.iter().map(|layer| layer.name.as_str()).filter(|name| fp8(name)).collect()
}

fn reason<'a>(plan: &'a LayerPlan, name: &str) -> &'a str {
    let layer = plan.layers.iter().find(|layer| layer.facts.name == name).expect(name);
    &layer.decision.reason
}

/// A Llama of `blocks` blocks with grouped queries, as `linear_layers` gives it.
fn llama(blocks: usize, hidden: usize, kv: usize, mlp: usize, vocabulary: usize) -> Vec<LayerFacts> {
    let config = format!(
        r#"{{"model_type": "llama", "vocab_size": {vocabulary}, "hidden_size": {hidden}, "intermediate_size": {mlp},
            "num_hidden_layers": {blocks}, "num_attention_heads": {}, "num_key_value_heads": {}, "hidden_act": "silu"}}"#,
        hidden / 16,
        kv / 16,
    );
    let config = ModelConfig::from_json(&config, "config.json".as_ref()).expect("a configuration");
    linear_layers(&config, None)
}

#[test]
fn the_reference_rule_skips_by_name_and_by_dimension() {
    let layers = [
        layer("model.layers.0.self_attn.q_proj", Some(0), 64, 64),
        layer("model.layers.0.attention.output.dense", Some(0), 64, 64),
        layer("model.layers.0.mlp.up_proj", Some(0), 100, 64),
        layer("model.layers.0.mlp.down_proj", Some(0), 64, 100),
        layer("LM_HEAD", None, 512, 64),
    ];
    let plan = decide(&layers, &rule());
    let reasons: Vec<_> = plan.layers.iter().map(|layer| layer.decision.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "rowwise takes all",
            "its name contains `output`",
            "out_features = 100 is not a multiple of 16",
            "in_features = 100 is not a multiple of 16",
            "its name contains `lm_head`"
        ]
    );
    assert_eq!(plan.fp8().count(), 1);
}

/// The names of four families, and which of them the reference converts.
#[test]
fn the_reference_rule_decides_like_the_reference_on_llama_qwen_bert_and_moe() {
    let all = |layers: &[(&str, usize, usize, bool)]| {
        let facts: Vec<_> = layers.iter().map(|&(name, n, k, _)| layer(name, None, n, k)).collect();
        let expected: Vec<_> = layers.iter().filter(|layer| layer.3).map(|layer| layer.0).collect();
        assert_eq!(through(&facts, &rule()), expected);
    };
    // Llama-3.2-1B
    all(&[
        ("model.embed_tokens", 128256, 2048, false),
        ("model.layers.0.self_attn.q_proj", 2048, 2048, true),
        ("model.layers.0.self_attn.k_proj", 512, 2048, true),
        ("model.layers.0.self_attn.v_proj", 512, 2048, true),
        // `o_proj` is no `output`.
        ("model.layers.0.self_attn.o_proj", 2048, 2048, true),
        ("model.layers.0.mlp.gate_proj", 8192, 2048, true),
        ("model.layers.0.mlp.up_proj", 8192, 2048, true),
        ("model.layers.0.mlp.down_proj", 2048, 8192, true),
        ("lm_head", 128256, 2048, false),
    ]);
    // Qwen2.5-0.5B, and a sequence classifier of it
    all(&[
        ("model.layers.23.self_attn.q_proj", 896, 896, true),
        ("model.layers.23.self_attn.k_proj", 128, 896, true),
        ("model.layers.23.mlp.down_proj", 896, 4864, true),
        ("score", 2, 896, false),
        ("classifier", 16, 896, false),
        ("visual.patch_embed.proj", 1280, 1184, false),
    ]);
    // BERT: `attention.output.dense` and `output.dense` are skipped by name
    all(&[
        ("bert.embeddings.word_embeddings", 30528, 768, false),
        ("bert.encoder.layer.0.attention.self.query", 768, 768, true),
        ("bert.encoder.layer.0.attention.self.key", 768, 768, true),
        ("bert.encoder.layer.0.attention.output.dense", 768, 768, false),
        ("bert.encoder.layer.0.intermediate.dense", 3072, 768, true),
        ("bert.encoder.layer.0.output.dense", 768, 3072, false),
        ("bert.pooler.dense", 768, 768, true),
        ("classifier", 2, 768, false),
    ]);
    // Mixture of experts: a router whose number of experts is a multiple of 16 is not skipped
    let moe = [
        ("model.layers.0.mlp.gate", 128, 2048, true),
        ("model.layers.1.mlp.gate", 60, 2048, false),
        ("model.layers.0.mlp.experts.0.gate_proj", 768, 2048, true),
        ("model.layers.0.mlp.experts.127.down_proj", 2048, 768, true),
        ("model.layers.0.mlp.shared_expert.up_proj", 5632, 2048, true),
        ("model.layers.0.mlp.shared_expert_gate", 1, 2048, false),
    ];
    all(&moe);
    // … unless one says so.
    let facts: Vec<_> = moe.iter().map(|&(name, n, k, _)| layer(name, None, n, k)).collect();
    let without = FilterRule { exclude: globs(&["*.mlp.gate"]), ..rule() };
    assert_eq!(through(&facts, &without).len(), 3);
}

#[test]
fn a_layer_of_dimension_30_is_skipped_and_its_siblings_are_converted() {
    let group = ["a.q", "a.k", "a.v"];
    let mut layers = vec![
        layer("a.q", Some(0), 64, 64),
        layer("a.k", Some(0), 30, 64),
        layer("a.v", Some(0), 64, 64),
        layer("b", Some(0), 64, 30),
    ];
    for layer in &mut layers[..3] {
        layer.group = group.map(String::from).into();
    }
    let plan = decide(&layers, &rule());
    assert_eq!(plan.fp8().map(|layer| layer.facts.name.as_str()).collect::<Vec<_>>(), ["a.q", "a.v"]);
    assert_eq!(reason(&plan, "a.k"), "out_features = 30 is not a multiple of 16");
    assert_eq!(reason(&plan, "b"), "in_features = 30 is not a multiple of 16");
    // What is in high precision shares no cast.
    let groups: Vec<_> = plan.layers.iter().map(|layer| layer.facts.group.join(" ")).collect();
    assert_eq!(groups, ["a.q a.v", "a.k", "a.q a.v", "b"]);
}

#[test]
fn include_restricts_exclude_is_stronger_and_the_reason_names_the_pattern() {
    let layers = llama(2, 64, 32, 128, 256);
    let rule = FilterRule {
        include: globs(&["*.mlp.*", "*.q_proj"]),
        exclude: globs(&["*.{1}.mlp.down_proj", "*.{1}.*.q_proj"]),
        ..rule()
    };
    assert_eq!(
        through(&layers, &rule),
        [
            "model.layers.0.self_attn.q_proj",
            "model.layers.0.mlp.gate_proj",
            "model.layers.0.mlp.up_proj",
            "model.layers.0.mlp.down_proj",
            "model.layers.1.mlp.gate_proj",
            "model.layers.1.mlp.up_proj",
        ]
    );
    let plan = decide(&layers, &rule);
    assert_eq!(
        reason(&plan, "model.layers.0.self_attn.k_proj"),
        "`include` does not name it: `*.mlp.*`, `*.q_proj`"
    );
    assert_eq!(reason(&plan, "model.layers.1.mlp.down_proj"), "`exclude` names it: `*.{1}.mlp.down_proj`");
    assert_eq!(reason(&plan, "model.layers.1.self_attn.q_proj"), "`exclude` names it: `*.{1}.*.q_proj`");
    assert_eq!(reason(&plan, "lm_head"), "its name contains `lm_head`");
}

#[test]
fn first_and_last_blocks_stay_in_high_precision() {
    let layers = llama(5, 64, 64, 64, 256);
    let blocks = |first, last| -> Vec<usize> {
        let rule = FilterRule { first, last, ..rule() };
        let mut blocks: Vec<_> = decide(&layers, &rule).fp8().filter_map(|layer| layer.facts.block).collect();
        blocks.dedup();
        blocks
    };
    assert_eq!(blocks(0, 0), [0, 1, 2, 3, 4]);
    assert_eq!(blocks(1, 0), [1, 2, 3, 4]);
    assert_eq!(blocks(0, 1), [0, 1, 2, 3]);
    assert_eq!(blocks(2, 2), [2]);
    assert_eq!(blocks(5, 0), [0; 0]);
    assert_eq!(blocks(0, 5), [0; 0]);
    let plan = decide(&layers, &FilterRule { first: 1, last: 2, ..rule() });
    assert_eq!(reason(&plan, "model.layers.0.mlp.up_proj"), "the first block (`first = 1`)");
    assert_eq!(reason(&plan, "model.layers.3.mlp.up_proj"), "one of the last 2 blocks (`last = 2`)");
}

#[test]
fn torchaos_thresholds_refuse_and_say_by_which_inequality() {
    let layers = llama(1, 4096, 1024, 14336, 128256);
    let rule = FilterRule { min_gain: MinGain::Torchao, ..rule() };
    let plan = decide(&layers, &rule);
    assert_eq!(
        reason(&plan, "model.layers.0.self_attn.k_proj"),
        "`min_gain`, torchao: N = 1024, K = 4096 is too small (N ≤ 2048)"
    );
    assert_eq!(plan.fp8().count(), 5);
    let tensorwise = LayerPlan::decide(layers, &rule, Offer::Recipes(&menu("tensorwise")));
    assert!(reason(&tensorwise, "model.layers.0.self_attn.v_proj").contains("(K ≤ 4096 and N ≤ 1024)"));
    assert_eq!(tensorwise.fp8().count(), 5);
}

#[test]
fn a_least_gain_refuses_what_is_predicted_below_it_with_n_k_and_m() {
    let small = |tokens| LayerFacts { tokens, ..layer("small", None, 4096, 4096) };
    let at = |wanted, tokens| {
        decide(&[small(tokens)], &FilterRule { min_gain: MinGain::AtLeast(wanted), ..rule() })
    };
    let plan = at(1.2, Some(4096));
    assert_eq!(
        reason(&plan, "small"),
        "`min_gain = 1.2`: 1.15× predicted (N = 4096, K = 4096, M = 4096, H100)"
    );
    // With more tokens it is worth it; nobody says how many: 8192 are assumed.
    for plan in [at(1.2, Some(8192)), at(1.2, None)] {
        assert_eq!(plan.fp8().count(), 1);
        assert!(plan.table().contains("4096 × 4096  1.25×"), "{}", plan.table());
    }
    // The boundary itself is enough.
    let exact = gain::predicted("rowwise", 8192, 4096, 4096).expect("modelled");
    assert_eq!(at(exact, None).fp8().count(), 1);
    assert_eq!(at(exact.next_up(), None).fp8().count(), 0);
    assert_eq!(at(0.0, Some(1)).fp8().count(), 1);
}

#[test]
fn each_layer_is_offered_to_its_recipe_the_last_entry_that_names_it_counts() {
    let mut menu = menu("rowwise");
    assign(&mut menu, &["*.self_attn.*"], "tensorwise");
    assign(&mut menu, &["*.{q,o}_proj"], "rowwise_with_gw_hp");
    assign(&mut menu, &["*.o_proj"], "tensorwise");
    assert_eq!(menu.choices().len(), 3, "equal choices are one recipe");
    let plan = LayerPlan::decide(llama(1, 64, 64, 64, 256), &rule(), Offer::Recipes(&menu));
    let recipes: Vec<_> =
        plan.fp8().map(|layer| plan.recipes[layer.recipe.expect("one")].recipe.as_str()).collect();
    assert_eq!(
        recipes,
        ["rowwise_with_gw_hp", "tensorwise", "tensorwise", "tensorwise", "rowwise", "rowwise", "rowwise"]
    );
    assert_eq!(reason(&plan, "model.layers.0.self_attn.k_proj"), "tensorwise takes all");
    let group = |name: &str| {
        let name = format!("model.layers.0.{name}");
        let layer = plan.layers.iter().find(|layer| layer.facts.name == name).expect("it is there");
        let short = |name: &String| name.rsplit('.').next().unwrap_or_default().to_owned();
        layer.facts.group.iter().map(short).collect::<Vec<_>>()
    };
    assert_eq!(group("self_attn.q_proj"), ["q_proj"]);
    assert_eq!(group("self_attn.k_proj"), ["k_proj", "v_proj"]);
    assert_eq!(group("mlp.up_proj"), ["gate_proj", "up_proj"]);
    assert_eq!(group("self_attn.o_proj"), ["o_proj"], "another input, the same recipe");
    let again: LayerPlan = serde_json::from_str(&json!(plan).to_string()).expect("it reads back");
    assert_eq!(again, plan);
}

#[test]
fn recipes_that_no_layer_runs_under_are_left_out() {
    let mut menu = menu("rowwise");
    assign(&mut menu, &["lm_head"], "rowwise_with_gw_hp");
    assign(&mut menu, &["model.*"], "tensorwise");
    let plan = LayerPlan::decide(llama(1, 64, 64, 64, 256), &rule(), Offer::Recipes(&menu));
    assert_eq!(plan.recipes, [choice("tensorwise")]);
    assert!(plan.fp8().all(|layer| layer.recipe == Some(0)));
}

#[test]
fn the_share_counts_each_gemm() {
    let plan = decide(&[layer("a", None, 16, 16), layer("lm_head", None, 16, 16)], &rule());
    assert!((plan.fp8_share() - 2.0 / 6.0).abs() < 1e-12);
    assert_eq!(LayerPlan::default().fp8_share(), 0.0);
}

#[test]
fn without_a_backend_nothing_is_fp8_and_the_plan_says_why() {
    let layers = vec![layer("a", None, 16, 16), layer("lm_head", None, 16, 16)];
    let plan = LayerPlan::decide(layers, &rule(), Offer::Nobody("no FP8 backend"));
    assert_eq!(plan.fp8().count(), 0);
    assert_eq!(reason(&plan, "a"), "no FP8 backend");
    assert!(plan.table().starts_with("0 of 2 linear layers in FP8, 0.0 %"), "{}", plan.table());
}

#[test]
fn layers_that_differ_in_block_or_kind_only_share_a_line() {
    let mut layers = llama(4, 64, 64, 64, 256);
    layers
        .iter_mut()
        .filter(|layer| layer.name.ends_with("2.mlp.up_proj"))
        .for_each(|up| up.in_features = 48);
    assert_eq!(
        decide(&layers, &rule()).table(),
        "\
28 of 29 linear layers in FP8, 58.3 % of their FLOPs

FP8      28 layers   58.3 %   rowwise takes all
        model.layers.{0-3}.self_attn.{q,k,v,o}_proj    16   64 × 64
        model.layers.{0-3}.mlp.{gate,down}_proj         8   64 × 64
        model.layers.{0-1,3}.mlp.up_proj                3   64 × 64
        model.layers.2.mlp.up_proj                      1   64 × 48

high      1 layer    12.6 %   its name contains `lm_head`
        lm_head                                         1  256 × 64
"
    );
}

/// Llama-3.1-8B under a rule that uses everything: one screen of 100 columns.
#[test]
fn the_table_answers_which_layers_and_why_not_the_others_on_one_screen() {
    let mut menu = menu("rowwise");
    assign(&mut menu, &["*.down_proj"], "tensorwise");
    let rule = FilterRule {
        exclude: globs(&["model.layers.{7,9}.*.o_proj"]),
        first: 1,
        last: 2,
        min_gain: MinGain::Torchao,
        ..rule()
    };
    let plan = LayerPlan::decide(llama(32, 4096, 1024, 14336, 128256), &rule, Offer::Recipes(&menu));
    let table = plan.table();
    let expected = "\
143 of 225 linear layers in FP8, 53.7 % of their FLOPs

FP8     114 layers   38.6 %   rowwise takes all
        model.layers.{1-29}.self_attn.q_proj           29    4096 × 4096
        model.layers.{1-6,8,10-29}.self_attn.o_proj    27    4096 × 4096
        model.layers.{1-29}.mlp.{gate,up}_proj         58   14336 × 4096

FP8      29 layers   15.1 %   tensorwise takes all
        model.layers.{1-29}.mlp.down_proj              29    4096 × 14336

high      7 layers    2.9 %   the first block (`first = 1`)
        model.layers.0.*                                7

high     58 layers    3.2 %   `min_gain`, torchao: N = 1024, K = 4096 is too small (N ≤ 2048)
        model.layers.{1-29}.self_attn.{k,v}_proj       58    1024 × 4096

high      2 layers    0.4 %   `exclude` names it: `model.layers.{7,9}.*.o_proj`
        model.layers.{7,9}.self_attn.o_proj             2    4096 × 4096

high     14 layers    5.8 %   one of the last 2 blocks (`last = 2`)
        model.layers.{30-31}.*                         14

high      1 layer     7.0 %   its name contains `lm_head`
        lm_head                                         1  128256 × 4096
";
    assert_eq!(table, expected);
    assert!(table.lines().all(|line| line.chars().count() <= 97));
    // Every name in it is a pattern, and they stand for every layer once.
    let names: Vec<Glob> = table
        .lines()
        .filter(|line| line.starts_with("        "))
        .filter_map(|line| line.split_whitespace().next())
        .filter_map(|name| Glob::new(name).ok())
        .collect();
    for layer in &plan.layers {
        let rows = names.iter().filter(|glob| glob.matches(&layer.facts.name)).count();
        assert_eq!(rows, 1, "{}\n{table}", layer.facts.name);
    }
}
