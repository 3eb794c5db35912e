//! The `fp8flow` command line: arguments, progress, diagnostics, exit codes.
//!
//! It decides nothing about training. A command reads a workflow, asks `fp8flow-flow` for a plan with the stages of
//! `fp8flow-stages`, and shows what comes back: findings as rustc shows them, a run as bars on a terminal, as plain lines
//! elsewhere, as JSON under `--json`. What is asked for goes to stdout; progress bars, logs and errors go to stderr.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | a stage failed; running it again gives the same |
//! | 2 | the command line is wrong, or names a run that is not there |
//! | 3 | the workflow is not valid; nothing was started |
//! | 4 | `plan --check`: there is work to do |
//! | 5 | from `run --locked` and `lock --update`: something is not as it is locked |
//! | 6 | from `verify` and `diff`: bits differ |
//! | 69 | a backend or device is missing; from `doctor` and `plugin verify`: something does not work, or is too small |
//! | 70 | a bug of fp8flow or of a plugin |
//! | 74 | a file cannot be read or written |
//! | 75 | interrupted: a run's state is saved, run again to go on |
//! | 130, 143 | a second signal: left at once |
#![forbid(unsafe_code)]

mod args;
mod bench_card_text;
mod bench_text;
mod choose;
mod commands;
mod doctor_text;
mod engine;
mod explain_text;
mod failure;
mod graph_text;
mod human;
mod logging;
mod plan_text;
mod run_text;
mod screen;
mod shown;
mod signals;
mod table;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use fp8flow_flow::Class;

use crate::args::Args;
use crate::screen::Screen;

/// The whole program: [`run`] with logging, and a panic as exit code 70.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // A plugin at work is tried in a child process, which is this program: then nothing else is done.
    fp8flow_stages::doctor::run_if_child();
    fp8flow_stages::conformance::run_if_child();
    let arguments = match Args::read(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed pipe is nobody's fault.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let screen = Screen::new(arguments.common.json);
    logging::start(&arguments.common, &screen);
    fp8flow_host::crash::explain(commands::after_a_crash(&arguments.common, &arguments.command));
    let code = catch_unwind(AssertUnwindSafe(|| execute(arguments, &screen)));
    ExitCode::from(code.unwrap_or(Class::Bug.exit_code()))
}

/// Runs the command that `arguments` (the program's name first) ask for, and returns its exit code.
pub fn run<T: Into<OsString> + Clone>(arguments: impl IntoIterator<Item = T>) -> u8 {
    match Args::read(arguments) {
        Ok(arguments) => {
            let screen = Screen::new(arguments.common.json);
            execute(arguments, &screen)
        }
        Err(error) => {
            let _ = error.print();
            u8::try_from(error.exit_code()).unwrap_or(2)
        }
    }
}

fn execute(arguments: Args, screen: &Screen) -> u8 {
    let code = match commands::execute(arguments, screen) {
        Ok(()) => 0,
        Err(failure) => {
            failure.show(screen);
            failure.exit_code()
        }
    };
    match screen.lost() {
        Some(why) if code == 0 => {
            screen.complain(format!("error: cannot write to stdout: {why}"));
            Class::Io.exit_code()
        }
        _ => code,
    }
}
