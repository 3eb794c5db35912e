//! Log lines whose target is only known when they come.
//!
//! `tracing` wants the target of an event as a constant, so that filters can be asked once. A plugin's targets are its
//! name and modules; a call site is made, and kept for good, for each of them and each level when it is first used.

use std::collections::BTreeMap;
use std::sync::{OnceLock, PoisonError, RwLock};

use fp8flow_sdk::Level;
use tracing::callsite::{Callsite, Identifier};
use tracing::field::{FieldSet, Value};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, dispatcher};

/// Targets that get call sites of their own; the modules of any plugin are far fewer.
const LIMIT: usize = 4096;

/// Stands in for the targets beyond [`LIMIT`].
const OTHERS: &str = "plugin";

const FIELDS: &[&str] = &["message"];

/// Whether a line would be written.
pub(crate) fn enabled(level: Level, target: &str) -> bool {
    let level = translated(level);
    level <= LevelFilter::current()
        && dispatcher::get_default(|subscriber| subscriber.enabled(site(level, target).metadata()))
}

/// Writes a line.
pub(crate) fn write(level: Level, target: &str, message: &str) {
    let level = translated(level);
    if level > LevelFilter::current() {
        return;
    }
    let metadata = site(level, target).metadata();
    let field = metadata.fields().field("message");
    dispatcher::get_default(|subscriber| {
        // Filters of layers remember between these two calls.
        if let Some(field) = field.as_ref().filter(|_| subscriber.enabled(metadata)) {
            let message = format_args!("{message}");
            let values = [(field, Some(&message as &dyn Value))];
            subscriber.event(&Event::new(metadata, &metadata.fields().value_set(&values)));
        }
    });
}

fn translated(level: Level) -> tracing::Level {
    match level {
        Level::Error => tracing::Level::ERROR,
        Level::Warn => tracing::Level::WARN,
        Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
        Level::Trace => tracing::Level::TRACE,
    }
}

/// One target at one level.
struct Site(OnceLock<Metadata<'static>>);

impl Site {
    fn leak(level: tracing::Level, target: &'static str) -> &'static Self {
        let site: &'static Self = Box::leak(Box::new(Self(OnceLock::new())));
        site.0.get_or_init(|| {
            let fields = FieldSet::new(FIELDS, Identifier(site));
            let kind = tracing::metadata::Kind::EVENT;
            Metadata::new("event of a plugin", target, level, None, None, None, fields, kind)
        });
        site
    }

    fn metadata(&'static self) -> &'static Metadata<'static> {
        self.0.get().expect("set by `leak`, the only way to make one")
    }
}

impl Callsite for Site {
    // Filters are asked every time.
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        self.0.get().expect("set by `leak`, the only way to make one")
    }
}

/// By target, then by level.
type Sites = BTreeMap<&'static str, [OnceLock<&'static Site>; 5]>;

fn site(level: tracing::Level, target: &str) -> &'static Site {
    static SITES: RwLock<Sites> = RwLock::new(BTreeMap::new());
    let place = match level {
        tracing::Level::ERROR => 0,
        tracing::Level::WARN => 1,
        tracing::Level::INFO => 2,
        tracing::Level::DEBUG => 3,
        tracing::Level::TRACE => 4,
    };
    let find = |sites: &Sites, target: &str| {
        let (&target, levels) = sites.get_key_value(target)?;
        Some(*levels[place].get_or_init(|| Site::leak(level, target)))
    };
    if let Some(site) = find(&SITES.read().unwrap_or_else(PoisonError::into_inner), target) {
        return site;
    }
    let mut sites = SITES.write().unwrap_or_else(PoisonError::into_inner);
    let target: &'static str = match sites.get_key_value(target) {
        Some((&known, _)) => known,
        None if sites.len() < LIMIT => String::from(target).leak(),
        None => OTHERS,
    };
    let levels = sites.entry(target).or_default();
    levels[place].get_or_init(|| Site::leak(level, target))
}
