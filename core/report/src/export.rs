//! What a training measures as the files that other programs watch, also while it is at work.
//!
//! The files lie beside the stages, `logs/<stage>/` in the run's folder, for a stage's own folder is a result with a
//! digest. They are made of what the training writes anyway and are only added to; where a training goes on from a
//! checkpoint before its last step, they are begun anew.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use fp8flow_flow::{Seen, time};
use fp8flow_train::{EVALUATIONS, METRICS, StepMetrics};
use serde::de::DeserializeOwned;

use crate::curve::training_stages;
use crate::notes::Notes;
use crate::{Curve, HeldOut, ReportError, svg, tensorboard, trainer_log};

/// The folder within a run's that holds the files.
const FOLDER: &str = "logs";

/// Looks between two pictures of the curves, which are drawn anew each time, at first.
const BETWEEN_PICTURES: u32 = 10;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Export {
    /// An event file of TensorBoard.
    TensorBoard,
    /// `trainer_log.jsonl`, as LLaMA-Factory writes it.
    TrainerLog,
    /// `training_loss.svg`.
    Svg,
}

/// What a line is about.
#[derive(Clone, Debug)]
pub(crate) enum Line {
    Step(StepMetrics),
    HeldOut(HeldOut),
}

impl Line {
    pub(crate) fn step(&self) -> u64 {
        match self {
            Self::Step(line) => line.step,
            Self::HeldOut(found) => found.step,
        }
    }
}

/// How far a training has come when a line is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// When it began, in seconds since 1970.
    pub(crate) start: f64,
    /// Steps in all; 0 where that is not known.
    pub(crate) total: u64,
    /// Steps of an epoch, where known.
    pub(crate) per_epoch: Option<u64>,
    /// Seconds that its steps took, without evaluations, checkpoints and pauses.
    pub(crate) elapsed: f64,
    /// Tokens that it has seen.
    pub(crate) tokens: u64,
}

/// Writes the files of `kinds` for every training stage of `run`, or for `only` that one, into `out` or the run's folder;
/// says which.
pub fn export(
    run: &Seen,
    kinds: &[Export],
    only: Option<&str>,
    out: Option<&Path>,
) -> Result<Vec<PathBuf>, ReportError> {
    let mut exports = Exports::default();
    exports.look(run, kinds, only, out)?;
    exports.end()
}

/// The same while the run is at work: looks again and again until `wait` says that this was the last time.
pub fn follow(
    run: &Seen,
    kinds: &[Export],
    only: Option<&str>,
    out: Option<&Path>,
    mut wait: impl FnMut() -> bool,
) -> Result<Vec<PathBuf>, ReportError> {
    let mut exports = Exports::default();
    loop {
        // Asked before the files: what was written before the end is in them.
        let last = !wait();
        exports.look(run, kinds, only, out)?;
        if last {
            return exports.end();
        }
    }
}

/// The files of a run.
#[derive(Default)]
struct Exports {
    stages: Vec<StageExport>,
}

impl Exports {
    /// Writes what is new.
    fn look(
        &mut self,
        run: &Seen,
        kinds: &[Export],
        only: Option<&str>,
        out: Option<&Path>,
    ) -> Result<(), ReportError> {
        for stage in training_stages(run)? {
            let known = self.stages.iter().any(|export| export.stage == stage);
            let chosen = only.is_none_or(|only| only == stage);
            if !known && chosen && run.folder.join(&stage).join(METRICS).exists() {
                let folder = out.map_or_else(|| run.folder.join(FOLDER), Path::to_owned).join(&stage);
                self.stages.push(StageExport::begin(run, stage, &folder, kinds)?);
            }
        }
        self.stages.iter_mut().try_for_each(StageExport::look)
    }

    /// The last word; says which files there are.
    fn end(mut self) -> Result<Vec<PathBuf>, ReportError> {
        let mut paths = Vec::new();
        for stage in &mut self.stages {
            stage.draw()?;
            paths.extend(stage.files.iter().map(|(_, path)| path.clone()));
        }
        Ok(paths)
    }
}

