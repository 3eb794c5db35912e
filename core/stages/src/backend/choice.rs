//! Which plugin a workflow means: by name, by path, or the first that is there and has the recipe.

use std::fmt::Write as _;
use std::path::Path;

use fp8flow_flow::Class;
use fp8flow_host::{Found, HostError, Plugin, SHIPPED, Search};
use fp8flow_sdk::Host;

use crate::failure::host_class;

/// A plugin, and how it was chosen where the workflow left that open.
pub(super) struct Chosen {
    pub(super) plugin: Plugin,
    pub(super) how: Option<How>,
}

/// How `auto` came to its choice.
pub(super) struct How {
    pub(super) why: String,
    passed: Vec<Passed>,
}

/// A plugin that `auto` would have taken, were it not for this.
struct Passed {
    name: String,
    why: Why,
}

enum Why {
    /// No place has it: what was searched.
    NotInstalled(String),
    /// It has other recipes.
    NoSuchRecipe(String),
    /// It is there, but does not come through the doors.
    Refused(Class, String),
}

/// Why there is no plugin to use.
pub(super) struct Unavailable {
    /// The key to point at.
    pub(super) key: &'static str,
    pub(super) class: Class,
    /// A title, and more on further lines.
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// Finds and opens the plugin that `name` means to a workflow in `folder` which wants `recipe`.
pub(super) fn choose(
    search: &Search,
    host: &Host,
    name: &str,
    recipe: Option<&str>,
    folder: &Path,
) -> Result<Chosen, Unavailable> {
    if name == "auto" {
        return auto(search, host, recipe, SHIPPED);
    }
    // A path is one, and relative to the workflow; a bare word is a name.
    let path = folder.join(name);
    let wanted = if name.contains('/') { path.to_string_lossy() } else { name.into() };
    let plugin = search.find(&wanted).and_then(|found| found.open(host)).map_err(|error| Unavailable {
        key: "plugin",
        class: host_class(&error),
        message: error.to_string(),
        help: None,
    })?;
    Ok(Chosen { plugin, how: None })
}

fn auto(search: &Search, host: &Host, recipe: Option<&str>, names: [&str; 2]) -> Result<Chosen, Unavailable> {
    let mut passed: Vec<Passed> = Vec::new();
    for (i, name) in names.into_iter().enumerate() {
        let why = match search.find(name) {
            Ok(found) => match try_out(&found, host, recipe) {
                Ok(plugin) => {
                    let why = match (recipe, i) {
                        (None, 0) => "it comes first".into(),
                        (None, _) => format!("{} cannot be used", names[0]),
                        (Some(recipe), 0) => format!("it comes first and has the recipe `{recipe}`"),
                        (Some(recipe), _) => format!("it is the first with the recipe `{recipe}`"),
                    };
                    return Ok(Chosen { plugin, how: Some(How { why, passed }) });
                }
                Err(why) => why,
            },
            Err(HostError::NotFound { trace, .. }) => Why::NotInstalled(trace.to_string()),
            Err(error) => Why::Refused(host_class(&error), error.to_string()),
        };
        passed.push(Passed { name: name.into(), why });
    }
    let Some(recipe) = recipe else { return Err(nothing_installed(&passed)) };
    let similar = match search.find_recipe(recipe) {
        Ok(found) if !names.contains(&found.name()) => match try_out(&found, host, Some(recipe)) {
            Ok(plugin) => {
                let why = format!("it is the only one with the recipe `{recipe}`");
                return Ok(Chosen { plugin, how: Some(How { why, passed }) });
            }
            Err(why) => {
                passed.push(Passed { name: found.name().into(), why });
                None
            }
        },
        Err(error @ HostError::Undecided { .. }) => {
            return Err(Unavailable {
                key: "plugin",
                class: Class::Invalid,
                message: error.to_string(),
                help: Some("Write the plugin's name.".into()),
            });
        }
        Err(HostError::NoSuchRecipe { similar, .. }) => similar.filter(|similar| similar != recipe),
        _ => None,
    };
    Err(no_such_recipe(search, recipe, similar, &passed))
}

fn try_out(found: &Found, host: &Host, recipe: Option<&str>) -> Result<Plugin, Why> {
    let recipes = &found.manifest.recipes;
    if recipe.is_some_and(|recipe| !recipes.iter().any(|name| name == recipe)) {
        return Err(Why::NoSuchRecipe(recipes.join(", ")));
    }
    found.open(host).map_err(|error| Why::Refused(host_class(&error), error.to_string()))
}

/// Neither of the plugins that come with fp8flow can be used.
fn nothing_installed(passed: &[Passed]) -> Unavailable {
    Unavailable {
        key: "plugin",
        class: worst(passed),
        message: format!("no FP8 backend is available: {}\n{}", short(passed), long(passed)),
        help: Some(HOW_TO_GET.into()),
    }
}

/// No plugin has the recipe. A slip of the pen is the workflow's fault, a plugin that is not there the machine's.
fn no_such_recipe(search: &Search, recipe: &str, similar: Option<String>, passed: &[Passed]) -> Unavailable {
    let mut installed = String::new();
    for listed in search.list().plugins.iter().filter(|listed| listed.shadowed_by.is_none()) {
        let manifest = &listed.found.manifest;
        let _ = write!(installed, "\n  {}: {}", manifest.name, manifest.recipes.join(", "));
    }
    if installed.is_empty() {
        return Unavailable { key: "recipe", ..nothing_installed(passed) };
    }
    let unusable = || passed.iter().filter(|passed| !matches!(passed.why, Why::NoSuchRecipe(_)));
    let missing = unusable().next().is_some();
    let more = if missing {
        format!("\nnot available: {}\n{}", short(unusable()), long(passed))
    } else {
        String::new()
    };
    Unavailable {
        key: "recipe",
        class: if missing && similar.is_none() { worst(passed) } else { Class::Invalid },
        message: format!(
            "no plugin that can be used has a recipe `{recipe}`\ninstalled are, with their recipes:{installed}{more}"
        ),
        help: match similar {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None => missing.then(|| HOW_TO_GET.into()),
        },
    }
}

const HOW_TO_GET: &str = "`cargo build --release` in the sources of fp8flow builds both plugins beside the program; name \
    other places with --plugin-path or FP8FLOW_PLUGIN_PATH. To train without FP8, say `plugin = \"none\"`.";

/// The class of a choice that came to nothing: a plugin's bug is no missing plugin.
fn worst(passed: &[Passed]) -> Class {
    let refused = passed.iter().filter_map(|passed| match passed.why {
        Why::Refused(class, _) if class != Class::Missing => Some(class),
        _ => None,
    });
    refused.min_by_key(|class| *class != Class::Bug).unwrap_or(Class::Missing)
}

/// All that was passed over in one line.
fn short<'a>(passed: impl IntoIterator<Item = &'a Passed>) -> String {
    passed.into_iter().map(Passed::short).collect::<Vec<_>>().join(", ")
}

