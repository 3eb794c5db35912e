//! `workflow.toml`, read and planned with the real stages in a folder with a small dataset and the
//! configuration of a small model. What follows a zero byte is laid over it as by `--set`.

use fp8flow_flow::{Error, Workflow};

use crate::engine::REGISTRY;
use crate::{Bound, Room, Target};

/// The tree, its checked copy, and what is said about every key of it with the lines it stands in.
pub(crate) const TARGET: Target =
    Target { name: "workflow", read, bound: Bound { factor: 2048, constant: 2 * super::MIB } };

const ROWS: &str = "{\"input_ids\": [1, 2, 3]}\n";
const CONFIG: &str = r#"{"model_type": "llama", "vocab_size": 64, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}"#;

fn read(room: &Room, input: &[u8]) {
    for (name, content) in [("rows.jsonl", ROWS), ("model/config.json", CONFIG)] {
        if !room.path(name).exists() {
            room.write(name, content.as_bytes());
        }
    }
    let text = String::from_utf8_lossy(input);
    let mut texts = text.split('\0');
    let file = texts.next().unwrap_or_default();
    let planned = Workflow::parse(&room.path("workflow.toml"), file, texts)
        .and_then(|workflow| workflow.plan(&REGISTRY));
    match planned {
        Ok(plan) => drop(plan.json().to_string()),
        Err(Error::Workflow(findings)) => {
            assert!(findings.errors() > 0, "refused without an error");
            drop((findings.render(true), findings.to_string(), findings.json()));
        }
        Err(error) => panic!("no error of a workflow: {error}"),
    }
}