/// The files of a training stage.
struct StageExport {
    stage: String,
    /// Its name for people.
    label: String,
    /// Where it measures.
    source: PathBuf,
    files: Vec<(Export, PathBuf)>,
    steps: Tail<StepMetrics>,
    held_out: Tail<HeldOut>,
    /// Evaluations whose step has not been read.
    early: Vec<HeldOut>,
    clock: Clock,
    looks: u32,
    /// The look that is drawn next.
    next_picture: u32,
}

impl StageExport {
    fn begin(run: &Seen, stage: String, folder: &Path, kinds: &[Export]) -> Result<Self, ReportError> {
        let source = run.folder.join(&stage);
        let clock = clock(run, &stage)?;
        fs::create_dir_all(folder).map_err(ReportError::write(folder))?;
        let name = |kind| match kind {
            Export::TensorBoard => format!("events.out.tfevents.{:.0}.fp8flow", clock.start),
            Export::TrainerLog => "trainer_log.jsonl".into(),
            Export::Svg => "training_loss.svg".into(),
        };
        let mut export = Self {
            label: run.record.id.clone(),
            files: kinds.iter().map(|kind| (*kind, folder.join(name(*kind)))).collect(),
            steps: Tail::new(source.join(METRICS)),
            held_out: Tail::new(source.join(EVALUATIONS)),
            early: Vec::new(),
            stage,
            source,
            clock,
            looks: 0,
            next_picture: 0,
        };
        export.anew()?;
        Ok(export)
    }

