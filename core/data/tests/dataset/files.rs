//! Files as they come: good ones, wrong ones and damaged ones.

use std::path::{Path, PathBuf};

use fp8flow_data::{
    DataError, Encoder, Format, Record, Records, Row, Template, Tokenizer, Tokenizing, tokenize,
};
use fp8flow_kernels::Serial;
use proptest::prelude::*;
use serde_json::json;

use crate::common::{folder_with, quickstart};

const SAMPLES: [(Format, &str, &str); 6] = [
    (
        Format::Alpaca,
        "a.json",
        r#"[{"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]]}, {"instruction": "a", "output": ""}]"#,
    ),
    (
        Format::ShareGpt,
        "s.json",
        r#"[{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "tools": "[]"}]"#,
    ),
    (
        Format::OpenAi,
        "o.jsonl",
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null, "tool_calls":
 [{"function": {"name": "f", "arguments": "{}"}}]}]}"#,
    ),
    (Format::Text, "t.jsonl", "{\"text\": \"a\"}\n{\"text\": \"\"}\n"),
    (Format::Text, "t.txt", "a line\n\n{\"text\": 1}\n"),
    (Format::Tokens, "k.jsonl", "{\"input_ids\": [1, 2], \"labels\": [-100, 2]}\n{\"input_ids\": [3, 4]}\n"),
];

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn read(path: &Path, format: Format) -> Result<Vec<Row>, DataError> {
    Records::open(path, format)?.collect()
}

#[test]
fn the_extension_decides_what_plain_text_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "t.txt", b"[a line]\n\n{\"text\": 1}\n");
    let records: Vec<_> = read(&path, Format::Text).unwrap().into_iter().map(|row| row.record).collect();
    assert_eq!(records[0], Ok(Record::Text("[a line]".into())));
    assert!(records[1].is_err());
    assert_eq!(records[2], Ok(Record::Text("{\"text\": 1}".into())));
    let path = write(folder.path(), "t.JSONL", b"{\"text\": \"a\"}");
    assert_eq!(read(&path, Format::Text).unwrap()[0].record, Ok(Record::Text("a".into())));
}

#[test]
fn a_row_of_a_wrong_shape_names_file_row_and_line_and_ends_the_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "t.jsonl", b"{\"text\": \"a\"}\n\n{\"text\": 1}\n{\"text\": \"b\"}\n");
    let mut records = Records::open(&path, Format::Text).unwrap();
    assert_eq!(records.next().unwrap().unwrap().number, 1);
    let error = records.next().unwrap().unwrap_err().to_string();
    assert_eq!(
        error,
        format!("{}: row 2 (line 3): expected `text` to be a string, found the number 1", path.display())
    );
    assert!(records.next().is_none());
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    for path in [Path::new("/nonexistent/a.json"), Path::new("/")] {
        let error = Records::open(path, Format::Alpaca).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot read {}: ", path.display())), "{error}");
    }
    let error = Tokenizer::open(Path::new("/nonexistent")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read /nonexistent: "), "{error}");
}

#[test]
fn unknown_names_list_the_known_ones() {
    let error = "alpacca".parse::<Format>().unwrap_err().to_string();
    assert_eq!(
        error,
        "unknown format `alpacca`: expected one of `alpaca`, `sharegpt`, `openai`, `text`, `tokens`"
    );
    let error = "llama2".parse::<Template>().unwrap_err().to_string();
    assert_eq!(
        error,
        "unknown template `llama2`: expected one of `llama3`, `chatml`, `alpaca`, `plain`, `folder`"
    );
    for (name, template) in Template::ALL {
        assert_eq!(name.parse::<Template>().unwrap(), template);
        assert_eq!(template.name(), name);
    }
}

#[test]
fn a_tokenizer_is_read_with_the_files_beside_it_and_nothing_is_truncated_or_padded() {
    let folder = tempfile::tempdir().unwrap();
    folder_with(
        folder.path(),
        &["<s>"],
        &json!({"bos_token": "<s>", "eos_token": {"content": "<|im_end|>"}}),
    );
    let path = folder.path().join("tokenizer.json");
    let plain = Tokenizer::open(&path).unwrap();
    let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    file["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    file["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"});
    file["model"]["dropout"] = json!(0.9);
    std::fs::write(&path, file.to_string()).unwrap();
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    assert_eq!(tokenizer.bos().map(|it| it.text.as_str()), Some("<s>"));
    assert_eq!(tokenizer.eos().map(|it| it.id), tokenizer.id("<|im_end|>"));
    assert_eq!(tokenizer.vocabulary(), tokenizer.id("<s>").unwrap() as usize + 1);
    let text = "the 7th of March 1994, in 2066";
    assert_eq!(tokenizer.encode(text).unwrap(), plain.encode(text).unwrap());
    assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap(), false).unwrap(), text);
}

#[test]
fn an_added_token_under_another_id_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    folder_with(folder.path(), &["<s>"], &json!({}));
    let path = folder.path().join("tokenizer.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let id = Tokenizer::open(&path).unwrap().id("<s>").unwrap();
    std::fs::write(&path, text.replace(&format!("\"id\":{id}"), "\"id\":5000")).unwrap();
    let error = Tokenizer::open(&path).unwrap_err().to_string();
    assert!(
        error.ends_with(&format!("expected the id 5000 for the added token `<s>`, found {id}")),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn damaged_datasets_are_read_or_refused(sample in 0..SAMPLES.len(), at: usize, bytes in prop::collection::vec(any::<u8>(), 1..4)) {
        let (format, name, text) = SAMPLES[sample];
        let mut damaged = text.as_bytes().to_vec();
        let at = at % damaged.len();
        damaged.splice(at..(at + bytes.len()).min(text.len()), bytes);
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), name, &damaged);
        if let Ok(rows) = read(&path, format) {
            let tokenizer = Tokenizer::open(&quickstart()).unwrap();
            let encoder = Encoder::new(&tokenizer, Template::ChatMl).unwrap();
            let how = Tokenizing { encoder: Some(&encoder), ..Tokenizing::default() };
            let count = rows.len() as u64;
            match tokenize(rows.into_iter().map(Ok), &how, &Serial, &|| false) {
                Ok(done) => prop_assert_eq!(done.report.kept + done.report.dropped_rows(), count),
                Err(error) => prop_assert!(
                    matches!(error, DataError::NothingLeft { .. } | DataError::Encode { .. }),
                    "{}", error
                ),
            }
        }
    }

    #[test]
    fn damaged_tokenizers_are_read_or_refused(at: usize, bytes in prop::collection::vec(any::<u8>(), 1..4), keep: usize) {
        let text = std::fs::read(quickstart().join("tokenizer.json")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut damaged = text.clone();
        // The part before the vocabulary.
        let at = at % 1300;
        damaged[at..at + bytes.len()].copy_from_slice(&bytes);
        let path = write(folder.path(), "tokenizer.json", &damaged);
        if let Ok(tokenizer) = Tokenizer::open(&path) {
            let _ = tokenizer.encode("Sep 28 1922<|im_end|>");
        }
        damaged.truncate(keep % text.len());
        std::fs::write(&path, &damaged).unwrap();
        prop_assert!(Tokenizer::open(&path).is_err());
    }
}
