//! A chain of digests, one a step: that two runs have the same bits, or the first step and tensor where they part, can
//! be read from it without any checkpoint.
//!
//! After every step each f32 master is digested whole, so that one flipped bit shows. It is cut in pieces of a fixed size, which
//! the pool's threads, or the card, digest by XXH3 as fast as memory is read; neither threads nor the instruction set are in
//! the result. A tensor's digest is blake3 over those of its pieces; `chain` is blake3 over the chain before, the step's
//! metrics and the digests of all tensors; of these a few digits are kept to name the first that differs.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use blake3::{Hash, Hasher};
use fp8flow_kernels::Parallel;
use fp8flow_model::{Parameters, SafeFile};
use fp8flow_tensor::cuda::Digester;
use fp8flow_tensor::digest::{self, DIGEST};
use serde::{Deserialize, Serialize};

use crate::metrics::{Line, Lines};
use crate::{StepMetrics, TrainError};

/// The digests in a run's own folder.
pub const DIGESTS: &str = "digests.jsonl";

/// Bytes that one thread digests at a time: enough pieces for all of a card's warps, few enough to be fetched from it.
const PIECE: usize = 1 << 18;

/// Hexadecimal digits that are kept of a tensor's digest. The chain holds all of them; these only name the tensor.
const SHORT: usize = 8;

/// What the bits were after a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepDigest {
    /// Steps done.
    pub step: u64,
    /// Digest of the chain before, of the step's loss, gradient norm and learning rate, and of every tensor.
    pub chain: String,
    /// The beginning of each tensor's digest, one after the other.
    pub tensors: String,
    /// The tensors' names, in the first line of a file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

impl StepDigest {
    /// Places of the tensors whose digests are others than in `other`; all of them where their number is another.
    pub fn differing(&self, other: &Self) -> Vec<usize> {
        let [a, b] = [self, other].map(|line| line.tensors.as_bytes().chunks(SHORT));
        if a.len() == b.len() {
            a.zip(b).enumerate().filter(|(_, (a, b))| a != b).map(|(i, _)| i).collect()
        } else {
            (0..a.len().max(b.len())).collect()
        }
    }
}

impl Line for StepDigest {
    fn step(&self) -> u64 {
        self.step
    }
}

/// The last line of a file.
#[derive(Debug, Default)]
struct Last(Option<StepDigest>);

impl Extend<StepDigest> for Last {
    fn extend<T: IntoIterator<Item = StepDigest>>(&mut self, lines: T) {
        self.0 = lines.into_iter().last().or(self.0.take());
    }
}

/// The open file of a run.
#[derive(Debug)]
pub(crate) struct Digests {
    lines: Lines<StepDigest, Last>,
    /// For tensors on a card.
    digester: Digester,
}

impl Digests {
    /// Opens the file in `folder` to go on after `step` with `parameters`. Fails where it says that the run had others.
    pub(crate) fn open(
        folder: &Path,
        step: u64,
        parameters: &Parameters,
        pool: &dyn Parallel,
    ) -> Result<Self, TrainError> {
        let path = folder.join(DIGESTS);
        let lines = Lines::<StepDigest, Last>::open(&path, step)?;
        let names: Vec<String> = parameters.specs().iter().map(|spec| spec.name.clone()).collect();
        let mut digester = Digester::default();
        let tensors = of_parameters(parameters, pool, &mut digester)?;
        let here = StepDigest { step, chain: start(step, &tensors), tensors: short(&tensors), names };
        if let Some(last) = lines.all.0.as_ref().filter(|last| last.step == step) {
            match last.differing(&here).first() {
                None => return Ok(Self { lines, digester }),
                Some(&first) if step > 0 => {
                    let name = here.names.get(first).map_or("?", String::as_str);
                    let what = format!(
                        "after step {step} the run had other weights than its checkpoint holds (first in `{name}`); start a fresh run (`--fresh`)"
                    );
                    return Err(TrainError::Checkpoint { path, what });
                }
                Some(_) => {}
            }
        }
        // A run that was begun without digests has them from here on.
        let mut lines = Lines::<StepDigest, Last>::begin(&path)?;
        lines.append(here)?;
        Ok(Self { lines, digester })
    }

    /// The digest of every tensor, in their order.
    pub(crate) fn of(
        &mut self,
        parameters: &Parameters,
        pool: &dyn Parallel,
    ) -> Result<Vec<Hash>, TrainError> {
        of_parameters(parameters, pool, &mut self.digester)
    }

    /// Adds the digest of a step: `tensors` as they are after it.
    pub(crate) fn append(&mut self, metrics: &StepMetrics, tensors: &[Hash]) -> Result<(), TrainError> {
        let before = self.lines.all.0.as_ref().map_or("", |line| line.chain.as_str());
        let chain = link(before, metrics, tensors);
        let (step, tensors) = (metrics.step, short(tensors));
        self.lines.append(StepDigest { step, chain, tensors, names: Vec::new() })
    }

