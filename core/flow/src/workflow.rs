//! The text of a workflow with what `--set` laid over it: syntax, and nothing yet about its meaning.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::findings::{Finding, Findings, code};
use crate::source::Sources;
use crate::syntax::{self, Table};
use crate::{Error, Plan, Registry, matrix, overrides, planner};

/// A workflow is written by a person: more than this is something else.
const MOST_BYTES: u64 = 4 << 20;

/// The text of a workflow, read into a tree in which everything knows its place.
#[derive(Clone, Debug)]
pub struct Workflow {
    pub(crate) path: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) runs: PathBuf,
    pub(crate) sources: Sources,
    pub(crate) root: Table,
    /// Which point of a matrix it is.
    pub(crate) point: Option<String>,
}

impl Workflow {
    /// Reads the file `path`; `sets` are assignments `key=value`, laid over it in their order.
    pub fn read<S: AsRef<str>>(path: &Path, sets: impl IntoIterator<Item = S>) -> Result<Self, Error> {
        let unreadable = |error: io::Error| Error::Unreadable { path: path.to_owned(), error };
        let about = fs::metadata(path).map_err(unreadable)?;
        if !about.is_file() {
            let error = io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file");
            return Err(unreadable(error));
        }
        let size = about.len();
        if size > MOST_BYTES {
            let error = io::Error::new(io::ErrorKind::InvalidData, format!("{size} bytes are no workflow"));
            return Err(unreadable(error));
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(path, text, sets)
    }

    /// Reads `text` as if it stood in the file `path`.
    pub fn parse<S: AsRef<str>>(
        path: &Path,
        text: impl Into<String>,
        sets: impl IntoIterator<Item = S>,
    ) -> Result<Self, Error> {
        let mut sources = Sources::default();
        let file = sources.add(path.display().to_string(), text.into(), false);
        let mut findings = Vec::new();
        let mut root = syntax::document(&sources, file).unwrap_or_else(|errors| {
            findings.extend(errors);
            Table::default()
        });
        for (index, set) in sets.into_iter().enumerate() {
            if let Err(errors) = overrides::apply(&mut root, &mut sources, index + 1, set.as_ref()) {
                findings.extend(errors);
            }
        }
        if !findings.is_empty() {
            return Err(Box::new(Findings::new(sources, findings)).into());
        }
        // Absolute, so that a path in the workflow means the same to whoever it is handed to.
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let folder = absolute.parent().map(Path::to_owned).unwrap_or_default();
        let runs = folder.join("runs");
        Ok(Self { path: path.to_owned(), folder, runs, sources, root, point: None })
    }

    /// The same, with another folder of runs than `runs` beside it, if there is one: nothing may be written into it.
    #[must_use]
    pub fn with_runs(self, runs: Option<&Path>) -> Self {
        let runs = runs.map(|runs| std::path::absolute(runs).unwrap_or_else(|_| runs.to_owned()));
        Self { runs: runs.unwrap_or(self.runs), ..self }
    }

    /// Gives everything its meaning: types, edges, order, and what each stage says about its part. Finds every error. A
    /// workflow with a matrix has a plan for each point: [`Workflow::plans`].
    pub fn plan(&self, registry: &Registry) -> Result<Plan, Error> {
        if let Some(matrix) = self.root.get(matrix::TABLE) {
            let finding = Finding::error(code::OBJECTION, "[matrix] makes several workflows of this one")
                .at(matrix.span, "")
                .help(Some("ask for one of them: `--point NAME`".into()));
            return Err(Box::new(Findings::new(self.sources.clone(), vec![finding])).into());
        }
        planner::plan(self, registry)
    }
}
