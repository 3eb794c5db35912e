//! One attempt: the program is started, heard, and ended where it takes too long or the run is to stop.

use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use fp8flow_flow::{StageCx, StageError};
use fp8flow_host::program::{METRICS_FD, Program, Running};

use super::ear::Ear;
use super::settings::Settings;
use super::{LOG, duration, environment, given, program};

/// Between two looks at the clock and at the flag.
const LOOK: Duration = Duration::from_millis(100);

pub(super) struct Attempt<'a, 'c> {
    pub(super) cx: &'a StageCx<'c>,
    pub(super) settings: &'a Settings,
    /// From 1.
    pub(super) number: u64,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With status 0.
    Well,
    /// With another.
    Exit {
        /// Which.
        status: i32,
        /// The last lines of its errors.
        last: Vec<String>,
    },
    /// By a signal that is not ours.
    Signal {
        /// Which.
        number: i32,
        /// The last lines of its errors.
        last: Vec<String>,
    },
    /// It took longer than this.
    TimedOut(Duration),
    /// The run is to stop.
    Stopped,
}

impl Attempt<'_, '_> {
    pub(super) fn run(&self) -> Result<Ended, StageError> {
        let cx = self.cx;
        cx.stop_if_cancelled()?;
        let mut ear = Ear::new(cx.folder(), cx.reporter().clone());
        if self.number > 1 {
            ear.note(&format!("-- attempt {} --", self.number));
        }
        let program = self.program()?;
        let mut running = program.0.start().map_err(|error| {
            StageError::failed(format!("`{}` cannot be started: {error}", program.1))
                .help("A script needs a first line that names an interpreter which is there; a program, this kind of machine.")
        })?;
        self.watch(&mut running, &mut ear)
    }

    /// The program, and its name.
    fn program(&self) -> Result<(Program, String), StageError> {
        let cx = self.cx;
        let mut arguments = given::arguments(cx)?.into_iter();
        let first = arguments.next().unwrap_or_default();
        let path = program::resolve(cx.params(), &first)?;
        let stage = given::write(cx)?;
        let name = first.to_string_lossy().into_owned();
        let mut program = Program::new(path, first, cx.params().base());
        for argument in arguments {
            program = program.argument(argument);
        }
        for (name, value) in environment::of(cx.params(), |name| std::env::var_os(name)) {
            program = program.set(name, value);
        }
        let program = program
            .set(environment::STAGE, stage)
            .set(environment::METRICS_FD, METRICS_FD.to_string())
            .set(environment::METRICS, format!("/dev/fd/{METRICS_FD}"));
        Ok((program, name))
    }

    fn watch(&self, running: &mut Running, ear: &mut Ear) -> Result<Ended, StageError> {
        let begun = Instant::now();
        // Why it is to end, and when it will be killed.
        let mut ending: Option<(Ended, Instant)> = None;
        let status = loop {
            let ended = running.wait(LOOK, &mut |stream, bytes| ear.hear(stream, bytes));
            let ended =
                ended.map_err(|error| StageError::failed(format!("the program cannot be heard: {error}")))?;
            ear.flush()?;
            if let Some(status) = ended {
                break status;
            }
            let timeout = self.settings.timeout.filter(|timeout| begun.elapsed() >= *timeout);
            match &ending {
                Some((_, kill)) if Instant::now() >= *kill => running.kill(),
                Some((Ended::TimedOut(_), kill)) if self.cx.cancelled() => {
                    ending = Some((Ended::Stopped, *kill));
                }
                Some(_) => {}
                None if self.cx.cancelled() => ending = Some(self.ask(running, Ended::Stopped)),
                None => ending = timeout.map(|timeout| self.ask(running, Ended::TimedOut(timeout))),
            }
        };
        ear.finish()?;
        let last: Vec<String> = ear.last.drain(..).collect();
        Ok(ending.map_or_else(|| Ended::by(status, last), |(why, _)| why))
    }

    fn ask(&self, running: &Running, why: Ended) -> (Ended, Instant) {
        running.ask_to_end();
        (why, Instant::now() + self.settings.grace)
    }
}

impl Ended {
    fn by(status: ExitStatus, last: Vec<String>) -> Self {
        match (status.code(), status.signal()) {
            (Some(0), _) => Self::Well,
            (Some(status), _) => Self::Exit { status, last },
            (None, number) => Self::Signal { number: number.unwrap_or_default(), last },
        }
    }

    pub(super) fn is_well(&self) -> bool {
        *self == Self::Well
    }

    /// One word for programs.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Well => "well".into(),
            Self::Exit { status, .. } => format!("exit {status}"),
            Self::Signal { number, .. } => format!("signal {number}"),
            Self::TimedOut(_) => "timeout".into(),
            Self::Stopped => "stopped".into(),
        }
    }

    /// How it ended, for people.
    pub(super) fn words(&self, cx: &StageCx<'_>) -> String {
        let argv: Vec<&str> = cx.params().get("argv");
        let name = argv.first().copied().unwrap_or_default();
        match self {
            Self::Well => format!("`{name}` has ended"),
            Self::Exit { status, .. } => format!("`{name}` ended with status {status}"),
            Self::Signal { number, .. } => format!("`{name}` was ended by signal {}", signal_name(*number)),
            Self::TimedOut(timeout) => format!("`{name}` took longer than {}", duration::words(*timeout)),
            Self::Stopped => format!("`{name}` was stopped as asked; nothing of what it made is kept"),
        }
    }

    /// The same as the stage's error, with the last lines of what the program said of it.
    pub(super) fn error(&self, cx: &StageCx<'_>, attempts: u64) -> StageError {
        let mut message = self.words(cx);
        if attempts > 1 {
            let _ = write!(message, " at attempt {attempts}");
        }
        if *self == Self::Stopped {
            return StageError::interrupted(message);
        }
        if let Self::Exit { last, .. } | Self::Signal { last, .. } = self {
            for line in last {
                let _ = write!(message, "\n  {line}");
            }
        }
        let log = cx.folder().join(LOG);
        let error = StageError::failed(message);
        match self {
            Self::TimedOut(_) => {
                error.help("Raise `timeout`, or let it be begun again: `retry = { on = [\"timeout\"] }`.")
            }
            _ if log.exists() => error.help(format!("Everything it printed is in {}.", log.display())),
            _ => error,
        }
    }
}

fn signal_name(number: i32) -> String {
    let name = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return number.to_string(),
    };
    format!("{number} ({name})")
}
