//! From the address of a plugin's symbol to its functions, once the layouts on both sides have been compared.
//!
//! `abi_stable` takes it that a library is never older than its user, and refuses an older one as soon as the user
//! knows one method more. With plugins it is the other way round. Layouts are therefore compared in both directions,
//! and one that holds is enough: where one side has more methods, the other's are a prefix, and whoever calls reads
//! the count of methods before it calls one of the later ones.

use abi_stable::StableAbi;
use abi_stable::abi_stability::check_layout_compatibility;
use abi_stable::library::{AbiHeaderRef, RootModuleError};
use abi_stable::type_layout::TypeLayout;

use super::objects::PluginModuleRef;

/// Why a library's functions cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// What the symbol stands for is not what the SDK exports.
    #[error("what its symbol stands for was not exported by fp8flow-sdk, or by an incompatible one ({0})")]
    Header(String),
    /// It carries no layout.
    #[error("it does not describe the layout of its functions")]
    NoLayout,
    /// Something has another size, type or name on either side.
    #[error("its functions have another layout than this fp8flow's SDK: {difference}")]
    Layout {
        /// The differing item, in `abi_stable`'s words.
        difference: String,
        /// Everything `abi_stable` has to say: thousands of lines.
        dump: String,
    },
    /// It failed while handing over its functions.
    #[error("it failed to hand over its functions: {0}")]
    Module(String),
}

/// The functions behind a symbol.
///
/// # Safety
/// `symbol` is the address that the dynamic linker gave for the symbol of a manifest, in a library that is never
/// unloaded.
pub(super) unsafe fn functions(symbol: *const ()) -> Result<PluginModuleRef, LoadError> {
    let symbol = std::ptr::NonNull::new(symbol.cast_mut()).ok_or(LoadError::NoLayout)?;
    // SAFETY: `AbiHeaderRef` is a transparent reference to the header; `upgrade` looks at the mark it starts with
    // before anything else is read.
    let header: AbiHeaderRef = unsafe { std::mem::transmute(symbol) };
    let header = header.upgrade().map_err(|error| {
        LoadError::Header(error.to_string().split_whitespace().take(12).collect::<Vec<_>>().join(" "))
    })?;
    let theirs = header.layout().ok_or(LoadError::NoLayout)?;
    compare(<PluginModuleRef as StableAbi>::LAYOUT, theirs)?;
    // SAFETY: the layouts agree but for methods that one side has more; those are reached through the count of
    // methods that the other side stores with its table.
    let module = unsafe { header.unchecked_layout::<PluginModuleRef>() };
    module.map_err(|error| {
        LoadError::Module(match error {
            RootModuleError::Returned(error) => error.to_string(),
            RootModuleError::Unwound => "it panicked".to_owned(),
        })
    })
}

fn compare(ours: &'static TypeLayout, theirs: &'static TypeLayout) -> Result<(), LoadError> {
    let Err(newer) = check_layout_compatibility(ours, theirs).into_result() else { return Ok(()) };
    if check_layout_compatibility(theirs, ours).is_ok() {
        return Ok(());
    }
    let dump = newer.to_string();
    Err(LoadError::Layout { difference: difference(&dump), dump })
}

/// The last `Error … Expected … Found` of a dump, in one line.
fn difference(dump: &str) -> String {
    let start = dump.rfind("Error:").unwrap_or(dump.len().saturating_sub(200));
    let mut words: Vec<_> = dump.get(start..).unwrap_or("").split_whitespace().take(40).collect();
    if let Some(first) = words.first_mut() {
        *first = first.strip_prefix("Error:").unwrap_or(first);
    }
    words.join(" ")
}
