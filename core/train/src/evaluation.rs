//! Evaluation on held-out examples: loss, perplexity, and whether the greedy answer is the expected one.

use fp8flow_data::{MicroBatch, TokenSet};
use fp8flow_model::{Batch, Decoder, Parameters};
use fp8flow_tensor::Device;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::metrics::Line;

/// What an evaluation found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Examples with something to predict.
    pub examples: usize,
    /// Tokens predicted.
    pub targets: usize,
    /// Mean loss over the targets.
    pub loss: f64,
    /// `e^loss`.
    pub perplexity: f64,
    /// Share of targets that are the most likely token.
    pub accuracy: f64,
    /// Examples whose every target is the most likely token: greedy decoding gives exactly the expected answer.
    pub exact: usize,
    /// `exact / examples`.
    pub exact_match: f64,
}

/// One held-out example and what the model answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Tokens up to the first answer.
    pub prompt: Vec<u32>,
    /// The first answer as it should be, its end token included.
    pub expected: Vec<u32>,
    /// The model's, its end token left out.
    pub answer: Vec<u32>,
}

/// An evaluation during training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Steps done before it.
    pub step: u64,
    /// What it found.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// Answers to the first examples.
    pub samples: Vec<Sample>,
}

impl Line for Evaluated {
    fn step(&self) -> u64 {
        self.step
    }
}

/// A micro-batch as the decoder takes it.
pub(crate) fn batch(micro: &MicroBatch) -> Batch<'_> {
    Batch { ids: &micro.ids, targets: &micro.targets, sequences: &micro.sequences }
}

/// Evaluates `set` in its order, `micro` examples at a time; `proceed(done)` is asked before each and may stop it.
///
/// Greedy decoding takes the most likely token after the expected ones so far, and as long as it was right so far,
/// that is what teacher forcing predicts: the whole answer is right exactly if every prediction is. No cache of keys
/// and values is needed.
pub fn evaluate(
    device: &dyn Device,
    decoder: &mut Decoder,
    parameters: &Parameters,
    set: &TokenSet,
    micro: usize,
    mut proceed: impl FnMut(usize) -> bool,
) -> Result<Option<Evaluation>, TrainError> {
    let (mut loss, mut correct) = (0.0, 0);
    let mut found = Evaluation::default();
    let usable: Vec<usize> = (0..set.len()).filter(|&i| set.example(i).targets() > 0).collect();
    for (chunk, indices) in usable.chunks(micro.max(1)).enumerate() {
        if !proceed(chunk * micro.max(1)) {
            return Ok(None);
        }
        let result = decoder.evaluate(device, parameters, batch(&MicroBatch::new(set, indices)))?;
        loss += result.loss_sum;
        found.targets += result.targets;
        found.examples += indices.len();
        correct += result.correct.iter().filter(|&&right| right).count();
        let mut answers = result.correct.as_slice();
        for &index in indices {
            let (answer, rest) = answers.split_at(set.example(index).targets());
            found.exact += usize::from(answer.iter().all(|&right| right));
            answers = rest;
        }
    }
    let per = |sum: f64, n: usize| if n == 0 { 0.0 } else { sum / n as f64 };
    found.loss = per(loss, found.targets);
    found.perplexity = found.loss.exp();
    found.accuracy = per(correct as f64, found.targets);
    found.exact_match = per(found.exact as f64, found.examples);
    Ok(Some(found))
}

/// Answers to the first `most` examples of `set` that have one, by greedy decoding; `proceed` is asked before each token
/// and may stop it.
pub fn samples(
    device: &dyn Device,
    decoder: &mut Decoder,
    parameters: &Parameters,
    set: &TokenSet,
    most: usize,
    mut proceed: impl FnMut() -> bool,
) -> Result<Option<Vec<Sample>>, TrainError> {
    const MORE: usize = 16;
    let mut samples = Vec::new();
    for example in set.examples().filter(|example| example.targets() > 0).take(most) {
        let labels = example.labels;
        let first = (1..labels.len()).find(|&i| labels[i] >= 0).unwrap_or(labels.len());
        let expected: Vec<u32> =
            labels[first..].iter().take_while(|&&label| label >= 0).map(|&label| label as u32).collect();
        let prompt = example.ids[..first].to_vec();
        let end = expected.last().copied();
        let longest = expected.len() + MORE;
        let answer = generate(device, decoder, parameters, &prompt, end.as_slice(), longest, &mut proceed)?;
        let Some(answer) = answer else { return Ok(None) };
        samples.push(Sample { prompt, expected, answer });
    }
    Ok(Some(samples))
}

/// Greedy decoding from `prompt` until one of `ends`, `most` tokens or the end of the context; the end is left out.
/// `proceed` is asked before each token and may stop it.
///
/// Runs the whole sequence forward for every token: for a look at a few samples, not for serving.
pub fn generate(
    device: &dyn Device,
    decoder: &mut Decoder,
    parameters: &Parameters,
    prompt: &[u32],
    ends: &[u32],
    most: usize,
    mut proceed: impl FnMut() -> bool,
) -> Result<Option<Vec<u32>>, TrainError> {
    let mut ids = prompt.to_vec();
    let room = decoder.capacity().min(decoder.config().max_positions);
    while ids.len() < room && ids.len() - prompt.len() < most {
        if !proceed() {
            return Ok(None);
        }
        let mut targets = vec![-1; ids.len()];
        // Any target: what is asked for is the prediction at the last position.
        targets[ids.len() - 1] = 0;
        let sequences = [0, ids.len() as u32];
        let batch = Batch { ids: &ids, targets: &targets, sequences: &sequences };
        let next = decoder.evaluate(device, parameters, batch)?.predicted[0];
        if ends.contains(&next) {
            break;
        }
        ids.push(next);
    }
    Ok(Some(ids.split_off(prompt.len())))
}