/// Refusals in full, and the places that were searched.
fn long(passed: &[Passed]) -> String {
    let refusals = passed.iter().filter_map(|passed| match &passed.why {
        Why::Refused(_, message) => Some(message.clone()),
        _ => None,
    });
    let places = passed.iter().find_map(|passed| match &passed.why {
        Why::NotInstalled(trace) => {
            Some(format!("{} was looked for in these places, in this order:\n{trace}", passed.name))
        }
        _ => None,
    });
    refusals.chain(places).collect::<Vec<_>>().join("\n")
}

impl Passed {
    fn short(&self) -> String {
        let Self { name, why } = self;
        match why {
            Why::NotInstalled(_) => format!("{name} is not installed"),
            Why::NoSuchRecipe(recipes) => format!("{name} has other recipes ({recipes})"),
            Why::Refused(..) => format!("{name} is refused"),
        }
    }
}

impl How {
    /// One line on each plugin that was passed over.
    pub(super) fn passed_over(&self) -> Vec<String> {
        self.passed.iter().map(Passed::short).collect()
    }

    /// Why plugins that are there were not taken although they come first.
    pub(super) fn refused(&self) -> impl Iterator<Item = &str> {
        self.passed.iter().filter_map(|passed| match &passed.why {
            Why::Refused(_, message) => Some(message.as_str()),
            _ => None,
        })
    }

