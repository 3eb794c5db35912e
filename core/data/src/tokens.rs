//! Token sequences with labels: what a dataset is after tokenization.

/// The label of a position that is not trained on, as PyTorch and transformers write it.
pub const MASKED: i32 = -100;

/// Examples of token ids and labels, laid end to end.
///
/// `labels[i]` is the token to predict *at* position `i`, from the tokens before it, or [`MASKED`]; labels are not
/// shifted. Nothing precedes position 0, so its label is never predicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSet {
    ids: Vec<u32>,
    labels: Vec<i32>,
    /// Starts of the examples and, last, the number of tokens.
    offsets: Vec<u64>,
    vocabulary: usize,
}

/// One example of a [`TokenSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example<'a> {
    /// Token ids.
    pub ids: &'a [u32],
    /// The token to predict at each position, or [`MASKED`].
    pub labels: &'a [i32],
}

impl Example<'_> {
    /// Labels that can be predicted: those at positions from 1 that are not masked.
    pub fn targets(&self) -> usize {
        self.labels.iter().skip(1).filter(|&&label| label >= 0).count()
    }
}

impl TokenSet {
    /// An empty set of tokens below `vocabulary`.
    pub fn new(vocabulary: usize) -> Self {
        Self { ids: Vec::new(), labels: Vec::new(), offsets: vec![0], vocabulary }
    }

    /// Appends an example.
    ///
    /// # Panics
    /// If the lengths differ, an id or a label is not below the vocabulary, or a label is negative and not [`MASKED`].
    pub fn push(&mut self, ids: &[u32], labels: &[i32]) {
        assert_eq!(ids.len(), labels.len(), "one label a token");
        let known = |token: u64| token < self.vocabulary as u64;
        assert!(ids.iter().all(|&id| known(u64::from(id))), "ids below the vocabulary");
        assert!(
            labels.iter().all(|&label| label == MASKED || u64::try_from(label).is_ok_and(known)),
            "labels below the vocabulary"
        );
        self.ids.extend_from_slice(ids);
        self.labels.extend_from_slice(labels);
        self.offsets.push(self.ids.len() as u64);
    }

    /// Examples.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of tokens, labels and offsets.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.ids) + size_of_val(&*self.labels) + size_of_val(&*self.offsets)
    }

    /// Tokens of all examples.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// All ids and labels are below this: the tokenizer's largest id and one more.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Example `index`.
    ///
    /// # Panics
    /// If there is no such example.
    pub fn example(&self, index: usize) -> Example<'_> {
        let range = self.offsets[index] as usize..self.offsets[index + 1] as usize;
        Example { ids: &self.ids[range.clone()], labels: &self.labels[range] }
    }

    /// The examples in order.
    pub fn examples(&self) -> impl ExactSizeIterator<Item = Example<'_>> {
        (0..self.len()).map(|index| self.example(index))
    }

    /// Tokens of the longest example; 0 without any.
    pub fn longest(&self) -> usize {
        self.examples().map(|example| example.ids.len()).max().unwrap_or(0)
    }

    /// Labels that can be predicted, of all examples.
    pub fn targets(&self) -> usize {
        self.examples().map(|example| example.targets()).sum()
    }

    /// The examples that `chosen` says yes to, in order, as a set of their own.
    pub(crate) fn select_where(&self, chosen: impl Fn(usize) -> bool) -> Self {
        let mut selected = Self::new(self.vocabulary);
        for (_, example) in self.examples().enumerate().filter(|&(index, _)| chosen(index)) {
            selected.push(example.ids, example.labels);
        }
        selected
    }

    /// Ids, labels and offsets.
    pub(crate) fn parts(&self) -> (&[u32], &[i32], &[u64]) {
        (&self.ids, &self.labels, &self.offsets)
    }

    /// The set of these parts, which the caller has checked.
    pub(crate) fn from_parts(ids: Vec<u32>, labels: Vec<i32>, offsets: Vec<u64>, vocabulary: usize) -> Self {
        Self { ids, labels, offsets, vocabulary }
    }

    /// Makes room in the vocabulary for tokens whose tokenizer is unknown.
    pub(crate) fn grow_vocabulary(&mut self, ids: &[u32], labels: &[i32]) {
        let labels = labels.iter().filter_map(|&label| u32::try_from(label).ok());
        if let Some(largest) = ids.iter().copied().chain(labels).max() {
            self.vocabulary = self.vocabulary.max(largest as usize + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_of_the_first_position_is_no_target() {
        let mut set = TokenSet::new(10);
        set.push(&[1, 2, 3], &[1, MASKED, 3]);
        set.push(&[4], &[4]);
        set.push(&[], &[]);
        assert_eq!(set.len(), 3);
        assert_eq!(set.tokens(), 4);
        assert_eq!(set.longest(), 3);
        assert_eq!(set.examples().map(|example| example.targets()).collect::<Vec<_>>(), [1, 0, 0]);
        assert_eq!(set.targets(), 1);
        assert_eq!(set.example(1), Example { ids: &[4], labels: &[4] });
    }

    #[test]
    fn a_selection_keeps_the_order() {
        let mut set = TokenSet::new(10);
        set.push(&[1, 2], &[1, 2]);
        set.push(&[3], &[3]);
        set.push(&[4, 5, 6], &[4, 5, MASKED]);
        let chosen = set.select_where(|index| index != 1);
        assert_eq!(chosen.example(0), set.example(0));
        assert_eq!(chosen.example(1), set.example(2));
        assert_eq!(chosen.len(), 2);
    }

    #[test]
    #[should_panic(expected = "ids below the vocabulary")]
    fn an_id_outside_the_vocabulary_is_refused() {
        TokenSet::new(3).push(&[3], &[MASKED]);
    }
}
