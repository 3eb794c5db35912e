//! Files of one JSON object a line, each of a step, cut back to the checkpoint when a run goes on.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// What is known of one step. Floats are printed so that they read back exactly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// The step, counted from 1.
    pub step: u64,
    /// Mean loss over the step's targets, before the update.
    pub loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Global norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// Tokens of the step.
    pub tokens: u64,
    /// Tokens a second, of this step alone.
    pub tokens_per_s: f64,
    /// The precision, where it is not the one that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
}

/// A line that belongs to a step.
pub(crate) trait Line: Serialize + DeserializeOwned {
    fn step(&self) -> u64;
}

impl Line for StepMetrics {
    fn step(&self) -> u64 {
        self.step
    }
}

/// An open file of lines, and what is kept of them.
#[derive(Debug)]
pub(crate) struct Lines<T, K = Vec<T>> {
    path: PathBuf,
    file: File,
    pub(crate) all: K,
    line: PhantomData<T>,
}

impl<T: Line, K: Extend<T> + Default> Lines<T, K> {
    /// Opens `path` to go on after `step`: later lines, and a last one that was cut off, are removed.
    pub(crate) fn open(path: &Path, step: u64) -> Result<Self, TrainError> {
        let io = |action| TrainError::io(path, action);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io("open"))?;
        let (mut all, mut end) = (K::default(), 0);
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).map_err(io("read"))? > 0 {
            match serde_json::from_slice::<T>(&line) {
                Ok(read) if line.ends_with(b"\n") && read.step() <= step => all.extend([read]),
                _ => break,
            }
            end += line.len() as u64;
            line.clear();
        }
        file.set_len(end).map_err(io("cut"))?;
        file.seek(SeekFrom::Start(end)).map_err(io("seek in"))?;
        Ok(Self { path: path.to_owned(), file, all, line: PhantomData })
    }

    /// Opens `path` anew: what is there is removed.
    pub(crate) fn begin(path: &Path) -> Result<Self, TrainError> {
        let file = File::create(path).map_err(TrainError::io(path, "create"))?;
        Ok(Self { path: path.to_owned(), file, all: K::default(), line: PhantomData })
    }

    pub(crate) fn append(&mut self, line: T) -> Result<(), TrainError> {
        let text = serde_json::to_string(&line).expect("plain data becomes JSON") + "\n";
        self.file.write_all(text.as_bytes()).map_err(TrainError::io(&self.path, "write"))?;
        self.all.extend([line]);
        Ok(())
    }

    /// Waits until the disk has every line: before a checkpoint that counts on them.
    pub(crate) fn sync(&self) -> Result<(), TrainError> {
        self.file.sync_data().map_err(TrainError::io(&self.path, "flush"))
    }
}

/// The lines of `path` from the first to the last that is whole; none where there is no file. It may be written meanwhile.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, TrainError> {
    read_from(path, 0)
}

/// The lines in about the last `bytes` of `path`, as [`read`].
pub fn tail<T: DeserializeOwned>(path: &Path, bytes: u64) -> Result<Vec<T>, TrainError> {
    let length = std::fs::metadata(path).map_or(0, |file| file.len());
    read_from(path, length.saturating_sub(bytes))
}

/// The whole lines of `path` that begin after `start`, or at it where that is the beginning.
fn read_from<T: DeserializeOwned>(path: &Path, start: u64) -> Result<Vec<T>, TrainError> {
    let io = |action| TrainError::io(path, action);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io("open")(error)),
    };
    file.seek(SeekFrom::Start(start)).map_err(io("seek in"))?;
    let (mut reader, mut lines, mut line) = (BufReader::new(file), Vec::new(), Vec::new());
    if start > 0 {
        reader.read_until(b'\n', &mut line).map_err(io("read"))?;
        line.clear();
    }
    while reader.read_until(b'\n', &mut line).map_err(io("read"))? > 0 && line.ends_with(b"\n") {
        let number = lines.len() + 1;
        let read = serde_json::from_slice(&line);
        lines.push(read.map_err(|source| TrainError::Line { path: path.to_owned(), number, source })?);
        line.clear();
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(step: u64) -> StepMetrics {
        StepMetrics {
            step,
            loss: 0.1 + 0.2,
            lr: 1e-4,
            grad_norm: 1.0 / 3.0,
            tokens: 7,
            tokens_per_s: 3.5,
            precision: None,
        }
    }

    #[test]
    fn lines_after_the_checkpoint_and_a_torn_one_are_cut_off_and_floats_read_back_exactly() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut file = Lines::<StepMetrics>::open(&path, 0).unwrap();
        assert!(file.all.is_empty());
        (1..=5).for_each(|step| file.append(metrics(step)).unwrap());
        drop(file);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"step\":6,").unwrap();

        let mut file = Lines::<StepMetrics>::open(&path, 3).unwrap();
        assert_eq!(file.all, [metrics(1), metrics(2), metrics(3)]);
        file.append(metrics(4)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 4);
        assert!(text.ends_with('\n'));
        assert!(text.starts_with("{\"step\":1,\"loss\":0.30000000000000004,\"lr\":0.0001,"), "{text}");
    }

    #[test]
    fn whole_lines_are_read_while_the_file_is_written_and_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        assert!(
            read::<StepMetrics>(&path).unwrap().is_empty()
                && tail::<StepMetrics>(&path, 9).unwrap().is_empty()
        );
        let mut file = Lines::<StepMetrics>::open(&path, 0).unwrap();
        (1..=5).for_each(|step| file.append(metrics(step)).unwrap());
        let append = |text: &str| {
            std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
        };
        append("{\"step\":6,");
        assert_eq!(read::<StepMetrics>(&path).unwrap(), [1, 2, 3, 4, 5].map(metrics));
        let length = std::fs::metadata(&path).unwrap().len();
        let last = tail::<StepMetrics>(&path, length / 2).unwrap();
        assert!((1..5).contains(&last.len()) && last.last() == Some(&metrics(5)), "{last:?}");
        append("\n");
        let error = read::<StepMetrics>(&path).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl is damaged: line 6: "), "{error}");
    }
}