    /// Begins every file anew.
    fn anew(&mut self) -> Result<(), ReportError> {
        (self.steps, self.held_out) =
            (Tail::new(self.source.join(METRICS)), Tail::new(self.source.join(EVALUATIONS)));
        self.early.clear();
        (self.clock.elapsed, self.clock.tokens) = (0.0, 0);
        for (kind, path) in &self.files {
            let head = match kind {
                Export::TensorBoard => tensorboard::beginning(self.clock.start),
                Export::TrainerLog => Vec::new(),
                Export::Svg => continue,
            };
            fs::write(path, head).map_err(ReportError::write(path))?;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), ReportError> {
        // The steps first: an evaluation that is read then belongs to one of them, or to one that is yet to be read.
        let (steps, held_out) = (self.steps.more()?, self.held_out.more()?);
        let (Some(steps), Some(held_out)) = (steps, held_out) else {
            self.anew()?;
            return self.look();
        };
        if steps.is_empty() && held_out.is_empty() {
            return Ok(());
        }
        let mut lines: Vec<Line> = steps.into_iter().map(Line::Step).collect();
        self.early.extend(held_out);
        let last = self.steps.last;
        lines.extend(self.early.extract_if(.., |found| found.step <= last).map(Line::HeldOut));
        lines.sort_by_key(|line| (line.step(), matches!(line, Line::HeldOut(_))));
        self.append(&lines)?;
        if self.looks >= self.next_picture {
            self.draw()?;
            // It takes all that was measured: the more there is, the more seldom.
            self.next_picture = self.looks + BETWEEN_PICTURES.max(self.looks / 10);
        }
        self.looks += 1;
        Ok(())
    }

    fn append(&mut self, lines: &[Line]) -> Result<(), ReportError> {
        let mut texts: Vec<Vec<u8>> = vec![Vec::new(); self.files.len()];
        for line in lines {
            if let Line::Step(StepMetrics { tokens, tokens_per_s, .. }) = line {
                self.clock.tokens += tokens;
                self.clock.elapsed += if *tokens_per_s > 0.0 { *tokens as f64 / tokens_per_s } else { 0.0 };
            }
            for ((kind, _), text) in self.files.iter().zip(&mut texts) {
                match kind {
                    Export::TensorBoard => text.extend(scalars(line, &self.clock)),
                    Export::TrainerLog => text.extend(trainer_log::line(line, &self.clock).into_bytes()),
                    Export::Svg => {}
                }
            }
        }
        for ((_, path), text) in self.files.iter().zip(texts).filter(|(_, text)| !text.is_empty()) {
            let file = OpenOptions::new().append(true).create(true).open(path);
            file.and_then(|mut file| file.write_all(&text)).map_err(ReportError::write(path))?;
        }
        Ok(())
    }

    /// Draws the curves as they are by now.
    fn draw(&self) -> Result<(), ReportError> {
        for (_, path) in self.files.iter().filter(|(kind, _)| *kind == Export::Svg) {
            let curve = Curve { label: self.label.clone(), ..Curve::in_folder(&self.source)? };
            fs::write(path, svg(&[curve])).map_err(ReportError::write(path))?;
        }
        Ok(())
    }
}

/// A record of TensorBoard with what `line` says.
fn scalars(line: &Line, clock: &Clock) -> Vec<u8> {
    let time = clock.start + clock.elapsed;
    match line {
        Line::Step(StepMetrics { step, loss, lr, grad_norm, tokens_per_s, .. }) => {
            let scalars = [
                ("train/loss", *loss),
                ("train/learning_rate", *lr),
                ("train/grad_norm", *grad_norm),
                ("train/tokens_per_s", *tokens_per_s),
            ];
            tensorboard::scalars(time, *step, &scalars)
        }
        Line::HeldOut(HeldOut { step, loss }) => tensorboard::scalars(time, *step, &[("eval/loss", *loss)]),
    }
}

/// How far the stage will go, before its first step.
fn clock(run: &Seen, stage: &str) -> Result<Clock, ReportError> {
    let notes = Notes::read(run)?;
    let start = notes.began.get(stage).unwrap_or(&run.record.started);
    let start = time::between("1970-01-01T00:00:00Z", start).unwrap_or_default();
    let (mut total, mut per_epoch) =
        notes.steps.get(stage).map_or((0, None), |(all, epoch)| (*all, Some(*epoch)));
    if let Some(result) = run.result(stage)? {
        // Its steps are all there, whichever run made them.
        let last: Vec<StepMetrics> =
            fp8flow_train::metrics::tail(&run.folder.join(stage).join(METRICS), 1 << 12)?;
        total = last.last().map_or(total, |line| line.step);
        per_epoch = result.account["steps_per_epoch"].as_u64().or(per_epoch);
    }
    Ok(Clock { start, total, per_epoch, elapsed: 0.0, tokens: 0 })
}

/// A line that belongs to a step.
trait Stepped: DeserializeOwned {
    fn step(&self) -> u64;
}

impl Stepped for StepMetrics {
    fn step(&self) -> u64 {
        self.step
    }
}

impl Stepped for HeldOut {
    fn step(&self) -> u64 {
        self.step
    }
}

/// A file of lines that grows, and is cut back now and then.
struct Tail<T> {
    path: PathBuf,
    offset: u64,
    /// The step of the last line.
    last: u64,
    /// Whether there was a line.
    begun: bool,
    line: PhantomData<T>,
}

impl<T: Stepped> Tail<T> {
    fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, last: 0, begun: false, line: PhantomData }
    }

    /// The lines that have come since the last time; `None` where the file was cut back in between.
    fn more(&mut self) -> Result<Option<Vec<T>>, ReportError> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(Vec::new())),
            Err(error) => return Err(ReportError::read(&self.path)(error)),
        };
        let length = file.metadata().map_err(ReportError::read(&self.path))?.len();
        if length < self.offset {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(self.offset)).map_err(ReportError::read(&self.path))?;
        let (mut reader, mut lines, mut line) = (BufReader::new(file), Vec::new(), Vec::new());
        while reader.read_until(b'\n', &mut line).map_err(ReportError::read(&self.path))? > 0
            && line.ends_with(b"\n")
        {
            let Ok(read) = serde_json::from_slice::<T>(&line) else {
                let path = self.path.clone();
                // What was written anew meanwhile does not begin where the old lines ended.
                return if self.begun && lines.is_empty() { Ok(None) } else { Err(damaged(path)) };
            };
            if self.begun && read.step() <= self.last {
                return if lines.is_empty() { Ok(None) } else { Err(damaged(self.path.clone())) };
            }
            (self.begun, self.last) = (true, read.step());
            self.offset += line.len() as u64;
            lines.push(read);
            line.clear();
        }
        Ok(Some(lines))
    }
}

fn damaged(path: PathBuf) -> ReportError {
    let what = "a line is no measurement".into();
    fp8flow_flow::Error::Damaged { path, what }.into()
}
