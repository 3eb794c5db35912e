//! The built-in stages.
//!
//! | kind | makes | does |
//! | --- | --- | --- |
//! | `data.load` | `records` | reads a dataset and checks every row |
//! | `data.tokenize` | `tokens` | template, labels, cutoff, held-out part |
//! | `model.load`, `model.init` | `model` | a Hugging Face folder; fresh weights for a configuration |
//! | `layers.filter` | `layers` | FP8 or not for every linear layer, with the reason |
//! | `train.sft`, `train.pt` | `model` | the training loop, resumable |
//! | `eval` | `evaluation` | loss, perplexity, exact match, samples |
//! | `checkpoint.export` | `model` | a folder that Hugging Face tools load |
//! | `command` | `files` | any program, on results of stages and files of the workflow |
//!
//! Each is a file: its keys, what `plan` says of it, what it does. They share the artifact kinds and nothing else;
//! the work itself is in the crates below. [`registry`] hands them to the engine.
#![forbid(unsafe_code)]

mod backend;
mod card_check;
mod card_room;
mod checkpoint_export;
mod command;
pub mod conformance;
mod data_load;
mod data_tokenize;
mod device;
pub mod diff;
pub mod disk;
pub mod doctor;
mod engine;
mod eval;
mod failure;
mod forecast;
mod gain;
mod glob;
mod layer_plan;
mod layers_filter;
mod model;
mod model_init;
mod model_load;
mod recipe_set;
mod roofline;
pub mod support;
mod train;
mod training_memory;
pub mod verify;

use fp8flow_flow::Registry;

pub use engine::Engine;
pub use failure::{backend_class, host_class, train_class};
pub use gain::MinGain;
pub use glob::Glob;
pub use layer_plan::{FilterRule, LayerPlan, Menu, Offer, PlannedLayer, RecipeChoice};
pub use training_memory::TrainingMemory;

/// Whether stages of the kind `uses` train: those leave metrics of steps.
pub fn is_training(uses: &str) -> bool {
    train::Task::of(uses).is_some()
}

/// Every section and stage of a workflow, on `engine`.
pub fn registry(engine: &Engine) -> Registry {
    let train = |task| train::Train { engine: engine.clone(), task };
    let known = Registry::new()
        .section(device::WorkflowDevice(engine.clone()))
        .section(backend::Backend(engine.clone()))
        .stage(data_load::DataLoad)
        .stage(data_tokenize::DataTokenize(engine.clone()))
        .stage(model_load::ModelLoad)
        .stage(model_init::ModelInit(engine.clone()))
        .stage(layers_filter::LayersFilter(engine.clone()))
        .stage(train(train::Task::FineTune))
        .stage(train(train::Task::PreTrain))
        .stage(eval::Eval(engine.clone()))
        .stage(checkpoint_export::CheckpointExport(engine.clone()))
        .stage(command::Command);
    support::ELSEWHERE.iter().fold(known, |registry, (name, instead)| registry.elsewhere(name, instead))
}
