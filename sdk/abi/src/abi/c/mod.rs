//! The second road into the engine: plugins in C and C++, by `fp8flow_plugin.h`.
//!
//! ```text
//! the plugin's library                    the engine
//! fp8flow_plugin (functions) ─► table ─► CRecipe, CLinear: Recipe, Linear ─► export ─► objects ─► loaded
//! fp8flow_host ◄──────────────── LentHost ◄─────────────────────────────────────────── Host
//! ```
//!
//! A C plugin's functions are put behind this crate's traits, and these are dressed as the objects that a Rust plugin
//! would have handed over: all that stands behind them (names in errors, failures that are kept, JSON) is the same.
//!
//! A C function whose Rust signature has no error unwinds where it fails, on this side, to the guard that `export` puts
//! around every object, which makes it the error of that call and of all later ones.

// Each mirrors a struct of the header, where its fields are explained.
#[allow(missing_docs)]
pub mod contract;

mod backend;
mod host;
mod kernels;
mod linear;
mod recipe;
mod table;

use std::sync::Arc;

use self::contract::CPlugin;
use self::table::Table;
use super::LoadError;
use super::objects::{BackendBox, HostBox};
use super::wire::{self, Outcome};
use crate::{RecipeInfo, Result};

/// The functions of an opened C plugin.
#[derive(Clone)]
pub(super) struct CLibrary(Arc<Table>);

impl CLibrary {
    /// The functions that the entry at `symbol` hands over.
    ///
    /// # Safety
    /// `symbol` is null or the address of the function [`contract::ENTRY`] in a library that is never unloaded.
    pub(super) unsafe fn from_entry(symbol: *const ()) -> std::result::Result<Self, LoadError> {
        if symbol.is_null() {
            return Err(LoadError::Table("its entry is null".into()));
        }
        // SAFETY: promised by the caller.
        let entry: unsafe extern "C" fn() -> *const CPlugin = unsafe { std::mem::transmute(symbol) };
        // SAFETY: as above; the table lives as long as the library.
        unsafe { Table::read(entry()) }.map(|table| Self(Arc::new(table)))
    }

    pub(super) fn recipes(&self) -> Result<Vec<RecipeInfo>> {
        wire::from_json(&self.0.recipes())
    }

    pub(super) fn start(&self, host: HostBox) -> Outcome<BackendBox> {
        backend::start(*self.0, host)
    }
}
