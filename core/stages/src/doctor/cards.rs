//! NVIDIA's driver, cards and libraries, against what the recipes need.

use fp8flow_host::machine::Cuda;
use fp8flow_host::machine::cuda::{Card, Part};
use fp8flow_host::probe::ProbeFailure;
use serde_json::json;

use super::row::{Group, Row, Status, gb};
use crate::support::{CHECKED_ON, DeviceClass, MATRIX, OLDEST_CUDA, RECOMMENDED_CARD_MEMORY, Version};

const NEEDED: &str = "Needed for a card: a driver for CUDA 12.0 or later; Hopper (compute capability 9.0) or Ada (8.9); \
                      24 GB recommended.";

/// The rows; what is missing is only a failure where the workflow asks for a card.
pub(super) fn rows(cuda: Result<Cuda, ProbeFailure>, asked: bool) -> Vec<Row> {
    let missing = if asked { Status::Fail } else { Status::Warn };
    let row = |name: &str, status, found: String| Row::new(Group::Cuda, name, status, found);
    let cuda = match cuda {
        Ok(cuda) => cuda,
        Err(failure) => {
            return vec![row("driver", missing, failure.to_string()).advice("Install the driver again.")];
        }
    };
    if cuda.driver.path.is_none() {
        let found =
            if asked { "no libcuda.so.1".into() } else { "no libcuda.so.1; not needed on the CPU".into() };
        let row = row("driver", missing, found).advice(NEEDED).facts(json!({ "cuda": cuda }));
        return vec![row];
    }
    let version = cuda.driver.version.map(|(major, minor)| Version(major, minor));
    let mut rows = vec![driver(&cuda.driver, version, missing)];
    rows.extend(cuda.cards.iter().enumerate().map(|(i, card)| self::card(i, card, version, missing)));
    if cuda.driver.is_usable() && cuda.cards.is_empty() {
        rows.push(
            row("card", missing, "the driver sees none".into()).advice("Look at CUDA_VISIBLE_DEVICES."),
        );
    }
    rows.push(library("cuBLASLt", &cuda.cublas_lt, missing));
    rows.push(library("NVRTC", &cuda.nvrtc, missing));
    rows
}

fn driver(part: &Part, version: Option<Version>, missing: Status) -> Row {
    let module = Cuda::kernel_module();
    let module_words = module.as_ref().map_or(String::new(), |version| format!(", kernel module {version}"));
    let found = match (&part.problem, version) {
        (Some(problem), _) => problem.clone(),
        (None, Some(version)) => format!("CUDA {version}{module_words}; fp8flow is {CHECKED_ON}"),
        (None, None) => "it does not tell its version".into(),
    };
    let old = version.is_some_and(|version| version < OLDEST_CUDA);
    let status = if part.problem.is_some() || old { missing } else { Status::Ok };
    let row = Row::new(Group::Cuda, "driver", status, found)
        .place(part.path.as_deref().unwrap_or_default())
        .facts(json!({ "driver": part, "kernel_module": module }));
    match (old, part.problem.is_some()) {
        (true, _) => row.advice(format!("CUDA {OLDEST_CUDA} or later is needed: install a newer driver.")),
        (_, true) => row.advice(NEEDED),
        _ => row,
    }
}

fn card(number: usize, card: &Card, cuda: Option<Version>, missing: Status) -> Row {
    let capability = Version::from(card.capability);
    let rows = MATRIX.iter().filter(|row| row.device == DeviceClass::Cuda);
    let (mut fits, mut not) = (Vec::new(), Vec::new());
    for row in rows {
        let Some(needs) = row.card else { continue };
        let objection = needs.objection(capability).or_else(|| needs.driver_objection(capability, cuda?));
        match objection {
            None => fits.push(row.recipe),
            Some(reason) => not.push(json!({ "recipe": row.recipe, "reason": reason })),
        }
    }
    let found = format!("{}, compute capability {capability}, {}", card.name, gb(card.memory));
    let found = if fits.is_empty() { found } else { format!("{found}; fits {}", fits.join(", ")) };
    let facts = json!({ "card": card, "fits": fits, "not": not });
    let row =
        |status| Row::new(Group::Cuda, format!("card {number}"), status, found.clone()).facts(facts.clone());
    if capability < Version(8, 9) {
        row(missing).advice(
            "Device compute capability 8.9 or higher is required for FP8 execution: Hopper (9.0) or Ada (8.9).",
        )
    } else if fits.is_empty() {
        row(missing).advice("No recipe fits it: see the page \"What goes with what\".")
    } else if card.memory < RECOMMENDED_CARD_MEMORY {
        row(Status::Warn).advice("24 GB or more are recommended: take small models, or small micro-batches.")
    } else {
        row(Status::Ok)
    }
}

fn library(name: &str, part: &Part, missing: Status) -> Row {
    let advice = "Install CUDA's libraries, or name their folder in FP8FLOW_CUDA_DIR.";
    let row =
        |status, found: String| Row::new(Group::Cuda, name, status, found).facts(json!({ "library": part }));
    match (&part.path, part.version, &part.problem) {
        (None, ..) => row(missing, "not found".into()).advice(advice),
        (Some(path), _, Some(problem)) => row(missing, problem.clone()).place(path.clone()).advice(advice),
        (Some(path), Some((major, minor)), None) => row(Status::Ok, format!("{major}.{minor}")).place(path),
        (Some(path), None, None) => row(Status::Ok, "it does not tell its version".into()).place(path),
    }
}
