//! A micro-batch: a flat run of tokens, without padding.

use crate::TokenSet;

/// Examples laid end to end, as the model takes them: `T` tokens in `S` sequences.
///
/// No pad token exists, so none can enter a GEMM, an absolute maximum or the loss.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MicroBatch {
    /// Token ids, `[T]`.
    pub ids: Vec<u32>,
    /// `targets[t]` is the token to predict from the tokens up to `t` of its sequence (the label of position `t + 1`),
    /// or −1 for none; `[T]`. The last position of a sequence predicts nothing.
    pub targets: Vec<i32>,
    /// Starts of the sequences and, last, `T`: `[S + 1]`.
    pub sequences: Vec<u32>,
}

impl MicroBatch {
    /// The examples `indices` of `set`, in that order.
    ///
    /// # Panics
    /// If there is no such example, or the batch has 2³² tokens or more.
    pub fn new(set: &TokenSet, indices: &[usize]) -> Self {
        let tokens = indices.iter().map(|&index| set.example(index).ids.len()).sum();
        assert!(u32::try_from(tokens).is_ok(), "a micro-batch of {tokens} tokens: fewer than 2³² fit");
        let mut batch = Self {
            ids: Vec::with_capacity(tokens),
            targets: Vec::with_capacity(tokens),
            sequences: Vec::with_capacity(indices.len() + 1),
        };
        batch.sequences.push(0);
        for &index in indices {
            let example = set.example(index);
            batch.ids.extend_from_slice(example.ids);
            batch.targets.extend(example.labels.iter().skip(1).map(|&label| label.max(-1)));
            if !example.ids.is_empty() {
                batch.targets.push(-1);
            }
            batch.sequences.push(batch.ids.len() as u32);
        }
        batch
    }

    /// Tokens, `T`.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Positions with a token to predict.
    pub fn target_count(&self) -> usize {
        self.targets.iter().filter(|&&target| target >= 0).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::MASKED;

    #[test]
    fn a_target_is_the_next_label_of_the_same_sequence() {
        let mut set = TokenSet::new(100);
        set.push(&[10, 11, 12, 13], &[MASKED, MASKED, 12, 13]);
        set.push(&[20], &[20]);
        set.push(&[30, 31], &[30, 31]);
        let batch = MicroBatch::new(&set, &[2, 0, 1]);
        assert_eq!(batch.ids, [30, 31, 10, 11, 12, 13, 20]);
        assert_eq!(batch.targets, [31, -1, -1, 12, 13, -1, -1]);
        assert_eq!(batch.sequences, [0, 2, 6, 7]);
        assert_eq!(batch.target_count(), 3);
        assert_eq!(batch.target_count(), set.targets());
    }

    #[test]
    fn no_example_gives_no_token() {
        let mut set = TokenSet::new(1);
        set.push(&[], &[]);
        assert_eq!(MicroBatch::new(&set, &[]).sequences, [0]);
        let empty = MicroBatch::new(&set, &[0]);
        assert_eq!((empty.tokens(), empty.targets.len(), empty.sequences), (0, 0, vec![0, 0]));
    }
}
