//! How a command fails: what is shown, and the exit code.

use std::fmt::Display;

use fp8flow_bench::BenchError;
use fp8flow_flow::{Class, Error, Findings};
use fp8flow_host::HostError;
use fp8flow_report::ReportError;
use fp8flow_train::TrainError;
use serde_json::json;

use crate::screen::Screen;

const RED: &str = "\x1b[1;91m";
const YELLOW: &str = "\x1b[1;33m";
const CYAN: &str = "\x1b[1;96m";
const RESET: &str = "\x1b[0m";

/// The exit code of a command line that is not understood, as `clap` has it.
const USAGE: u8 = 2;
/// The exit code of [`Failure::WorkNeeded`], which is no error and has no class.
const WORK_NEEDED: u8 = 4;

/// Why a command has no result.
pub(crate) enum Failure {
    /// The engine says why.
    Engine(Error),
    /// What was asked for is shown already, and it is a no.
    Said(Class),
    /// The command line names what is not there.
    Usage { message: String, help: String },
    /// Asked whether there is work to do: there is, and it is shown already.
    WorkNeeded,
    /// Anything else.
    Other { class: Class, message: String, help: Option<String> },
}

impl Failure {
    pub(crate) fn new(class: Class, message: impl Display) -> Self {
        Self::Other { class, message: message.to_string(), help: None }
    }

    pub(crate) fn usage(message: impl Display, help: impl Into<String>) -> Self {
        Self::Usage { message: message.to_string(), help: help.into() }
    }

    pub(crate) fn help(self, sentence: impl Into<String>) -> Self {
        match self {
            Self::Other { class, message, .. } => Self::Other { class, message, help: Some(sentence.into()) },
            other => other,
        }
    }

    /// The class of an error, unless the command line is at fault.
    fn class(&self) -> Option<Class> {
        match self {
            Self::Engine(error) => Some(error.class()),
            Self::Said(class) | Self::Other { class, .. } => Some(*class),
            Self::Usage { .. } | Self::WorkNeeded => None,
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        if let Self::WorkNeeded = self { WORK_NEEDED } else { self.class().map_or(USAGE, Class::exit_code) }
    }

    fn message(&self) -> String {
        match self {
            Self::Engine(error) => error.to_string(),
            Self::Said(_) | Self::WorkNeeded => String::new(),
            Self::Usage { message, .. } | Self::Other { message, .. } => message.clone(),
        }
    }

    fn sentence(&self) -> Option<String> {
        match self {
            Self::Engine(error) => error.help(),
            Self::Said(_) | Self::WorkNeeded => None,
            Self::Usage { help, .. } => Some(help.clone()).filter(|help| !help.is_empty()),
            Self::Other { help, .. } => help.clone(),
        }
    }

    /// On stderr for people, or as one object on stdout.
    pub(crate) fn show(&self, screen: &Screen) {
        if let Self::Said(_) | Self::WorkNeeded = self {
            return;
        }
        if screen.json() {
            let findings =
                if let Self::Engine(Error::Workflow(findings)) = self { findings.json() } else { Vec::new() };
            let message =
                if findings.is_empty() { self.message() } else { "the workflow is not valid".into() };
            let object = json!({
                "event": "error",
                "class": self.class().map_or_else(|| json!("usage"), |class| json!(class)),
                "exit_code": self.exit_code(),
                "message": message,
                "help": self.sentence(),
                "findings": findings,
            });
            return screen.print(object.to_string());
        }
        if let Self::Engine(Error::Workflow(findings)) = self {
            return show_findings(findings, screen);
        }
        let (colour, word) =
            if self.class() == Some(Class::Interrupted) { (YELLOW, "stopped") } else { (RED, "error") };
        screen.complain(format!("{colour}{word}{RESET}: {}", self.message()));
        if let Self::Engine(Error::Stage { run, .. }) = self {
            screen.complain(format!("  run: {}", run.display()));
        }
        if let Some(help) = self.sentence() {
            screen.complain(format!("{CYAN}help{RESET}: {help}"));
        }
    }
}

/// Everything that is wrong, and that nothing was started.
fn show_findings(findings: &Findings, screen: &Screen) {
    let errors = findings.errors();
    let plural = if errors == 1 { "" } else { "s" };
    screen.complain(findings.render(true));
    screen.complain(format!("\n{errors} error{plural}; nothing was started"));
}

/// Shows what a person should know although the workflow is valid.
pub(crate) fn show_warnings(warnings: &Findings, screen: &Screen) {
    if !warnings.is_empty() && !screen.json() {
        screen.complain(warnings.render(true));
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        Self::new(fp8flow_stages::train_class(&error), error)
    }
}

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Run(error) => error.into(),
            ReportError::Training(error) => error.into(),
            error @ (ReportError::Read { .. } | ReportError::Write { .. }) => Self::new(Class::Io, error),
        }
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        Self::new(error.class(), error)
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        Self::new(fp8flow_stages::host_class(&error), error)
    }
}
