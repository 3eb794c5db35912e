//! The engine's services as an object that a plugin may hold.

use std::panic::{AssertUnwindSafe, catch_unwind};

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RSliceMut, RStr};

use super::guard::text_of;
use super::objects::{HostBox, HostObject, HostObject_TO};
use super::wire::{self, Outcome, Tasks};
use crate::{Error, ErrorKind, Host, Result};

/// A host, lent to the plugin `name`.
pub(super) struct Lent {
    host: Host,
    plugin: String,
    /// The plugin's name as its crate spells it.
    crate_name: String,
}

impl Lent {
    pub(super) fn boxed(host: &Host, plugin: &str) -> HostBox {
        let lent =
            Self { host: host.clone(), plugin: plugin.to_owned(), crate_name: plugin.replace('-', "_") };
        HostObject_TO::from_value(lent, TD_Opaque)
    }

    /// Where an event comes from, under the plugin's name: `a-plugin`, `a-plugin::linear`, `a-plugin::other_crate`.
    fn with_target<R>(&self, target: &str, body: impl FnOnce(&str) -> R) -> R {
        match target.strip_prefix(&self.crate_name) {
            Some("") => body(&self.plugin),
            Some(rest) if rest.starts_with("::") => body(&format!("{}{rest}", self.plugin)),
            _ => body(&format!("{}::{target}", self.plugin)),
        }
    }
}

/// The engine's code, which must not unwind into the plugin.
fn contain<R>(body: impl FnOnce() -> R) -> Result<R> {
    catch_unwind(AssertUnwindSafe(body))
        .map_err(|payload| Error::new(ErrorKind::Internal, format!("panicked: {}", text_of(payload))))
}

impl HostObject for Lent {
    fn isa(&self) -> u32 {
        contain(|| wire::isa_code(self.host.isa())).unwrap_or(0)
    }

    fn threads(&self) -> usize {
        contain(|| self.host.threads()).unwrap_or(1)
    }

    fn parallel_for(&self, tasks: usize, body: Tasks<'_>) -> Outcome<()> {
        wire::send(contain(|| self.host.parallel_for(tasks, &|task| body.run(task))))
    }

    fn log_enabled(&self, level: u32, target: RStr<'_>) -> bool {
        let enabled = |target: &str| self.host.log_enabled(wire::level(level), target);
        contain(|| self.with_target(target.as_str(), enabled)).unwrap_or(false)
    }

    fn log(&self, level: u32, target: RStr<'_>, message: RStr<'_>) {
        let log = |target: &str| self.host.log(wire::level(level), target, message.as_str());
        // A line that cannot be written is lost: there is no other place to say so.
        let _ = contain(|| self.with_target(target.as_str(), log));
    }

    fn reduce_amax(&self, values: RSliceMut<'_, f32>) -> Outcome<()> {
        wire::send(contain(|| self.host.reduce_amax(values.into_mut_slice())))
    }

    fn cancelled(&self) -> bool {
        contain(|| self.host.cancelled()).unwrap_or(false)
    }
}
