//! A run of the past, planned again from nothing but what it has recorded.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::plan::WORKFLOW;
use crate::record::Record;
use crate::run::differences;
use crate::{Class, Error, Plan, Registry, Status, Workflow};

/// A finished run with its plan.
#[derive(Debug)]
pub struct Recorded {
    /// Its folder, absolute.
    pub folder: PathBuf,
    /// Its record.
    pub record: Record,
    /// Its plan, made again from the workflow's text as it was.
    pub plan: Plan,
}

impl Recorded {
    /// Plans the run in `folder` again; `binding` is what this program would bind a run of the plan to. Fails unless the
    /// run is finished and this program would do the same.
    pub fn read(
        folder: &Path,
        registry: &Registry,
        binding: impl FnOnce(&Plan) -> Value,
    ) -> Result<Self, Error> {
        let folder = std::path::absolute(folder).map_err(Error::io("find", folder))?;
        let refused = |class, why: String| Error::NotAgain { run: folder.clone(), class, why };
        let record = Record::read(&folder)
            .ok_or_else(|| refused(Class::Invalid, "it has no readable run.json".into()))?;
        if record.status != Status::Finished {
            let why = format!("it is not finished, but {}", record.status.word());
            return Err(refused(Class::Invalid, why));
        }
        let text = fs::read_to_string(folder.join(WORKFLOW)).map_err(|error| {
            refused(Class::Invalid, format!("it has no text of its workflow ({WORKFLOW}: {error})"))
        })?;
        let name = Path::new(&record.file).file_name().unwrap_or_default();
        let file = Path::new(&record.folder).join(name);
        let workflow = Workflow::parse(&file, text, &record.sets)?.with_runs(folder.parent());
        let plan = workflow.plans(registry, record.point.as_deref())?.pop();
        let plan = plan.ok_or_else(|| refused(Class::Invalid, "its workflow has no point".into()))?;
        let plan = if record.only.is_empty() {
            plan
        } else {
            plan.only(&record.only).map_err(|name| {
                refused(
                    Class::Invalid,
                    format!("its run.json names a stage `{name}` that its workflow has not"),
                )
            })?
        };
        if plan.identity != record.identity {
            let why = "this version of fp8flow gives its workflow other values, by other defaults; use the version that made it";
            return Err(refused(Class::Invalid, why.into()));
        }
        let binding = binding(&plan);
        if record.binding != binding {
            let why = differences(&record.binding, &binding);
            return Err(refused(Class::Missing, format!("other bits could come of it here: {why}")));
        }
        Ok(Self { folder, record, plan })
    }
}
