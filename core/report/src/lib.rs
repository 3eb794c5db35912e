//! A run for people who were not there, and for programs that others wrote: read from its folder, never from its
//! process.
//!
//! * [`page`] is `report.html`: one file without a script and without anything from elsewhere;
//! * [`svg`] is the curves of the loss, of one run or of several;
//! * [`export`] is what other tools watch: TensorBoard's event files and LLaMA-Factory's `trainer_log.jsonl`, also while
//!   the run is at work.
//!
//! Nothing here starts, ends or changes a run. Whatever is shown comes from files that others could have written: it is
//! escaped, shortened and counted before it is believed.
#![forbid(unsafe_code)]

mod axis;
mod chart;
mod columns;
mod curve;
mod error;
mod export;
mod facts;
mod html;
mod notes;
mod page;
mod svg;
mod tensorboard;
mod trainer_log;
pub mod words;

pub use curve::{Curve, HeldOut};
pub use error::ReportError;
pub use export::{Export, export, follow};
pub use html::escaped;
pub use page::{FILE, page, write};
pub use svg::svg;
