//! The workflow engine: TOML to typed plan to resumable run. It knows no stage by name.
//!
//! Three steps, each of which hands on only what is whole:
//!
//! * a [`Workflow`] is text with what `--set` laid over it, in a tree in which every key and value knows its place;
//! * a [`Plan`] is checked: every key against one table of [`Field`]s, every edge against the stage it names, every
//!   part by the stage itself. Everything that is wrong is found at once ([`Findings`]), and nothing has started;
//! * a [`Run`] is a folder with a lock. A stage that is done is proven by the digests of its files and not done again;
//!   one that was left in the middle is called again with its folder as it is. Where a file that a stage has read, or
//!   the result of a stage before it, is another than it was, the stage begins afresh. What another run has made of the
//!   same is taken from the store beside the runs; [`explain`] says which, and why not the others.
//!
//! Whoever builds the engine registers [`Section`]s and [`StageKind`]s in a [`Registry`]; the same field tables give the
//! JSON Schema ([`schema::of_workflow`]) and the reference pages ([`docs::markdown`]). What happens is told in one
//! stream of [`Event`]s. [`Seen`] is a run from outside, whoever works on it: its standing, its stages, its [`Events`];
//! a look writes nothing.
//!
//! ```no_run
//! use fp8flow_flow::{Registry, Run, RunOptions, Workflow};
//! use std::sync::Arc;
//!
//! # fn main() -> Result<(), fp8flow_flow::Error> {
//! let registry = Registry::new(); // .stage(DataLoad).stage(…)
//! let workflow = Workflow::read("workflow.toml".as_ref(), ["stages.train.steps=10"])?;
//! let plan = workflow.plan(&registry)?;
//! let run = Run::open(&plan, RunOptions::default())?;
//! let finished = run.execute(&registry, Arc::new(|event: &_| println!("{event:?}")), &Arc::default())?;
//! println!("{}", finished.folder.display());
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod artifact;
pub mod atomic;
mod begun;
mod belongs;
mod birth;
mod cache;
mod changes;
mod check;
mod class;
mod consulted;
mod context;
mod crash;
pub mod digest;
pub mod docs;
mod draft;
mod edges;
mod error;
mod event;
mod events;
mod explain;
mod extent;
mod field;
mod findings;
pub mod gc;
mod graph;
mod held;
mod job;
mod journal;
mod kind;
mod lock;
mod look;
mod manifest;
mod matrix;
mod outside;
mod overrides;
mod panic;
mod params;
mod pins;
mod place;
mod places;
mod plan;
mod plan_context;
mod planner;
mod provenance;
mod record;
mod recorded;
mod registry;
mod relocate;
mod run;
mod schedule;
pub mod schema;
mod scratch;
mod seen;
mod seen_result;
mod seen_stage;
mod source;
mod stage;
mod store;
mod suggest;
mod syntax;
pub mod time;
mod verify;
mod workflow;

pub use artifact::{Artifact, Outcome};
pub use changes::Change;
pub use class::Class;
pub use context::{Reporter, StageCx};
pub use crash::Crash;
pub use error::{Error, StageError};
pub use event::{Event, Observer};
pub use events::{Entry, Events};
pub use explain::{Explained, State, explain};
pub use extent::Extent;
pub use field::{Field, Kind, Presence, above};
pub use findings::{Findings, code};
pub use held::Held;
pub use manifest::written;
pub use params::{Amount, FromParam, Params};
pub use pins::Pins;
pub use places::TextPlace;
pub use plan::{Plan, PlannedSection, PlannedStage};
pub use plan_context::{Issue, PlanCx};
pub use provenance::Tier;
pub use record::{FoundRun, Record, Status, every_run, runs};
pub use recorded::Recorded;
pub use registry::Registry;
pub use run::{Finished, Run, RunOptions};
pub use schedule::Threads;
pub use seen::{Seen, Standing};
pub use seen_result::{SeenFile, SeenResult};
pub use seen_stage::{Progress, SeenStage, StageState, Stages};
pub use stage::{Planned, Section, StageKind};
pub use verify::{Again, Difference, Redone};
pub use workflow::Workflow;
