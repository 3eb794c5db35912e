//! A started C plugin, as the object that a Rust plugin would have handed over.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{ROption, RStr};
use serde_json::Value;

use super::contract::{COptions, OK, Status, checked, text_at};
use super::host::LentHost;
use super::kernels::CKernels;
use super::recipe::CRecipe;
use super::table::Table;
use crate::abi::export;
use crate::abi::objects::{BackendBox, BackendObject, BackendObject_TO, HostBox, KernelsBox, RecipeBox};
use crate::abi::wire::{Outcome, from_json, send};
use crate::{Options, Result};

/// What `start` has made; stopped when nobody needs it any more.
pub(super) struct BackendHandle {
    pub(super) table: Table,
    pub(super) object: *mut c_void,
    /// The plugin may hold it until then.
    _host: LentHost,
}

// SAFETY: the contract lets calls of a backend come from several threads at once.
unsafe impl Send for BackendHandle {}
// SAFETY: as above.
unsafe impl Sync for BackendHandle {}

impl Drop for BackendHandle {
    fn drop(&mut self) {
        if let Some(stop) = self.table.all.stop {
            // SAFETY: the last use of the backend: recipes and primitives keep it alive.
            unsafe { stop(self.object) };
        }
    }
}

/// Starts a backend.
pub(super) fn start(table: Table, host: HostBox) -> Outcome<BackendBox> {
    let start = || {
        let host = LentHost::new(export::receive_host(host));
        let mut object = std::ptr::null_mut();
        // SAFETY: the host outlives the backend, in its handle.
        checked(|error| unsafe { (table.start)(host.pointer(), &raw mut object, error) })?;
        let backend = CBackend(Arc::new(BackendHandle { table, object, _host: host }));
        Ok(BackendObject_TO::from_value(backend, TD_Opaque))
    };
    send(start())
}

struct CBackend(Arc<BackendHandle>);

impl CBackend {
    fn make(&self, host: HostBox, name: &str, options: &str) -> Result<CRecipe> {
        let host = LentHost::new(export::receive_host(host));
        let options = LentOptions::new(&from_json::<Options>(options)?);
        let name = c_string(name);
        let mut object = std::ptr::null_mut();
        let (table, backend) = (&self.0.table, self.0.object);
        // SAFETY: the host outlives the recipe, in its handle; the texts and options the call.
        checked(|error| unsafe {
            let (host, options) = (host.pointer(), options.pointer());
            (table.recipe_new)(backend, host, name.as_ptr(), options, &raw mut object, error)
        })?;
        Ok(CRecipe::new(object, host, self.0.clone()))
    }
}

impl BackendObject for CBackend {
    fn recipe(&self, host: HostBox, name: RStr<'_>, options: RStr<'_>) -> Outcome<RecipeBox> {
        send(self.make(host, name.as_str(), options.as_str()).map(|recipe| export::recipe(Box::new(recipe))))
    }

    fn kernels(&self, host: HostBox) -> Outcome<ROption<KernelsBox>> {
        let kernels = CKernels::new(self.0.clone(), LentHost::new(export::receive_host(host)));
        send(Ok(kernels.map(|kernels| export::kernels(Box::new(kernels))).into()))
    }
}

/// A text of the engine's; it ends before a zero in it, which no name has.
pub(super) fn c_string(text: &str) -> CString {
    let text = text.split('\0').next().unwrap_or("");
    CString::new(text).unwrap_or_default()
}

/// Options on loan.
struct LentOptions {
    table: Box<COptions>,
    /// What `context` leads to.
    _values: Box<Values>,
}

struct Values {
    options: Options,
    words: BTreeMap<String, CString>,
}

impl LentOptions {
    fn new(options: &Options) -> Self {
        let word = |(name, value): (&String, &Value)| Some((name.clone(), c_string(value.as_str()?)));
        let words = options.0.iter().filter_map(word).collect();
        let values = Box::new(Values { options: options.clone(), words });
        let context = (&raw const *values).cast();
        let table =
            Box::new(COptions { size: size_of::<COptions>(), context, boolean, integer, number, choice });
        Self { table, _values: values }
    }

    fn pointer(&self) -> *const COptions {
        &raw const *self.table
    }
}

/// Reads an option into the plugin's variable.
///
/// # Safety
/// `options` are those that [`LentOptions::pointer`] gave, `name` a text, `value` a variable of the caller's or null.
unsafe fn read<T>(
    options: *const COptions,
    name: *const c_char,
    value: *mut T,
    get: impl FnOnce(&Values, &str) -> Option<T>,
) -> Status {
    // SAFETY: promised by the caller; `new` has set the context.
    let (values, name) = unsafe { (&*(*options).context.cast::<Values>(), text_at(name)) };
    match name.and_then(|name| get(values, &name)) {
        Some(found) if !value.is_null() => {
            // SAFETY: promised by the caller.
            unsafe { value.write(found) };
            OK
        }
        _ => INVALID,
    }
}

const INVALID: Status = 2;

unsafe extern "C" fn boolean(options: *const COptions, name: *const c_char, value: *mut u32) -> Status {
    // SAFETY: the plugin passes the options that it was given, here and below.
    unsafe { read(options, name, value, |values, name| values.options.bool(name).ok().map(u32::from)) }
}

unsafe extern "C" fn integer(options: *const COptions, name: *const c_char, value: *mut i64) -> Status {
    // SAFETY: as above.
    unsafe { read(options, name, value, |values, name| values.options.integer(name).ok()) }
}

unsafe extern "C" fn number(options: *const COptions, name: *const c_char, value: *mut f64) -> Status {
    // SAFETY: as above.
    unsafe { read(options, name, value, |values, name| values.options.number(name).ok()) }
}

unsafe extern "C" fn choice(
    options: *const COptions,
    name: *const c_char,
    value: *mut *const c_char,
) -> Status {
    // SAFETY: as above.
    unsafe { read(options, name, value, |values, name| values.words.get(name).map(|word| word.as_ptr())) }
}
