//! Slips of the fingers are found wherever they are, and no text makes the engine panic.

use fp8flow_flow::{Error, Workflow};
use proptest::prelude::*;

use crate::toys::{self, Calls};

/// Every key of every table, so that each can be misspelt.
const EVERY_KEY: &str = r#"[workflow]
name = "toy"
seed = 7
device = "cpu"

[backend]
plugin = "scaled"
options = { round = "up" }

[stages.records]
uses = "data.load"
path = "rows.txt"
format = "text"

[stages.tokens]
uses = "data.tokenize"
records = "records"
held_out = 0.25
cutoff = 100

[stages.model]
uses = "model.init"
width = 64

[stages.train]
uses = "train.sft"
model = "model"
tokens = "tokens"
teacher = "model"
steps = 4
layers = [1]
mishap = "none"

[stages.train.optimizer]
kind = "adamw"
lr = 1e-3
betas = [0.9, 0.95]

[stages.train.checkpoint]
every_steps = 2

[stages.export]
uses = "checkpoint.export"
model = "train"
dir = "out"
"#;

/// Names of keys that stand beside each other: a slip that makes one of another is no slip.
const NAMES: [&str; 24] = [
    "workflow",
    "backend",
    "stages",
    "name",
    "seed",
    "device",
    "plugin",
    "options",
    "uses",
    "path",
    "format",
    "records",
    "held_out",
    "cutoff",
    "width",
    "model",
    "tokens",
    "teacher",
    "steps",
    "layers",
    "mishap",
    "optimizer",
    "checkpoint",
    "dir",
];

/// Where a key of the engine or of a stage stands: the line, from 1, and the columns.
fn keys() -> Vec<(usize, std::ops::Range<usize>)> {
    let mut keys = Vec::new();
    for (index, line) in EVERY_KEY.lines().enumerate() {
        if let Some((key, _)) = line.split_once(" = ") {
            keys.push((index + 1, 0..key.len()));
        } else if let Some(header) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            // `stages` once: where it is misspelt in one header, it still stands in the others. The stages' own names
            // are the author's.
            let mut at = 1;
            for (depth, part) in header.split('.').enumerate() {
                if depth != 1 {
                    keys.push((index + 1, at..at + part.len()));
                }
                at += part.len() + 1;
            }
        }
    }
    keys
}

/// `word` with one slip at `at`: a letter left out, doubled by another, replaced, or swapped with the next.
fn slip(word: &str, kind: u8, at: usize, letter: char) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    let at = at % letters.len();
    match kind {
        0 => drop(letters.remove(at)),
        1 => letters.insert(at, letter),
        2 => letters[at] = letter,
        _ if at + 1 < letters.len() => letters.swap(at, at + 1),
        _ => letters.push(letter),
    }
    letters.into_iter().collect()
}

#[test]
fn the_workflow_with_every_key_is_good() {
    toys::plan(&toys::folder(), EVERY_KEY, &[]).expect("nothing is wrong");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_slip_in_any_key_is_found_in_its_line_with_the_key_that_was_meant(
        which in any::<prop::sample::Index>(), kind in 0u8..4, at in 0usize..64, letter in "[a-z_]",
    ) {
        let keys = keys();
        let (line, columns) = which.get(&keys).clone();
        let mut lines: Vec<String> = EVERY_KEY.lines().map(String::from).collect();
        let word = lines[line - 1][columns.clone()].to_owned();
        let slipped = slip(&word, kind, at, letter.chars().next().expect("one letter"));
        prop_assume!(slipped != word && !slipped.is_empty() && !NAMES.contains(&slipped.as_str()));
        lines[line - 1].replace_range(columns, &slipped);
        let text = lines.join("\n");
        let Err(Error::Workflow(findings)) = toys::plan(&toys::folder(), &text, &[]) else {
            return Err(TestCaseError::fail(format!("`{slipped}` for `{word}` was not found")));
        };
        let found = findings.json().into_iter().any(|finding| {
            // The options of a recipe are checked by the section, which suggests nothing in this test.
            let meant = finding["help"].as_str().is_some_and(|help| help.contains(&format!("`{word}`")));
            finding["code"] == "F0101" && finding["line"] == line && meant
        });
        prop_assert!(found, "`{slipped}` for `{word}` in line {line}:\n{findings}");
    }

    #[test]
    fn no_text_and_no_assignment_makes_the_engine_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0usize..3), 1..12),
        set in "(stages|workflow|backend)?[.]?(train|options)?[.]?[a-z\"'.=\\[{]{0,6}=?\\PC{0,8}",
    ) {
        let mut bytes = EVERY_KEY.as_bytes().to_vec();
        for (at, byte, kind) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let folder = toys::folder();
        let path = folder.path().join("w.toml");
        let planned = Workflow::parse(&path, text.clone(), [&set])
            .and_then(|workflow| workflow.plan(&toys::registry(&Calls::default())));
        match planned {
            Ok(plan) => drop(plan.json().to_string()),
            Err(Error::Workflow(findings)) => {
                prop_assert!(findings.errors() > 0);
                let _ = (findings.render(true), findings.to_string(), findings.json());
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
    }
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    for text in [format!("a = {}", "[".repeat(100_000)), format!("{} = 1", vec!["a"; 50_000].join("."))] {
        let said = toys::said(&text, &[]);
        assert!(said.contains("error[F01"), "{}", &said[..said.len().min(500)]);
    }
    let said = toys::said(toys::GOOD, &[&format!("backend.options={}", "[".repeat(100_000))]);
    assert!(said.contains("error[F0100]"));
}
