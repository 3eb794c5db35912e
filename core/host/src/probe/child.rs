//! The child's side: what is tried in it, and how it says so.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use fp8flow_kernels::Isa;
use fp8flow_sdk::{Host, HostServices, Level};

use super::{ANSWERS, MARK, OBJECTION, SURVIVED, VARIABLE};
use crate::found::{Candidate, Settings};
use crate::{HostError, Origin, Place, library};

/// In a child, [`MARK`] and the word it was told.
static SIGNED: OnceLock<String> = OnceLock::new();

/// In the child, does what this crate tries in children and exits; otherwise notes that this executable can be that child.
pub fn run_if_child() {
    answer(VARIABLE, |path| try_plugin(Path::new(&path)));
    crate::machine::cuda::run_if_child();
    ANSWERS.store(true, Ordering::Relaxed);
}

/// In a child that was asked by `variable`, does `task` with its value and exits; otherwise does nothing.
pub fn answer(variable: &str, task: impl FnOnce(OsString)) {
    let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) else { return };
    no_core_dump();
    crate::crash::listen();
    let mut word = String::new();
    // Without a word nobody listens.
    let _ = std::io::stdin().read_line(&mut word);
    let _ = SIGNED.set(format!("{MARK}{} ", word.trim()));
    task(value);
    say(SURVIVED);
    std::process::exit(0);
}

/// Opens and starts the plugin.
fn try_plugin(path: &Path) {
    if let Err(error) = open_and_start(path) {
        say(&format!("{OBJECTION}{}", error.to_string().replace(char::is_control, " ")));
    }
}

fn open_and_start(path: &Path) -> Result<(), HostError> {
    let place = Place { origin: Origin::Path, path: path.to_owned() };
    say("open");
    let found = Candidate::look(path)
        .and_then(|candidate| candidate.digest(&place, &Arc::new(Settings::default())))
        .map_err(|refusal| refusal.of(path.to_owned()))?;
    let opened = library::open(&found)?;
    say("start");
    // Dropped at once: that has to work too.
    opened.library.start(&Host::new(Arc::new(Alone)))?;
    Ok(())
}

/// In a child, says a line to whoever asked; the last one tells where it was if it does not survive.
pub fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // If nobody can hear it, the line that it survived is missed too.
    let signed = SIGNED.get().map_or(MARK, String::as_str);
    let _ = writeln!(stdout, "\n{signed}{line}").and_then(|()| stdout.flush());
}

/// A crash here is expected, and its memory of no interest.
#[allow(unsafe_code)]
fn no_core_dump() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is complete and lives through the call.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
}

/// One thread and no log.
struct Alone;

impl HostServices for Alone {
    fn isa(&self) -> Isa {
        Isa::best()
    }

    fn threads(&self) -> usize {
        1
    }

    fn parallel_for(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(body);
    }

    fn log_enabled(&self, level: Level, _target: &str) -> bool {
        level == Level::Error
    }

    fn log(&self, _level: Level, target: &str, message: &str) {
        eprintln!("{target}: {message}");
    }

    fn reduce_amax(&self, _values: &mut [f32]) {}

    fn cancelled(&self) -> bool {
        false
    }
}
