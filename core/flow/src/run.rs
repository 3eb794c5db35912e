//! A plan at work: a folder with a lock, stages one after another, each done once however often the run is begun.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde_json::Value;

use crate::begun::Begun;
use crate::cache::{Cache, Exchange};
use crate::job::Job;
use crate::journal::Journal;
use crate::lock::Lock;
use crate::manifest::Manifest;
use crate::plan::PlannedStage;
use crate::record::{FORMAT, Record, Status, runs};
use crate::store::Store;
use crate::time::now;
use crate::{
    Artifact, Class, Crash, Error, Event, Held, Observer, Plan, Registry, Threads, atomic, birth, events,
    plan, provenance, schedule,
};

/// How a plan is run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The folder of runs; by default `runs` beside the workflow.
    pub runs: Option<PathBuf>,
    /// Begins a run of its own even if there is an unfinished one, and does every stage.
    pub fresh: bool,
    /// Does every stage that the run has no result of, though another run's may be stored.
    pub no_cache: bool,
    /// The threads there are, for stages side by side; 0 is 1.
    pub threads: usize,
    /// Does this stage and those that are made from it, though their results may be stored, in a run of their own.
    pub from: Option<String>,
    /// The lock that its results are held to.
    pub held: Option<Held>,
    /// Where it runs, written into `run.json`: arguments, versions, CPU, device.
    pub environment: Value,
    /// An object with what must be the same for an unfinished run to go on, beside the workflow: the numerics
    /// revision, the digests of plugins. What bears the name of a section counts, for a stage's result, only where the
    /// stage looks at that section.
    pub binding: Value,
}

impl RunOptions {
    /// Whether results of other runs are looked for.
    pub(crate) fn consults_cache(&self) -> bool {
        !self.fresh && !self.no_cache
    }

    fn exchange(&self) -> Exchange {
        if self.consults_cache() { Exchange::Both } else { Exchange::Give }
    }
}

/// A run that is open: this process holds its lock.
#[derive(Debug)]
pub struct Run<'a> {
    plan: &'a Plan,
    folder: PathBuf,
    /// The folder of runs, for the store.
    runs: PathBuf,
    how: How,
    record: Record,
    /// Where it stood when it was opened, if it is an old one.
    before: Option<Record>,
    /// Unfinished runs that were passed over, and why.
    passed_over: Vec<String>,
    _lock: Lock,
}

/// How its stages are done.
#[derive(Debug)]
struct How {
    exchange: Exchange,
    threads: usize,
    /// Stages that are done although their results may be stored.
    again: Vec<String>,
    held: Option<Held>,
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its folder.
    pub folder: PathBuf,
    /// What each stage made, in order.
    pub artifacts: Vec<Artifact>,
    /// The report, line by line.
    pub report: Vec<String>,
}

