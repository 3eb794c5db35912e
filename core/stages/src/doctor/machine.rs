//! Processor, memory and disk.

use std::path::Path;

use fp8flow_host::machine::{Disk, Memory, Processor};
use fp8flow_sdk::kernels::Isa;
use serde_json::{Map, Value, json};

use super::Question;
use super::row::{Group, Row, Status, gb};

/// Free disk below which it is worth saying: a small model's checkpoints.
const LITTLE_DISK: u64 = 2_000_000_000;

pub(super) fn rows(question: &Question<'_>, memory: Option<Memory>, runs: &Path) -> Vec<Row> {
    vec![processor(question), memory_row(memory), disk(runs)]
}

fn processor(question: &Question<'_>) -> Row {
    let processor = Processor::look();
    let chosen = question.engine.cpu().isa;
    let name = processor.name.clone().unwrap_or_else(|| "a processor without a name".into());
    let has: Vec<&str> =
        processor.features.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
    let (avx512, others): (Vec<_>, Vec<_>) = has.into_iter().partition(|name| name.starts_with("avx512"));
    let avx512 = match avx512.len() {
        0 => "no AVX-512",
        4 => "AVX-512",
        _ => "parts of AVX-512",
    };
    let features = format!("{}, {avx512}", others.join(", ").to_uppercase());
    let threads = match question.threads {
        1 => "1 thread".into(),
        n => format!("{n} threads"),
    };
    let found = format!("{name}: {features}; kernels: {}, {threads}", chosen.name());
    let features: Map<String, Value> =
        processor.features.iter().map(|&(name, there)| (name.to_owned(), there.into())).collect();
    let facts = json!({
        "processor": processor.name,
        "features": features,
        "isa": chosen.name(),
        "threads": question.threads,
        "threads_available": processor.threads,
    });
    let row = |status| Row::new(Group::Machine, "cpu", status, found.clone()).facts(facts.clone());
    if chosen == Isa::Scalar {
        row(Status::Warn).advice(
            "The specification runs, tens of times slower than AVX2 with FMA and F16C: use a processor that has them, or unset \
             FP8FLOW_ISA.",
        )
    } else if chosen < Isa::best() {
        row(Status::Warn).advice("Unset FP8FLOW_ISA: the processor can do better, and the bits are the same.")
    } else {
        row(Status::Ok)
    }
}

fn memory_row(memory: Option<Memory>) -> Row {
    let Some(memory) = memory else {
        return Row::new(Group::Machine, "memory", Status::Warn, "the system does not tell")
            .advice("Mount /proc to let it.");
    };
    let limit = memory.limit.map_or(String::new(), |limit| format!(", limited to {}", gb(limit)));
    let found = format!("{} available of {}{limit}", gb(memory.available), gb(memory.total));
    Row::new(Group::Machine, "memory", Status::Ok, found).facts(json!(memory))
}

fn disk(runs: &Path) -> Row {
    let row = |status, found: String| Row::new(Group::Machine, "disk", status, found);
    match Disk::of(runs) {
        Err(error) => {
            row(Status::Warn, format!("the system does not tell: {error}")).place(runs.display().to_string())
        }
        Ok(disk) => {
            let row = |status| {
                row(status, format!("{} free for runs", gb(disk.free)))
                    .place(disk.folder.display().to_string())
                    .facts(json!(disk))
            };
            if !disk.writable {
                row(Status::Warn)
                    .advice("It cannot be written to: name another folder with `run --runs DIR`.")
            } else if disk.free < LITTLE_DISK {
                row(Status::Warn).advice("A checkpoint takes 12 bytes a parameter: make room.")
            } else {
                row(Status::Ok)
            }
        }
    }
}
