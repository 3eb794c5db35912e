//! Tokenizers and rows that the tests share.

use std::path::{Path, PathBuf};

use fp8flow_data::{Record, Row, Tokenizer};
use serde_json::{Value, json};

/// The quickstart's tokenizer: ChatML's tokens, bytes, and merges for dates.
pub fn quickstart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workflows/quickstart/model")
}

/// The quickstart's tokenizer with more special tokens, and a configuration beside it.
pub fn tokenizer_with(specials: &[&str], config: &Value) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    folder_with(folder.path(), specials, config);
    Tokenizer::open(folder.path()).unwrap()
}

/// As [`tokenizer_with`], in a folder that stays.
pub fn folder_with(folder: &Path, specials: &[&str], config: &Value) {
    let text = std::fs::read_to_string(quickstart().join("tokenizer.json")).unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    let mut next = file["model"]["vocab"].as_object().unwrap().len();
    for special in specials {
        file["added_tokens"].as_array_mut().unwrap().push(json!({
            "id": next, "content": special, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }));
        next += 1;
    }
    std::fs::write(folder.join("tokenizer.json"), file.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
}

/// Records as rows from 1.
pub fn rows(records: impl IntoIterator<Item = Record>) -> Vec<Result<Row, fp8flow_data::DataError>> {
    let row = |(number, record)| Ok(Row { number, record: Ok(record) });
    (1..).zip(records).map(row).collect()
}
