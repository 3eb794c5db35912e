//! Documents as blocks of equal length, for pre-training.

use crate::{DataError, TokenSet};

/// What came of the documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Blocks, each trained on as a whole.
    pub set: TokenSet,
    /// Tokens after the last full block, which are left out.
    pub left_out: usize,
}

impl TokenSet {
    /// The examples one after another, each followed by the token `end` unless it ends with it, cut into blocks of
    /// `length` tokens. A block may begin and end inside a document; every token is a label.
    ///
    /// # Panics
    /// If `length` is 0 or `end` is outside the vocabulary.
    pub fn blocks(&self, length: usize, end: Option<u32>) -> Result<Blocks, DataError> {
        assert!(length > 0, "blocks of one token at least");
        let mut set = Self::new(self.vocabulary());
        let mut block = Vec::new();
        let mut labels = Vec::new();
        let mut tokens = 0;
        for example in self.examples() {
            let end = end.filter(|end| example.ids.last() != Some(end));
            for &id in example.ids.iter().chain(end.as_ref()) {
                tokens += 1;
                block.push(id);
                labels.push(id as i32);
                if block.len() == length {
                    set.push(&block, &labels);
                    block.clear();
                    labels.clear();
                }
            }
        }
        if set.is_empty() {
            return Err(DataError::NoBlock { tokens, length });
        }
        Ok(Blocks { set, left_out: block.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MASKED;

    fn documents() -> TokenSet {
        let mut set = TokenSet::new(10);
        set.push(&[1, 2, 3], &[MASKED, MASKED, MASKED]);
        set.push(&[4, 9], &[4, 9]);
        set.push(&[], &[]);
        set.push(&[5], &[5]);
        set
    }

    #[test]
    fn documents_are_joined_by_their_end_token_and_cut() {
        let Blocks { set, left_out } = documents().blocks(4, Some(9)).unwrap();
        let blocks: Vec<&[u32]> = set.examples().map(|block| block.ids).collect();
        assert_eq!(blocks, [[1, 2, 3, 9], [4, 9, 9, 5]]);
        assert_eq!(left_out, 1, "the end of the last document");
        for block in set.examples() {
            assert!(block.ids.iter().zip(block.labels).all(|(&id, &label)| id as i32 == label));
        }
        assert_eq!(documents().blocks(3, None).unwrap().set.len(), 2);
    }

    #[test]
    fn tokens_and_left_out_ones_add_up() {
        for length in 1..=9 {
            let Blocks { set, left_out } = documents().blocks(length, Some(9)).unwrap();
            assert_eq!(set.tokens() + left_out, 9, "blocks of {length}");
        }
        let error = documents().blocks(10, Some(9)).unwrap_err().to_string();
        assert!(error.starts_with("9 tokens do not fill one block of 10"), "{error}");
    }
}
