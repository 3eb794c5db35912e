//! The keys of `layers.filter`, and what is wrong with them for a model.

use fp8flow_flow::{Field, Kind, Params, PlanCx};
use fp8flow_sdk::LayerFacts;
use serde_json::{Map, Value, json};

use crate::gain::{self, MinGain};
use crate::glob::Glob;
use crate::layer_plan::{FilterRule, Menu};

/// The keys.
pub(super) fn fields() -> Vec<Field> {
    let words = Kind::Choice(&["off", "torchao"]);
    vec![
        Field::edge("model", &[super::MODEL]).about("The model."),
        Field::strings("skip")
            .default(json!(["embed", "lm_head", "output", "classifier"]))
            .about("Layers whose name contains one of these words, in any case, stay in high precision."),
        Field::integer("multiple_of", 1..)
            .default(16)
            .about("Both dimensions of a layer's weight must be multiples of this."),
        Field::strings("include").default(json!([])).about(
            "Only layers with these names: patterns such as `*.mlp.*`, `*.{q,k}_proj`, `model.layers.{0-3}.*`. \
             Empty: all.",
        ),
        Field::strings("exclude")
            .default(json!([]))
            .about("Layers with these names stay in high precision; patterns as in `include`, and stronger."),
        Field::integer("first", 0..).default(0).about("So many first blocks stay in high precision."),
        Field::integer("last", 0..).default(0).about("So many last blocks stay in high precision."),
        Field::new("min_gain", Kind::Either(vec![words, Kind::number(0.0..)])).default("off").about(
            "How large a layer must be: `torchao` for its thresholds, or the least predicted speedup of the layer's \
             three GEMMs on an H100, casts included.",
        ),
        Field::integer("tokens", 1..)
            .optional("8192")
            .about("Tokens of a micro-batch that `min_gain` predicts for."),
        Field::tables(
            "recipes",
            vec![
                Field::new("layers", Kind::list(Kind::Text, 1..))
                    .about("Patterns as in `include`. Where several entries name a layer, the last counts."),
                Field::text("recipe").optional("the backend's").about("Another recipe of the same plugin."),
                Field::free("options").about(
                    "Its options. Without `recipe` they are laid over those of the backend, else over the recipe's \
                     defaults.",
                ),
            ],
        )
        .about("Layers that run under another recipe, or with other options."),
    ]
}

/// An entry of `recipes`.
pub(super) struct Entry {
    pub(super) layers: Vec<Glob>,
    pub(super) recipe: Option<String>,
    pub(super) options: Map<String, Value>,
}

/// The keys, read.
pub(super) struct Settings {
    pub(super) rule: FilterRule,
    pub(super) entries: Vec<Entry>,
    pub(super) tokens: Option<usize>,
}

/// A key and what is wrong with it.
type Problem = (String, String);

