//! The child: opens the plugin and runs the suite on it.

use std::path::{Path, PathBuf};

use fp8flow_host::{Found, HostError, Origin, Place, Plugin, Search, probe};
use fp8flow_sdk::kernels::Isa;
use fp8flow_sdk::{Error, ErrorKind, Host, Kernels, Options, Recipe, RecipeInfo, Result};
use fp8flow_testkit::{Outcome, Progress, Started, Tested, run_on};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::examined::{Examined, Line};

/// Asks the child.
pub(super) const VARIABLE: &str = "FP8FLOW_PROBE_CONFORMANCE";

/// What is to be tried.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// The plugin's library.
    pub(super) path: PathBuf,
    /// Checks that were done before.
    pub(super) skip: usize,
}

/// In the child, runs the suite and exits; otherwise does nothing.
pub fn run_if_child() {
    probe::answer(VARIABLE, |task| {
        fp8flow_testkit::surroundings::remember();
        let Ok(task) = serde_json::from_str::<Task>(&task.to_string_lossy()) else { return };
        match FromFile::open(&task.path) {
            Ok(library) => run_on(&library, task.skip, &mut |progress| say(&progress.into())),
            Err(error) => say(&Line::Refused { message: error.to_string() }),
        }
    });
}

fn say(line: &Line) {
    probe::say(&json!(line).to_string());
}

impl From<Progress> for Line {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Begun { check, subject } => Self::Begun { check: check.to_owned(), subject },
            Progress::Ended(Outcome { check, subject, result }) => {
                let passed = result.is_ok();
                let (Ok(message) | Err(message)) = result;
                Self::Ended(Examined { check: check.to_owned(), subject, passed, message })
            }
        }
    }
}

/// A plugin's library, for the suite.
struct FromFile {
    found: Found,
    recipes: Vec<RecipeInfo>,
}

impl FromFile {
    fn open(path: &Path) -> std::result::Result<Self, HostError> {
        let place = Place { origin: Origin::Path, path: path.to_owned() };
        let found = Search::in_places(vec![place]).find(&path.to_string_lossy())?;
        let recipes = found.open(&fp8flow_testkit::host(Isa::best(), 1))?.recipes().to_vec();
        Ok(Self { found, recipes })
    }
}

impl Tested for FromFile {
    fn recipes(&self) -> Result<Vec<RecipeInfo>> {
        Ok(self.recipes.clone())
    }

    fn start(&self, host: &Host) -> Result<Box<dyn Started>> {
        Ok(Box::new(Opened(self.found.open(host).map_err(plain)?)))
    }
}

struct Opened(Plugin);

impl Started for Opened {
    fn recipe(&self, host: &Host, name: &str, options: &Options) -> Result<Box<dyn Recipe>> {
        self.0.any_recipe(host, name, options)
    }

    fn kernels(&self, _: &Host) -> Result<Option<Box<dyn Kernels>>> {
        self.0.kernels().map_err(plain)
    }
}

/// The error of the plugin itself, where it is one.
fn plain(error: HostError) -> Error {
    match error {
        HostError::Call(error) => error,
        other => Error::new(ErrorKind::Internal, other.to_string()),
    }
}
