//! What happens in a plugin is seen in the engine's log.
//!
//! A shared library has a `std` and a `tracing` of its own: its panics and its events would go nowhere, or past the
//! engine's filter. Starting the backend installs a panic hook and a subscriber that pass both on.

use std::fmt::Write as _;
use std::sync::{Once, PoisonError, RwLock};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

use crate::{Host, Level};

/// The engine that started the backend last.
static ENGINE: RwLock<Option<Host>> = RwLock::new(None);

/// Passes panics and events on to `host` from now on.
pub(super) fn forward_to(host: &Host) {
    static ONCE: Once = Once::new();
    *ENGINE.write().unwrap_or_else(PoisonError::into_inner) = Some(host.clone());
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            with_engine(|host| host.log(Level::Error, module_path!(), &panic.to_string()));
        }));
        // An author who has installed another one wants that one.
        let _ = tracing::subscriber::set_global_default(Forward);
    });
}

fn with_engine<R>(body: impl FnOnce(&Host) -> R) -> Option<R> {
    let host = ENGINE.read().unwrap_or_else(PoisonError::into_inner).clone();
    host.as_ref().map(body)
}

/// Passes events on; spans have no meaning beyond the library they are in.
struct Forward;

impl Subscriber for Forward {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // The engine's filter may change.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && with_engine(|host| host.log_enabled(level(metadata), metadata.target())).unwrap_or(false)
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut line = Line::default();
        event.record(&mut line);
        with_engine(|host| host.log(level(metadata), metadata.target(), &line.finish()));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn level(metadata: &Metadata<'_>) -> Level {
    match *metadata.level() {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

/// An event as text: its message, then its fields.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn finish(mut self) -> String {
        if self.message.is_empty() {
            return self.fields.trim_start().to_owned();
        }
        self.message.push_str(&self.fields);
        self.message
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string fails only where a value's own `Debug` does; the rest of the line is still good.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