    /// For the plan.
    pub(super) fn text(&self, chosen: &str) -> String {
        let mut text = format!("auto: {chosen}, because {}", self.why);
        for passed in &self.passed {
            let _ = write!(text, "\n  passed over: {}", passed.short());
            if let Why::NotInstalled(trace) = &passed.why {
                let _ = write!(text, "; it was looked for in\n  {}", trace.replace('\n', "\n  "));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use fp8flow_host::{Origin, Place, Pool, Services};
    use fp8flow_kernels::Isa;

    use super::*;

    /// The second is a plugin that the tests have, with one recipe of its name.
    const NAMES: [&str; 2] = ["torchao-rowwise", "faulty"];

    /// A folder with copies of these libraries, as Cargo has built them beside the tests.
    fn folder(plugins: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let built = std::env::current_exe().expect("a path");
        for plugin in plugins {
            let name = format!("lib{}.so", plugin.replace('-', "_"));
            std::fs::copy(built.with_file_name(&name), folder.path().join(&name))
                .expect("Cargo has built it");
        }
        folder
    }

    /// The choice among the plugins of `folder`: name, why, and what was passed over; or what is wrong.
    fn choice(folder: &Path, recipe: Option<&str>, names: [&str; 2]) -> Result<(String, How), Unavailable> {
        let place = |path: PathBuf| Place { origin: Origin::CommandLine, path };
        let search = Search::in_places(vec![place("/nowhere".into()), place(folder.into())]);
        let pool = Arc::new(Pool::new(1).expect("a thread"));
        let host = Services::new(Isa::best(), pool, Arc::default()).host();
        let Chosen { plugin, how } = auto(&search, &host, recipe, names)?;
        Ok((plugin.name().to_owned(), how.expect("auto says how")))
    }

    fn chosen(plugins: &[&str], recipe: Option<&str>, names: [&str; 2]) -> (String, How) {
        let folder = folder(plugins);
        choice(folder.path(), recipe, names).unwrap_or_else(|error| panic!("{}", error.message))
    }

    fn refused(folder: &Path, recipe: Option<&str>) -> Unavailable {
        choice(folder, recipe, NAMES).err().expect("there is nothing to choose")
    }

    #[test]
    fn the_first_comes_first() {
        let (name, how) = chosen(&NAMES, None, NAMES);
        assert_eq!((name.as_str(), how.why.as_str()), ("torchao-rowwise", "it comes first"));
        assert!(how.passed_over().is_empty());
        let (name, how) = chosen(&NAMES, Some("tensorwise"), NAMES);
        assert_eq!(name, "torchao-rowwise");
        assert_eq!(how.why, "it comes first and has the recipe `tensorwise`");
    }

    #[test]
    fn the_second_stands_in_for_one_that_is_not_installed() {
        let (name, how) = chosen(&["faulty"], None, NAMES);
        assert_eq!((name.as_str(), how.why.as_str()), ("faulty", "torchao-rowwise cannot be used"));
        assert_eq!(how.passed_over(), ["torchao-rowwise is not installed"]);
        let text = how.text(&name);
        assert!(
            text.contains(
                "passed over: torchao-rowwise is not installed; it was looked for in\n    /nowhere (the command line): does not exist"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_recipe_leads_to_the_plugin_that_has_it() {
        let (name, how) = chosen(&NAMES, Some("faulty"), NAMES);
        assert_eq!((name.as_str(), how.why.as_str()), ("faulty", "it is the first with the recipe `faulty`"));
        let other = "torchao-rowwise has other recipes (rowwise, tensorwise, rowwise_with_gw_hp)";
        assert_eq!(how.passed_over(), [other]);
        assert_eq!(how.refused().count(), 0);
        // One that does not come with fp8flow, too.
        let (name, how) = chosen(&NAMES, Some("faulty"), SHIPPED);
        assert_eq!(
            (name.as_str(), how.why.as_str()),
            ("faulty", "it is the only one with the recipe `faulty`")
        );
        assert_eq!(how.passed_over(), [other, "transformer-engine-hybrid is not installed"]);
    }

    #[test]
    fn one_that_is_refused_is_passed_over_aloud() {
        let folder = folder(&["faulty"]);
        damaged(folder.path());
        let (name, how) =
            choice(folder.path(), None, NAMES).unwrap_or_else(|error| panic!("{}", error.message));
        assert_eq!(name, "faulty");
        assert_eq!(how.passed_over(), ["torchao-rowwise is refused"]);
        let refused: Vec<&str> = how.refused().collect();
        assert!(refused.len() == 1 && refused[0].contains("panic"), "{refused:?}");
    }

    /// Puts a torchao-rowwise into `folder` that was built with another panic strategy.
    fn damaged(folder: &Path) {
        let source = std::env::current_exe().expect("a path").with_file_name("libtorchao_rowwise.so");
        let mut bytes = std::fs::read(source).expect("Cargo has built it");
        let (from, to) = (b"\"panic\":\"unwind\"", b"\"panic\":\"aborts\"");
        let mut at = 0;
        while let Some(next) = bytes[at..].windows(from.len()).position(|window| window == from) {
            at += next;
            bytes[at..at + to.len()].copy_from_slice(to);
        }
        std::fs::write(folder.join("libtorchao_rowwise.so"), bytes).expect("written");
    }

    #[test]
    fn nothing_to_choose_from_says_where_and_how_to_get_it() {
        let empty = folder(&[]);
        let error = refused(empty.path(), None);
        assert_eq!((error.class, error.key), (Class::Missing, "plugin"));
        let expected = "no FP8 backend is available: torchao-rowwise is not installed, faulty is not installed\n\
                        torchao-rowwise was looked for in these places, in this order:\n  /nowhere";
        assert!(error.message.starts_with(expected), "{}", error.message);
        assert!(error.help.is_some_and(|help| help.contains("cargo build --release")));

        damaged(empty.path());
        let error = refused(empty.path(), Some("rowwise"));
        assert_eq!(error.class, Class::Missing);
        assert!(
            error.message.contains("is refused") && error.message.contains("`torchao-rowwise` ("),
            "{}",
            error.message
        );
    }

    #[test]
    fn a_recipe_that_is_nowhere_is_a_slip_or_a_missing_plugin() {
        let only = folder(&["torchao-rowwise"]);
        let slip = refused(only.path(), Some("rowise"));
        assert_eq!((slip.class, slip.key), (Class::Invalid, "recipe"));
        assert_eq!(slip.help.as_deref(), Some("did you mean `rowwise`?"));
        let missing = refused(only.path(), Some("delayed"));
        assert_eq!((missing.class, missing.key), (Class::Missing, "recipe"));
        for words in [
            "has a recipe `delayed`",
            "torchao-rowwise: rowwise, tensorwise",
            "not available: faulty is not installed",
        ] {
            assert!(missing.message.contains(words), "no `{words}` in\n{}", missing.message);
        }
        // With all that there is installed, it is the workflow that is wrong.
        assert_eq!(refused(folder(&NAMES).path(), Some("delayed")).class, Class::Invalid);
    }
}