impl<'a> Run<'a> {
    /// Opens the newest unfinished run of `plan`, or a new one.
    pub fn open(plan: &'a Plan, options: RunOptions) -> Result<Self, Error> {
        let (runs, exchange) = (folder_of_runs(plan, &options)?, options.exchange());
        let again = options.from.as_deref().map_or(Vec::new(), |stage| plan.from(stage));
        let how = How { exchange, threads: options.threads, again, held: options.held };
        let mut passed_over = Vec::new();
        let unfinished = if options.fresh || !how.again.is_empty() {
            None
        } else {
            unfinished(plan, &runs, &options.binding, |line| passed_over.push(line))
        };
        if let Some((folder, _)) = unfinished {
            let lock = Lock::take(&folder)?;
            // It may have been finished in the meantime.
            if let Some(before) = Record::read(&folder).filter(|before| before.status != Status::Finished) {
                let record = Record {
                    environment: options.environment,
                    status: Status::Running,
                    file: plan.path.display().to_string(),
                    folder: plan.folder.display().to_string(),
                    sets: plan.sets.clone(),
                    ..before.clone()
                };
                let before = Some(before);
                return Ok(Self { plan, folder, runs, how, record, before, passed_over, _lock: lock });
            }
        }
        let sequence = self::runs(&runs).last().map_or(0, |(_, record)| record.sequence) + 1;
        let record = Record {
            format: FORMAT,
            id: String::new(),
            sequence,
            workflow: plan.name.clone(),
            file: plan.path.display().to_string(),
            folder: plan.folder.display().to_string(),
            sets: plan.sets.clone(),
            point: plan.point.clone(),
            only: plan.only.clone(),
            identity: plan.identity.clone(),
            binding: options.binding,
            status: Status::Running,
            attempts: 0,
            started: now(),
            updated: now(),
            exit_code: None,
            error: None,
            environment: options.environment,
        };
        let (folder, record, lock) = birth::create(&runs, record)?;
        Ok(Self { plan, folder, runs, how, record, before: None, passed_over, _lock: lock })
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether it was begun before.
    pub fn resumed(&self) -> bool {
        self.before.is_some()
    }

    /// Runs every stage that has no result yet. `cancel` asks the current one to save its state and stop.
    pub fn execute(
        mut self,
        registry: &Registry,
        observer: Arc<dyn Observer>,
        cancel: &Arc<AtomicBool>,
    ) -> Result<Finished, Error> {
        let begun = Instant::now();
        let journal = Arc::new(Journal::open(&self.folder.join(events::FILE), observer)?);
        let result = self.begin(&journal).and_then(|()| self.stages(registry, &journal, cancel));
        let class = result.as_ref().err().map(Error::class);
        self.record.status = match class {
            None => Status::Finished,
            Some(Class::Interrupted) => Status::Interrupted,
            Some(_) => Status::Failed,
        };
        self.record.exit_code = Some(class.map_or(0, Class::exit_code));
        self.record.error = result.as_ref().err().map(ToString::to_string);
        let recorded = self.write_record();
        journal.emit(&Event::RunFinished {
            status: self.record.status.word().into(),
            seconds: begun.elapsed().as_secs_f64(),
            exit_code: class.map_or(0, Class::exit_code),
        });
        result.and_then(|finished| recorded.map(|()| finished))
    }

    fn begin(&mut self, journal: &Journal) -> Result<(), Error> {
        let crash = Crash::noted(&self.folder);
        Crash::forget(&self.folder)?;
        self.record.attempts += 1;
        self.record.exit_code = None;
        self.record.error = None;
        atomic::remove_leftovers(&self.folder).map_err(Error::io("clean", &self.folder))?;
        // A process that was killed while it stored its last result has left something there.
        Store::of(&self.runs).open()?;
        birth::mend_latest(&self.runs, &self.record.id);
        self.write_record()?;
        atomic::write_json(&self.folder.join(plan::FILE), &self.plan.json())?;
        let path = self.folder.join(plan::WORKFLOW);
        atomic::write(&path, self.plan.text.as_bytes()).map_err(Error::io("write", &path))?;
        let (run, folder) = (self.record.id.clone(), self.folder.display().to_string());
        let workflow = self.plan.name.clone();
        let stages = self.plan.stages.iter().map(|stage| stage.name.clone()).collect();
        for message in self.passed_over.drain(..) {
            journal.emit(&Event::Warning { stage: String::new(), message });
        }
        journal.emit(&match &self.before {
            None => Event::RunStarted { run, folder, workflow, stages },
            Some(before) => {
                let reason = match (before.status, &before.error) {
                    (Status::Running, _) => crash.map_or("it was killed".into(), |crash| crash.to_string()),
                    (status, None) => format!("it was {}", status.word()),
                    (_, Some(error)) => error.clone(),
                };
                Event::RunResumed { run, folder, workflow, stages, reason }
            }
        });
        Ok(())
    }

    fn stages(
        &self,
        registry: &Registry,
        journal: &Arc<Journal>,
        cancel: &Arc<AtomicBool>,
    ) -> Result<Finished, Error> {
        let (store, binding) = (Store::of(&self.runs), &self.record.binding);
        let cache = Cache { store, plan: self.plan, registry, binding };
        let number = |name: &str| self.plan.stages.iter().position(|stage| stage.name == name);
        let task = |stage: &PlannedStage| {
            let before = stage.inputs.iter().filter_map(|(_, input)| number(input)).collect();
            let kind = registry.find(&stage.uses).map(|entry| &entry.kind);
            (before, kind.map_or(Threads::All, |kind| kind.threads(&stage.params)))
        };
        let tasks: Vec<_> = self.plan.stages.iter().map(task).collect();
        let job = |index: usize, given: Vec<Manifest>| {
            let stage = &self.plan.stages[index];
            let edges = stage.inputs.iter().map(|(edge, _)| edge.clone());
            let inputs = edges.zip(&given).map(|(edge, input)| (edge, input.result.clone())).collect();
            let begun = Begun::new(self.plan, registry, binding, stage, inputs);
            let (plan, run, id, cache) = (self.plan, &*self.folder, self.id(), &cache);
            let again = self.how.again.contains(&stage.name);
            let exchange = match self.how.exchange {
                _ if !cache.is_function(stage) => Exchange::Neither,
                _ if again => Exchange::Give,
                exchange => exchange,
            };
            let job = Job { plan, run, id, cache, exchange, registry, journal, cancel, stage, index, begun };
            let manifest = match job.done()? {
                Some(manifest) => manifest,
                None => match job.cached() {
                    Ok(manifest) => manifest,
                    Err(_) if plan.only_takes(&stage.name) => {
                        return Err(Error::NoResult { stage: stage.name.clone() });
                    }
                    Err(occupied) => job.work(&given, occupied)?,
                },
            };
            let held = self.how.held.as_ref();
            held.map_or(Ok(()), |held| held.check(&stage.name, &manifest, &plan.folder))?;
            Ok(manifest)
        };
        let manifests = schedule::run(&tasks, self.how.threads, job).map_err(first)?;
        provenance::write(&self.folder, self.plan, registry, &self.record, &manifests)?;
        let report: Vec<String> = manifests.iter().flat_map(|manifest| manifest.report.clone()).collect();
        let artifacts = manifests.into_iter().map(|manifest| manifest.artifact).collect();
        let text: String = report.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        let path = self.folder.join("report.txt");
        atomic::write(&path, text.as_bytes()).map_err(Error::io("write", &path))?;
        journal.emit(&Event::Report { lines: report.clone() });
        Ok(Finished { folder: self.folder.clone(), artifacts, report })
    }

    fn write_record(&mut self) -> Result<(), Error> {
        self.record.updated = now();
        self.record.write(&self.folder)
    }
}

/// Of the errors of several stages the first that is no mere interruption.
fn first(mut errors: BTreeMap<usize, Error>) -> Error {
    let own = errors.iter().find(|(_, error)| error.class() != Class::Interrupted).map(|(index, _)| *index);
    let own =
        own.and_then(|index| errors.remove(&index)).or_else(|| errors.pop_first().map(|(_, error)| error));
    own.expect("there is one")
}

/// The folder of the runs of `plan`, absolute.
pub(crate) fn folder_of_runs(plan: &Plan, options: &RunOptions) -> Result<PathBuf, Error> {
    let folder = options.runs.clone().unwrap_or_else(|| plan.folder.join("runs"));
    std::path::absolute(&folder).map_err(Error::io("find", &folder))
}

/// The runs in `folder` of the very same `plan`, newest first.
pub(crate) fn of_plan(plan: &Plan, folder: &Path, binding: &Value) -> Vec<(PathBuf, Record)> {
    let same = |record: &Record| record.identity == plan.identity && record.binding == *binding;
    runs(folder).into_iter().rev().filter(|(_, record)| same(record)).collect()
}

/// The run in `folder` that goes on when `plan` is run. `passed_over` hears, in words, of each that does not because other
/// bits could come of it.
pub(crate) fn unfinished(
    plan: &Plan,
    folder: &Path,
    binding: &Value,
    mut passed_over: impl FnMut(String),
) -> Option<(PathBuf, Record)> {
    let same = runs(folder).into_iter().rev().filter(|(_, record)| record.identity == plan.identity);
    // What came before the newest finished one is history.
    same.take_while(|(_, record)| record.status != Status::Finished).find(|(_, record)| {
        if record.binding != *binding {
            let differ = differences(&record.binding, binding);
            passed_over(format!("run {} is unfinished, but {differ}; a new run begins", record.id));
        }
        record.binding == *binding
    })
}

/// Which keys of two bindings differ, in words.
pub(crate) fn differences(old: &Value, new: &Value) -> String {
    let empty = serde_json::Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let show = |value: Option<&Value>| value.map_or("nothing".into(), ToString::to_string);
    let changed: Vec<String> = keys
        .into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| format!("{key} was {} and is {}", show(old.get(key)), show(new.get(key))))
        .collect();
    changed.join(", ")
}
