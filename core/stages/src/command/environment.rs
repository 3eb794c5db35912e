//! What the program sees of the environment: what is named, what is set, and nothing else.

use std::ffi::{OsStr, OsString};

use fp8flow_flow::{Params, PlanCx};
use serde_json::{Map, Value};

/// The path of the JSON that describes what is given to the program.
pub(super) const STAGE: &str = "FP8FLOW_STAGE";

/// The number of the file descriptor for metrics.
pub(super) const METRICS_FD: &str = "FP8FLOW_METRICS_FD";

/// The same as a path, for programs that open files only.
pub(super) const METRICS: &str = "FP8FLOW_METRICS";

/// What variables begin with that are the engine's.
const OWN: &str = "FP8FLOW_";

/// Objects to names that no variable can have, and to those of the engine.
pub(super) fn check(cx: &mut PlanCx<'_>) {
    for (i, name) in cx.params().get::<Vec<String>>("env").iter().enumerate() {
        check_name(cx, &format!("env.{i}"), name);
    }
    for (name, value) in cx.params().get::<Value>("set").as_object().into_iter().flatten() {
        let key = format!("set.{name}");
        check_name(cx, &key, name);
        if value.as_str().is_some_and(|value| value.contains('\0')) {
            cx.error(&key, format!("the value of {name} holds a zero byte"));
        }
    }
}

fn check_name(cx: &mut PlanCx<'_>, key: &str, name: &str) {
    if name.is_empty() || name.contains(['=', '\0']) {
        cx.error(key, format!("`{}` cannot be a variable of the environment", name.escape_debug()));
    } else if name.starts_with(OWN) {
        cx.error(key, format!("`{name}` is the engine's own variable"))
            .help("Give the program what it needs in `params` or `argv`.");
    }
}

/// The variables that the program sees, beside the engine's; `ours` gives those of this process.
pub(super) fn of(params: &Params, ours: impl Fn(&str) -> Option<OsString>) -> Vec<(String, OsString)> {
    let set: &Value = params.get("set");
    let none = Map::new();
    let set = set.as_object().unwrap_or(&none);
    let named = params.get::<Vec<&str>>("env").into_iter().filter(|name| !set.contains_key(*name));
    let named = named.filter_map(|name| Some((name.to_owned(), ours(name)?)));
    let set = set.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.into())));
    named.chain(set).collect()
}

/// Where its program is looked for: its own PATH, or that of this process where it is given none.
pub(super) fn search(params: &Params) -> Option<OsString> {
    let own = of(params, |name| std::env::var_os(name)).into_iter().find(|(name, _)| name == "PATH");
    own.map(|(_, path)| path).or_else(|| std::env::var_os("PATH")).filter(|path| path != OsStr::new(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_named_and_set_is_seen() {
        let params = json!({ "env": ["HOME", "ABSENT", "LANG"], "set": { "LANG": "C", "X": "1" } });
        let ours = |name: &str| (name != "ABSENT").then(|| OsString::from(format!("our {name}")));
        let seen = of(&Params::new(params, "/"), ours);
        let expected = [("HOME", "our HOME"), ("LANG", "C"), ("X", "1")];
        assert_eq!(seen, expected.map(|(name, value)| (name.to_owned(), value.into())));
    }
}
