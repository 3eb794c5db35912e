//! Tokenizers and rows that the tests share.

use std::path::{Path, PathBuf};

use fp8flow_data::{Conversation, DataError, Record, Role, Row, Tokenizer, Turn};
use serde_json::{Value, json};

/// The quickstart's tokenizer: ChatML's tokens, bytes, and merges for dates.
pub(crate) fn quickstart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workflows/quickstart/model")
}

/// The quickstart's tokenizer with more special tokens, and a configuration beside it.
pub(crate) fn tokenizer_with(specials: &[&str], config: &Value) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    folder_with(folder.path(), specials, config);
    Tokenizer::open(folder.path()).unwrap()
}

/// As [`tokenizer_with`], in a folder that stays.
pub(crate) fn folder_with(folder: &Path, specials: &[&str], config: &Value) {
    let text = std::fs::read_to_string(quickstart().join("tokenizer.json")).unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    let first = file["model"]["vocab"].as_object().unwrap().len();
    for (next, special) in (first..).zip(specials) {
        file["added_tokens"].as_array_mut().unwrap().push(json!({
            "id": next, "content": special, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }));
    }
    std::fs::write(folder.join("tokenizer.json"), file.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
}

/// Records as rows from 1.
pub(crate) fn rows(records: impl IntoIterator<Item = Record>) -> Vec<Result<Row, DataError>> {
    let row = |(number, record)| Ok(Row { number, record: Ok(record) });
    (1..).zip(records).map(row).collect()
}

/// A question and its answer.
pub(crate) fn ask(question: &str, answer: &str) -> Conversation {
    Conversation {
        turns: vec![Turn::new(Role::User, question), Turn::new(Role::Assistant, answer)],
        ..Conversation::default()
    }
}

/// A conversation that goes on.
pub(crate) fn follow_up(mut conversation: Conversation, question: &str, answer: &str) -> Conversation {
    conversation.turns.extend(ask(question, answer).turns);
    conversation
}
