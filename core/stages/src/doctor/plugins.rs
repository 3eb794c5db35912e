//! The plugins that are found, and whether their recipes compute what they should.

use fp8flow_host::{Found, Listed, Plugin, Search, check_options};
use serde_json::{Map, json};

use super::Question;
use super::row::{Group, Row, Status};
use super::trial::{Trial, trials};
use crate::RecipeChoice;

/// The shares of a plugin's digest that people compare.
const REBUILD: &str = "Rebuild it, or take it out of the places that are searched.";

pub(super) fn rows(search: &Search, question: &Question<'_>) -> Vec<Row> {
    let listing = search.list();
    let mut rows: Vec<Row> = listing.plugins.iter().flat_map(|listed| plugin(listed, question)).collect();
    for (path, reason) in &listing.damaged {
        let name = path.file_name().unwrap_or(path.as_os_str()).display().to_string();
        rows.push(
            Row::new(Group::Plugins, name, Status::Warn, reason.clone())
                .place(path.display().to_string())
                .advice(REBUILD),
        );
    }
    if listing.plugins.is_empty() {
        let places = format!("none in {} places", listing.trace.0.len());
        let advice = "Install a plugin with `fp8flow plugin install`, or name its library with --plugin-path or FP8FLOW_PLUGIN_PATH; \
                      `fp8flow plugin list` shows the places.";
        let searched: Vec<_> = listing.trace.0.iter().map(|step| step.place.to_string()).collect();
        let row = Row::new(Group::Plugins, "plugins", Status::Fail, places).advice(advice);
        rows.push(row.facts(json!({ "places": searched })));
    }
    rows
}

/// A plugin and its recipes.
fn plugin(listed: &Listed, question: &Question<'_>) -> Vec<Row> {
    let found = &listed.found;
    if let Some(first) = &listed.shadowed_by {
        let row = row(found, Status::Warn, format!("not used: {} comes first", first.display()));
        return vec![row.advice("Remove one of the two, or name the one you mean by its path.")];
    }
    if let Some(twin) = &listed.conflicts_with {
        let row = row(found, Status::Fail, format!("{} has the same name", twin.display()));
        return vec![row.advice("Remove one of the two, or name the one you mean by its path.")];
    }
    let opened = match found.open(&question.engine.host) {
        Ok(opened) => opened,
        Err(error) => return vec![row(found, Status::Fail, error.to_string()).advice(REBUILD)],
    };
    let choices = defaults(&opened);
    let names: Vec<String> = choices.iter().map(|choice| choice.recipe.clone()).collect();
    match trials(found, choices, question) {
        Ok(trials) => {
            let digest = found.digest.short();
            let mut rows =
                vec![row(found, Status::Ok, format!("{}, blake3 {digest}", found.manifest.version))];
            rows.extend(trials.iter().map(|trial| recipe(found.name(), trial)));
            rows
        }
        Err(failure) => vec![row(found, Status::Fail, failure).advice(REBUILD).facts(facts(found, &names))],
    }
}

fn row(found: &Found, status: Status, words: String) -> Row {
    Row::new(Group::Plugins, found.name(), status, words)
        .place(found.path.display().to_string())
        .facts(facts(found, &found.manifest.recipes))
}

fn facts(found: &Found, recipes: &[String]) -> serde_json::Value {
    json!({
        "plugin": found.name(),
        "version": found.manifest.version,
        "path": found.path,
        "digest": found.digest.to_string(),
        "recipes": recipes,
    })
}

/// Every recipe with its own defaults.
fn defaults(plugin: &Plugin) -> Vec<RecipeChoice> {
    let choice = |info| {
        // A recipe's own defaults were held against its own table when the plugin was loaded.
        let options = check_options(info, &Map::new()).unwrap_or_default();
        RecipeChoice { recipe: info.name.clone(), options }
    };
    plugin.recipes().iter().map(choice).collect()
}

/// A recipe at work.
pub(super) fn recipe(plugin: &str, trial: &Trial) -> Row {
    let facts = json!({ "plugin": plugin, "recipe": trial.recipe, "trial": trial });
    let row = |status, found: String| {
        Row::new(Group::Plugins, format!("{plugin}/{}", trial.recipe), status, found).facts(facts.clone())
    };
    match &trial.problem {
        None => row(Status::Ok, measured(trial)),
        Some(problem) => {
            row(Status::Fail, problem.clone()).advice("Do not train with it: report this to its author.")
        }
    }
}

/// What a trial has shown, in words.
pub(super) fn measured(trial: &Trial) -> String {
    let ran = trial.micro_batches;
    let [fprop, dgrad, wgrad] = trial.counted;
    let roles = [("y", fprop), ("dx", dgrad), ("dW", wgrad)];
    let fp8: Vec<&str> = roles.iter().filter(|(_, count)| *count == ran).map(|(name, _)| *name).collect();
    let card = trial.card_db.map_or(String::new(), |db| {
        let least = db.into_iter().flatten().fold(f64::INFINITY, f64::min);
        if least.is_finite() {
            format!("; on the card {least:.0} dB from that")
        } else {
            "; on the card the same".into()
        }
    });
    format!("{} from exact; {} in FP8{card}", trial.words, fp8.join(", "))
}
