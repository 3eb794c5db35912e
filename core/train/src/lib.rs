//! The training loop: optimizer, schedule, checkpoints, metrics, evaluation.
//!
//! [`train`] turns a [`Job`] (a [`fp8flow_model::Decoder`], examples, settings and a folder) into a final checkpoint.
//! It starts where the newest whole checkpoint in the folder stands, so that a run which was killed and started again
//! ends with the same bytes as one that was not. Everything that a bit depends on is a function of the settings and the
//! step's number; there is no other state than masters, moments and what the recipe keeps.
//! After every step the digests of all masters join a chain ([`digests`]), by which two runs are told apart ([`mod@compare`]).
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod compare;
pub mod config;
pub mod digests;
mod error;
pub mod evaluation;
pub mod gradient_tree;
pub mod invariants;
pub mod job;
pub mod metrics;
pub mod optimizer;
pub mod proof;
mod room;
pub mod schedule;
pub mod telemetry;
pub mod trainer;

pub use checkpoint::{Checkpoint, Checkpoints, RecipeState};
pub use compare::{Apart, Comparison, Parting, compare, digest_of};
pub use config::TrainConfig;
pub use digests::{DIGESTS, StepDigest, first_other, read_digests};
pub use error::TrainError;
pub use evaluation::{Evaluated, Evaluation, Sample, evaluate, generate, samples};
pub use gradient_tree::Accumulation;
pub use job::{CHECKPOINTS, EVALUATIONS, Job, METRICS, TELEMETRY, Watcher, check_fit, largest_micro_batch};
pub use metrics::StepMetrics;
pub use optimizer::{Decayed, OptimizerConfig};
pub use schedule::{Decay, Schedule, Warmup};
pub use telemetry::{LayerTelemetry, read_telemetry};
pub use trainer::{Rehearsed, Trained, rehearse, train};
