//! A kind of stage or of section, and the registry that holds them. The engine knows none by name.

use std::path::Path;

use serde_json::Value;

use crate::context::StageCx;
use crate::{Difference, Extent, Field, Outcome, Params, PlanCx, Redone, StageError, Threads, Tier};

/// A kind of stage: what may be written, what it makes, how it is planned and run.
///
/// ```
/// use fp8flow_flow::{Field, Outcome, PlanCx, Planned, StageCx, StageError, StageKind};
/// use serde_json::json;
///
/// struct Count;
///
/// impl StageKind for Count {
///     fn name(&self) -> &'static str { "text.count" }
///     fn about(&self) -> &'static str { "Counts the lines of a text file." }
///     fn produces(&self) -> &'static str { "count" }
///     fn fields(&self) -> Vec<Field> {
///         vec![
///             Field::existing_path("path").about("The file."),
///             Field::bool("empty").default(true).about("Whether empty lines count."),
///         ]
///     }
///     fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
///         let path: std::path::PathBuf = cx.params().get("path");
///         let text = std::fs::read_to_string(&path).map_err(|e| StageError::io(&path, e))?;
///         let empty: bool = cx.params().get("empty");
///         let lines = text.lines().filter(|line| empty || !line.is_empty()).count();
///         Ok(Outcome::new(json!({ "lines": lines })).read([path]).summary(format!("{lines} lines")))
///     }
/// }
/// ```
pub trait StageKind: Send + Sync {
    /// The word after `uses`, a family and a verb: `data.load`.
    fn name(&self) -> &'static str;

    /// One sentence on what it does.
    fn about(&self) -> &'static str;

    /// The kind of its artifact; edges name the kinds they take.
    fn produces(&self) -> &'static str;

    /// Its keys.
    fn fields(&self) -> Vec<Field>;

    /// Looks at everything that can be known before any work: checks what the field table cannot say (reporting each
    /// objection with [`PlanCx::error`]), and returns facts for the stages downstream and lines for `fp8flow plan`.
    ///
    /// Called only where every key has a valid value. Must be quick (headers, not contents) and change nothing.
    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let _ = cx;
        Planned::default()
    }

    /// The number of its code: raised whenever another result comes of the same values and files, so that what earlier
    /// versions made is not taken for what this one would make.
    fn revision(&self) -> u32 {
        1
    }

    /// What is promised about the bytes of its result, as far as it is up to this stage.
    fn tier(&self) -> Tier {
        Tier::Portable
    }

    /// How many of the threads it keeps busy with these values: what is left is for stages beside it.
    fn threads(&self, params: &Params) -> Threads {
        let _ = params;
        Threads::All
    }

    /// What the number of its steps has to do with its result.
    fn extent(&self, params: &Params) -> Extent {
        let _ = params;
        Extent::None
    }

    /// The number of steps after which the state was saved that the file `path` of the stage's folder is part of; `None` for
    /// files that grow with every step. A folder that holds those and one whole state is one to go on from.
    fn state_of(&self, path: &Path) -> Option<u64> {
        let _ = path;
        None
    }

    /// Whether what it makes with `params` is a function of its values, its inputs and what it reads. Where it is not, its
    /// result is neither stored for other runs nor taken from one.
    fn is_function(&self, params: &Params) -> bool {
        let _ = params;
        true
    }

    /// Names within its folder that the folder of the run links to, if it is the first that has them.
    fn links(&self) -> &'static [&'static str] {
        &[]
    }

    /// Does the work, in [`StageCx::folder`]. Called again with the folder as it was left, where a run was
    /// interrupted in the middle of the stage. Declares with [`Outcome::read`] what it has read outside the run.
    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError>;

    /// What a difference of bits between two results of the stage `stage` means. `files` are those whose bytes differ, or that one
    /// result has alone; a kind that writes times into a file leaves it out, and one that knows where in a file says so.
    fn differences(
        &self,
        stage: &str,
        redone: &Redone,
        files: Vec<Difference>,
    ) -> Result<Vec<Difference>, StageError> {
        let _ = (stage, redone);
        Ok(files)
    }
}

/// A table of the workflow beside `[stages]`: `[backend]`.
pub trait Section: Send + Sync {
    /// Its name. `workflow` adds fields to the engine's own section.
    fn name(&self) -> &'static str;

    /// One sentence on what it is for.
    fn about(&self) -> &'static str;

    /// Its keys.
    fn fields(&self) -> Vec<Field>;

    /// As [`StageKind::plan`]; sections are planned before stages, in the order they were registered.
    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let _ = cx;
        Planned::default()
    }
}

/// What planning found out about a stage or section.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planned {
    /// Facts for the stages downstream and for `plan --json`.
    pub facts: Value,
    /// Lines for `fp8flow plan`.
    pub lines: Vec<String>,
    /// Values found for optional keys (dotted), written out like defaults from here on.
    pub derived: Vec<(&'static str, Value)>,
}

impl Planned {
    /// A plan with `facts`.
    pub fn new(facts: Value) -> Self {
        Self { facts, ..Self::default() }
    }

    /// Adds a line for `fp8flow plan`.
    #[must_use]
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Adds several lines for `fp8flow plan`.
    #[must_use]
    pub fn text(mut self, lines: &str) -> Self {
        self.lines.extend(lines.lines().map(String::from));
        self
    }

    /// Sets the value of a key: of an optional one that was not written, or a free table completed with its defaults.
    #[must_use]
    pub fn derive(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.derived.push((key, value.into()));
        self
    }
}