impl Settings {
    /// Reads the keys, or says which patterns are none.
    pub(super) fn read(params: &Params) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut globs = |key: &str, texts: Vec<&str>| -> Vec<Glob> {
            let glob = |(i, text): (usize, &str)| match Glob::new(text) {
                Ok(glob) => Some(glob),
                Err(problem) => {
                    problems.push((format!("{key}.{i}"), format!("`{text}` is no pattern: {problem}")));
                    None
                }
            };
            texts.into_iter().enumerate().filter_map(glob).collect()
        };
        let rule = FilterRule {
            skip: params.get("skip"),
            multiple_of: params.get("multiple_of"),
            include: globs("include", params.get("include")),
            exclude: globs("exclude", params.get("exclude")),
            first: params.get("first"),
            last: params.get("last"),
            min_gain: match params.get::<&Value>("min_gain") {
                Value::String(word) if word == "torchao" => MinGain::Torchao,
                Value::Number(least) => least.as_f64().map_or(MinGain::Off, MinGain::AtLeast),
                _ => MinGain::Off,
            },
        };
        let tables: Vec<Params> = params.get("recipes");
        let entries = tables.iter().enumerate().map(|(i, entry)| Entry {
            layers: globs(&format!("recipes.{i}.layers"), entry.get("layers")),
            recipe: entry.get("recipe"),
            options: entry.get::<&Value>("options").as_object().cloned().unwrap_or_default(),
        });
        let entries = entries.collect();
        if problems.is_empty() {
            Ok(Self { rule, entries, tokens: params.get("tokens") })
        } else {
            Err(problems)
        }
    }

    /// What the speedups that `min_gain` predicts are for, as lines of the plan.
    pub(super) fn prediction(&self) -> String {
        let MinGain::AtLeast(_) = self.rule.min_gain else { return String::new() };
        let m = self.tokens.unwrap_or(gain::ASSUMED_TOKENS);
        let assumed = if self.tokens.is_none() { " (assumed: see `tokens`)" } else { "" };
        format!("\nspeedups: predicted for M = {m} tokens a micro-batch{assumed} on an {}", gain::CARD)
    }

    /// Objects to patterns that stand for none of `layers`, and to more blocks than there are.
    pub(super) fn check_layers(&self, cx: &mut PlanCx<'_>, layers: &[LayerFacts]) {
        let entries = self.entries.iter().enumerate();
        let lists = [("include".to_owned(), &self.rule.include), ("exclude".to_owned(), &self.rule.exclude)]
            .into_iter()
            .chain(entries.map(|(i, entry)| (format!("recipes.{i}.layers"), &entry.layers)));
        for (key, globs) in lists {
            for (i, glob) in globs.iter().enumerate() {
                if layers.iter().any(|layer| glob.matches(&layer.name)) {
                    continue;
                }
                cx.error(&format!("{key}.{i}"), format!("`{glob}` matches no linear layer"))
                    .label("a pattern stands for whole names; `*` crosses dots")
                    .help(format!("The layers are called {}.", names(layers)))
                    .did_you_mean(&glob.to_string(), candidates(layers));
            }
        }
        let blocks = layers.iter().filter_map(|layer| layer.block).max().map_or(0, |last| last + 1);
        for (key, n) in [("first", self.rule.first), ("last", self.rule.last)] {
            if n > blocks {
                cx.error(key, format!("`{key}` is {n}, but the model has {blocks} blocks"));
            }
        }
    }

    /// Objects to a `min_gain` that nobody has worked out for the recipes in use, and warns of entries without effect.
    pub(super) fn check_menu(&self, cx: &mut PlanCx<'_>, layers: &[LayerFacts], menu: &Menu) {
        let mut used: Vec<usize> = layers.iter().map(|layer| menu.number_of(&layer.name)).collect();
        used.sort_unstable();
        used.dedup();
        for recipe in used.iter().map(|&number| menu.choices()[number].recipe.as_str()) {
            let known = match self.rule.min_gain {
                MinGain::Off => true,
                MinGain::Torchao => gain::torchao_refuses(recipe, 1, 1).is_ok(),
                MinGain::AtLeast(_) => gain::predicted(recipe, 1, 1, 1).is_ok(),
            };
            if known {
                continue;
            }
            if self.rule.min_gain == MinGain::Torchao {
                cx.error("min_gain", format!("torchao publishes no thresholds for recipe `{recipe}`"))
                    .help("It has some for `rowwise` and `tensorwise`. Write the least predicted speedup instead, such as 1.1.");
            } else {
                cx.error(
                    "min_gain",
                    format!("there is no formula to predict the speedup of recipe `{recipe}`"),
                )
                .help(format!(
                    "There are some for {}. Name layers with `exclude` instead.",
                    gain::MODELLED.join(", ")
                ));
            }
        }
        for (i, entry) in self.entries.iter().enumerate() {
            let later = &self.entries[i + 1..];
            let overruled =
                |name: &str| later.iter().flat_map(|entry| &entry.layers).any(|glob| glob.matches(name));
            let own = layers.iter().filter(|layer| entry.layers.iter().any(|glob| glob.matches(&layer.name)));
            if own.map(|layer| layer.name.as_str()).all(overruled) {
                cx.warning(&format!("recipes.{i}.layers"), "later entries name all of these layers")
                    .label("this entry has no effect");
            }
        }
    }
}

/// The names of the layers, blocks left out.
fn names(layers: &[LayerFacts]) -> String {
    let mut names: Vec<String> = layers.iter().map(any_block).map(|name| format!("`{name}`")).collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names.join(", ")
}

/// `model.layers.7.mlp.up_proj` as `model.layers.*.mlp.up_proj`.
fn any_block(layer: &LayerFacts) -> String {
    match layer.block {
        Some(block) => layer.name.replacen(&format!(".{block}."), ".*.", 1),
        None => layer.name.clone(),
    }
}

/// Patterns that a person may have meant, the general ones first: `*.up_proj`, `*.mlp.up_proj`, …, and the names.
fn candidates(layers: &[LayerFacts]) -> Vec<String> {
    let mut candidates: Vec<String> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut add = |candidate: String| {
        if seen.insert(candidate.clone()) {
            candidates.push(candidate);
        }
    };
    for layer in layers {
        let name = any_block(layer);
        let tails = name.match_indices('.').map(|(dot, _)| format!("*{}", &name[dot..]));
        tails.collect::<Vec<_>>().into_iter().rev().for_each(&mut add);
        add(name);
    }
    for layer in layers {
        add(layer.name.clone());
    }
    candidates
}
