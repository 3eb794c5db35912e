//! Logs of this program and of its plugins: `tracing` to stderr, between the bars.

use std::io;
use std::panic;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::args::Common;
use crate::screen::Screen;

/// The environment variable that chooses what is logged, as `tracing_subscriber` reads it.
const VARIABLE: &str = "FP8FLOW_LOG";

/// Starts logging, and makes a panic a line of the log.
pub(crate) fn start(common: &Common, screen: &Screen) {
    let level = match (common.quiet, common.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let filter = match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).unwrap_or_else(|error| {
            screen.complain(format!("{VARIABLE}={text} is not understood, and `{level}` stands: {error}"));
            EnvFilter::new(level)
        }),
        _ => EnvFilter::new(level),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(BetweenBars(screen.clone()))
        .with_target(true);
    // A test, or a program around this one, may have started its own.
    let _ = if common.json { log.json().try_init() } else { log.with_ansi(true).compact().try_init() };
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, |place| format!(" at {place}"));
        let words = panic.payload_as_str().unwrap_or("a panic without words");
        tracing::error!("a bug{place}: {words}");
    }));
}

/// Writes whole log lines with the bars out of the way.
struct BetweenBars(Screen);

/// One line, written when it is complete.
struct Line {
    screen: Screen,
    text: Vec<u8>,
}

impl MakeWriter<'_> for BetweenBars {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line { screen: self.0.clone(), text: Vec::new() }
    }
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let text = std::mem::take(&mut self.text);
        if text.is_empty() { Ok(()) } else { self.screen.write_raw(&text) }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = io::Write::flush(self);
    }
}
