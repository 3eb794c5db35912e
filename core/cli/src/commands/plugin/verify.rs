//! `fp8flow plugin verify`: whether plugins are still what was installed.

use fp8flow_flow::Class;
use fp8flow_host::package::{self, Verdict};
use fp8flow_host::{HostError, Search};
use serde_json::{Value, json};

use super::{folder, meant};
use crate::failure::Failure;
use crate::screen::Screen;
use crate::table::{self, Cell};

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[1;91m";

pub(super) fn verify(search: &Search, names: &[String], screen: &Screen) -> Result<(), Failure> {
    let folder = folder()?;
    let names: Vec<String> = names.iter().map(|name| meant(name)).collect();
    let verdicts = package::verify(&names, search, &folder);
    let wrong = verdicts.iter().filter(|verdict| verdict.problem.is_some()).count();
    let class = (wrong > 0).then_some(Class::Missing);
    if screen.json() {
        let plugins: Vec<Value> = verdicts.iter().map(object).collect();
        let object = json!({
            "event": "plugin_verified",
            "folder": folder,
            "ok": wrong == 0,
            "exit_code": class.map_or(0, Class::exit_code),
            "plugins": plugins,
        });
        screen.print(object.to_string());
    } else if verdicts.is_empty() {
        screen.print(format!("no plugin is installed in {}", folder.display()));
    } else {
        for line in table::lines(&verdicts.iter().map(row).collect::<Vec<_>>(), "") {
            screen.print(line);
        }
        for verdict in &verdicts {
            let Some(problem) = &verdict.problem else { continue };
            screen.print(format!("\n{}: {problem}", verdict.name));
            // These say it themselves.
            if !matches!(problem, HostError::Altered { .. } | HostError::NotFound { .. }) {
                screen.print(format!("  → {}", advice(verdict, problem)));
            }
        }
    }
    class.map_or(Ok(()), |class| Err(Failure::Said(class)))
}

fn row(verdict: &Verdict) -> Vec<Cell> {
    let (word, colour) = if verdict.problem.is_none() { ("ok", GREEN) } else { ("wrong", RED) };
    let version = verdict.version.as_deref().unwrap_or("?");
    let digest = verdict.digest.map_or_else(|| "?".to_owned(), |digest| digest.short());
    let words = match (&verdict.problem, verdict.held) {
        (None, true) => "as its sidecar says; opens and starts",
        (None, false) => "opens and starts; no sidecar holds it to its bytes",
        (Some(problem), _) => short(problem),
    };
    vec![
        Cell::new(word).colour(colour),
        Cell::new(&verdict.name),
        Cell::new(version),
        Cell::new(digest),
        Cell::new(words),
    ]
}

fn object(verdict: &Verdict) -> Value {
    json!({
        "name": verdict.name,
        "version": verdict.version,
        "path": verdict.path,
        "digest": verdict.digest.map(|digest| digest.to_string()),
        "sidecar": verdict.held,
        "status": if verdict.problem.is_none() { "ok" } else { "wrong" },
        "problem": verdict.problem.as_ref().map(ToString::to_string),
        "advice": verdict.problem.as_ref().map(|problem| advice(verdict, problem)),
    })
}

/// What is wrong, in a few words.
fn short(problem: &HostError) -> &'static str {
    match problem {
        HostError::NotFound { .. } => "not found",
        HostError::Altered { .. } => "altered since it was packed",
        HostError::Package(_) => "its package is damaged",
        HostError::NotAPlugin { .. } => "no whole library of a plugin",
        HostError::Mismatch { .. } => "does not fit this fp8flow",
        HostError::Probe { .. } => "does not survive being opened and started",
        _ => "cannot be used",
    }
}

fn advice(verdict: &Verdict, problem: &HostError) -> String {
    let name = &verdict.name;
    match problem {
        HostError::NotFound { .. } => "Look at what there is with `fp8flow plugin list`.".into(),
        HostError::Altered { .. } | HostError::Package(_) | HostError::NotAPlugin { .. } => {
            "Get the package again and install it with `fp8flow plugin install PACKAGE --replace`.".into()
        }
        HostError::Mismatch { .. } => format!(
            "Get a `{name}` that is built for this fp8flow, or build it again, and install it with --replace."
        ),
        _ => format!("Report it to whoever made `{name}`; `fp8flow plugin remove {name}` takes it away."),
    }
}
