//! `workflow.lock`: a small workflow is held to it.

use std::cell::OnceCell;

use fp8flow_flow::{Held, Pins, Plan, Workflow};
use serde_json::Value;

use crate::engine::REGISTRY;
use crate::{Bound, Room, Target};

/// Its tree, what it is compared with, and a line of text for everything that differs.
pub(crate) const TARGET: Target =
    Target { name: "lock", read, bound: Bound { factor: 2048, constant: super::MIB } };

const WORKFLOW: &str = "[backend]\nplugin = \"none\"\n[stages.records]\nuses = \"data.load\"\npath = \"rows.jsonl\"\n\
    format = \"tokens\"\n[stages.tokens]\nuses = \"data.tokenize\"\nrecords = \"records\"\n";

thread_local! {
    static PLAN: OnceCell<Plan> = const { OnceCell::new() };
}

fn plan(room: &Room) -> Plan {
    room.write("rows.jsonl", b"{\"input_ids\": [1, 2, 3]}\n{\"input_ids\": [3, 2, 1]}\n");
    let workflow = Workflow::parse(&room.path("workflow.toml"), WORKFLOW, [""; 0]).expect("TOML");
    workflow.plan(&REGISTRY).expect("a workflow")
}

fn read(room: &Room, input: &[u8]) {
    let path = room.write("workflow.lock", input);
    if let Ok(pins) = Pins::read(&path) {
        pins.write(&path).expect("what was read can be written");
        let again = Pins::read(&path).expect("and read again");
        // As text, for numbers that are none equal nothing.
        assert_eq!(format!("{again:?}"), format!("{pins:?}"), "it is another one then");
    }
    PLAN.with(|made| {
        if let Err(error) = Held::to(&path, made.get_or_init(|| plan(room)), &REGISTRY, &Value::Null) {
            assert!(!error.to_string().is_empty(), "refused without a word");
        }
    });
}