    pub(crate) fn sync(&self) -> Result<(), TrainError> {
        self.lines.sync()
    }
}

fn of_parameters(
    parameters: &Parameters,
    pool: &dyn Parallel,
    digester: &mut Digester,
) -> Result<Vec<Hash>, TrainError> {
    let tensors = parameters.tensors();
    let digests = digest::of_tensors(tensors, PIECE, pool, digester)?;
    Ok(whole(&digests, tensors.iter().map(|tensor| tensor.rows() * tensor.cols() * size_of::<f32>())))
}

fn of_tensors(tensors: &[&[u8]], pool: &dyn Parallel) -> Vec<Hash> {
    whole(&digest::digests(tensors, PIECE, pool), tensors.iter().map(|tensor| tensor.len()))
}

/// The digests of tensors of so many bytes from those of their pieces.
fn whole(mut pieces: &[[u8; DIGEST]], bytes: impl Iterator<Item = usize>) -> Vec<Hash> {
    let whole = |bytes: usize| {
        let (own, others) = pieces.split_at(bytes.div_ceil(PIECE));
        pieces = others;
        blake3::hash(own.as_flattened())
    };
    bytes.map(whole).collect()
}

fn short(tensors: &[Hash]) -> String {
    tensors.iter().map(|digest| digest.to_hex()[..SHORT].to_owned()).collect()
}

/// Where a chain begins.
fn start(step: u64, tensors: &[Hash]) -> String {
    let mut hasher = Hasher::new();
    hasher.update(&step.to_le_bytes());
    for digest in tensors {
        hasher.update(digest.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

fn link(before: &str, metrics: &StepMetrics, tensors: &[Hash]) -> String {
    let mut hasher = Hasher::new();
    hasher.update(before.as_bytes());
    let StepMetrics { step, loss, lr, grad_norm, tokens, .. } = metrics;
    for word in [*step, loss.to_bits(), lr.to_bits(), grad_norm.to_bits(), *tokens] {
        hasher.update(&word.to_le_bytes());
    }
    for digest in tensors {
        hasher.update(digest.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The lines of the file in a training stage's folder, one by one; none if there is no file. It ends before a line that was cut off.
pub fn read_digests(folder: &Path) -> Result<impl Iterator<Item = StepDigest> + use<>, TrainError> {
    lines(&folder.join(DIGESTS))
}

/// The lines of a file; none if it is not there.
pub(crate) fn lines<T: Line>(path: &Path) -> Result<impl Iterator<Item = T> + use<T>, TrainError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        file => Some(file.map_err(TrainError::io(path, "open"))?),
    };
    let read = |file| BufReader::new(file).split(b'\n').map_while(Result::ok);
    let parsed = |line: Vec<u8>| serde_json::from_slice(&line).ok();
    Ok(file.into_iter().flat_map(read).map_while(parsed))
}

/// The first tensor of the safetensors file `path` that is not what `line` says, by its name in `names`.
pub fn first_other(
    path: PathBuf,
    names: &[String],
    line: &StepDigest,
    pool: &dyn Parallel,
) -> Result<Option<String>, TrainError> {
    let file = SafeFile::open(path)?;
    let tensors: Vec<&[u8]> =
        names.iter().map(|name| file.get(name).map_or(&[][..], |tensor| tensor.bytes)).collect();
    let here = StepDigest { tensors: short(&of_tensors(&tensors, pool)), ..line.clone() };
    Ok(line.differing(&here).first().and_then(|&i| names.get(i).cloned()))
}

#[cfg(test)]
mod tests {
    use fp8flow_kernels::Serial;

    use super::*;

    /// Threads that come in another order, and more of them than there are.
    struct Backwards;

    impl Parallel for Backwards {
        fn threads(&self) -> usize {
            3
        }

        fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
            (0..tasks).rev().for_each(body);
        }
    }

    #[test]
    fn any_flipped_bit_shows_in_its_tensor_alone_and_threads_do_not() {
        let mut a: Vec<f32> = (0..700_000).map(|i| i as f32).collect();
        let b = [1.0_f32; 3];
        let of = |a: &[f32], pool| of_tensors(&[bytemuck::cast_slice(a), bytemuck::cast_slice(&b)], pool);
        let before = of(&a, &Serial);
        assert_eq!(of(&a, &Backwards), before);
        for (index, bit) in [(0, 0), (65_535, 31), (65_536, 7), (699_999, 22)] {
            let kept = a[index];
            a[index] = f32::from_bits(kept.to_bits() ^ (1 << bit));
            let after = of(&a, &Serial);
            assert!(after[0] != before[0] && after[1] == before[1], "element {index}, bit {bit}");
            a[index] = kept;
        }
        // Zeros of either sign, and pieces in another order, are other bits.
        assert_ne!(of(&[0.0], &Serial)[0], of(&[-0.0], &Serial)[0]);
        a.rotate_left(65_536);
        assert_ne!(of(&a, &Serial)[0], before[0]);
    }
}
