//! Holds a source to its budget: compiled for every architecture, without a card.

use std::process::Command;

use crate::card::Architecture;
use crate::library::Needed;
use crate::{Error, Result, Source, compile, places};

/// What came of the check of a source.
#[derive(Debug, Default)]
pub struct Checked {
    /// A line for each architecture: what each entry point takes.
    pub seen: Vec<String>,
    /// What is over the budget, missing or not to be checked here.
    pub faults: Vec<String>,
    /// Instructions that were expected and could not be looked for, since there is no disassembler.
    pub unseen: usize,
}

/// Set to `required` where kernels must be compiled, so that it is a failure if they cannot be.
const VARIABLE: &str = "FP8FLOW_TEST_NVRTC";

/// Checks every one of `sources` and says what was seen; skips, and says why, where there is no compiler for them.
///
/// # Panics
/// If a source is over its budget, or there is no compiler where one is required.
pub fn check_all(sources: &[Source]) {
    if let Err(error) = Needed::Nvrtc.open() {
        assert!(std::env::var_os(VARIABLE).is_none_or(|which| which != "required"), "{error}");
        println!("skipped: kernels are not compiled here: {error}");
        return;
    }
    let mut faults = Vec::new();
    for source in sources {
        let checked = check(*source);
        for line in checked.seen {
            println!("{line}");
        }
        if checked.unseen > 0 {
            println!(
                "skipped: {}: {} instructions are not looked for, without nvdisasm",
                source.name, checked.unseen
            );
        }
        faults.extend(checked.faults);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Compiles `source` for every architecture that it is for and compares with what its head states.
pub fn check(source: Source) -> Checked {
    let mut checked = Checked::default();
    let Some(budget) = source.budget() else {
        checked.faults.push(format!("{}: its head states no budget", source.name));
        return checked;
    };
    if let Some(only) =
        budget.only.as_deref().filter(|only| Architecture::ALL.iter().all(|a| a.name() != *only))
    {
        checked.faults.push(format!("{}: there is no architecture {only}", source.name));
    }
    for architecture in Architecture::ALL {
        let place = format!("{} for {}", source.name, architecture.name());
        if let Some(only) = budget.only.as_deref().filter(|only| *only != architecture.name()) {
            checked.seen.push(format!("{place}: not compiled, it is for {only} only"));
            continue;
        }
        let compiled = match compile::compile(source, architecture) {
            Ok(compiled) => compiled,
            Err(error) => {
                checked.faults.push(error.to_string());
                continue;
            }
        };
        // ptxas's words where it finds no registers to run products of warp groups on the side.
        let slowed = compiled.log.lines().filter(|line| line.contains("serialized"));
        checked.faults.extend(slowed.map(|line| format!("{place}: {}", line.trim())));
        let mut entries = source.entries();
        for used in compiled.resources() {
            checked.seen.push(format!("{place}: {} takes {} registers", used.entry, used.registers));
            entries.retain(|entry| *entry != used.entry);
            if used.registers > budget.registers || used.registers == 0 {
                let (entry, found, most) = (used.entry, used.registers, budget.registers);
                checked.faults.push(format!("{place}: {entry} takes {found} registers, of {most}"));
            } else if used.spills > budget.spills {
                let (entry, found, most) = (used.entry, used.spills, budget.spills);
                checked.faults.push(format!("{place}: {entry} spills {found} bytes, of {most}"));
            }
        }
        checked.faults.extend(entries.iter().map(|entry| format!("{place}: no entry point {entry}")));
        let wanted: Vec<&str> = budget
            .expects
            .iter()
            .filter(|(name, _)| name == architecture.name())
            .map(|(_, opcode)| opcode.as_str())
            .collect();
        if wanted.is_empty() {
            continue;
        }
        match disassemble(&compiled.cubin) {
            Ok(Some(text)) => checked.faults.extend(
                wanted
                    .iter()
                    .filter(|opcode| !has(&text, opcode))
                    .map(|opcode| format!("{place}: no instruction {opcode}")),
            ),
            Ok(None) => checked.unseen += wanted.len(),
            Err(error) => checked.faults.push(format!("{place}: {error}")),
        }
    }
    checked
}

/// Whether an instruction of `text` starts with `opcode`.
fn has(text: &str, opcode: &str) -> bool {
    text.lines().any(|line| line.split_whitespace().any(|word| word.starts_with(opcode)))
}

/// The instructions of a CUBIN, if there is a disassembler.
fn disassemble(cubin: &[u8]) -> Result<Option<String>> {
    let Some(tool) = places::tool("nvdisasm") else { return Ok(None) };
    let failed = |error: std::io::Error| Error::Unsupported(format!("{}: {error}", tool.display()));
    let path = std::env::temp_dir().join(format!("fp8flow-{}.cubin", std::process::id()));
    std::fs::write(&path, cubin).map_err(failed)?;
    let output = Command::new(&tool).arg("-c").arg(&path).output();
    let _ = std::fs::remove_file(&path);
    let output = output.map_err(failed)?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::Unsupported(format!("{} failed: {words}", tool.display())));
    }
    Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
}
