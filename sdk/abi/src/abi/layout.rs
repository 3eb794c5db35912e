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
    /// A C plugin's table that is not whole.
    #[error("{0}; build it with the fp8flow_plugin.h of this fp8flow")]
    Table(String),
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

#[cfg(test)]
// From what the macros of `abi_stable` expand to.
#[allow(
    non_local_definitions,
    unreachable_pub,
    unused_braces,
    clippy::cast_ptr_alignment,
    clippy::used_underscore_binding,
    clippy::expl_impl_clone_on_copy
)]
mod tests {
    use super::*;

    /// The functions of a library as three versions of an SDK would declare them.
    macro_rules! sdk {
        ($version:ident, $field:ty, { $($method:item)* }, { $($function:tt)* }) => {
            mod $version {
                use abi_stable::sabi_trait::TD_Opaque;
                use abi_stable::std_types::RBox;
                use abi_stable::{StableAbi, sabi_trait};

                #[sabi_trait]
                pub trait Object: Send {
                    #[sabi(last_prefix_field)]
                    fn first(&self) -> u32;
                    $($method)*
                }

                #[repr(C)]
                #[derive(StableAbi)]
                #[sabi(kind(Prefix(prefix_ref = FunctionsRef, prefix_fields = FunctionsPrefix)))]
                #[sabi(missing_field(option))]
                pub struct Functions {
                    #[sabi(last_prefix_field)]
                    pub make: extern "C" fn($field) -> Object_TO<'static, RBox<()>>,
                    $($function)*
                }

                pub(super) struct Real;

                impl Object for Real {
                    fn first(&self) -> u32 {
                        1
                    }
                }

                pub(super) extern "C" fn make(_: $field) -> Object_TO<'static, RBox<()>> {
                    Object_TO::from_value(Real, TD_Opaque)
                }
            }
        };
    }

    sdk!(older, u32, {}, {});
    sdk!(newer, u32, { fn second(&self) -> u32 { 2 } }, { pub later: extern "C" fn() -> u32, });
    sdk!(other, u64, {}, {});

    extern "C" fn later() -> u32 {
        3
    }

    fn layout<T: StableAbi>() -> &'static TypeLayout {
        T::LAYOUT
    }

    #[test]
    fn an_older_plugin_fits_a_newer_engine_and_the_other_way_round() {
        let (older, newer) = (layout::<older::FunctionsRef>(), layout::<newer::FunctionsRef>());
        compare(older, older).unwrap();
        compare(older, newer).unwrap();
        compare(newer, older).unwrap();
        assert!(
            check_layout_compatibility(newer, older).is_err(),
            "`abi_stable` alone refuses the older plugin"
        );
    }

    #[test]
    fn equal_versions_have_everything() {
        use abi_stable::prefix_type::PrefixTypeTrait as _;
        let ours = newer::Functions { make: newer::make, later }.leak_into_prefix();
        let object = (ours.make())(0);
        assert_eq!((object.first(), object.second()), (1, 2));
        assert_eq!(ours.later().map(|later| later()), Some(3));
        let ours = other::Functions { make: other::make }.leak_into_prefix();
        assert_eq!((ours.make())(0).first(), 1);
    }

    #[test]
    fn what_an_older_plugin_lacks_is_absent_or_has_its_default() {
        use abi_stable::prefix_type::{PrefixRefTrait as _, PrefixTypeTrait as _};
        let theirs = older::Functions { make: older::make }.leak_into_prefix();
        compare(layout::<newer::FunctionsRef>(), layout::<older::FunctionsRef>()).unwrap();
        // SAFETY: the comparison above is what makes this sound; it is what `functions` does.
        let ours = unsafe { newer::FunctionsRef::from_prefix_ref(theirs.to_prefix_ref().cast()) };
        assert_eq!((theirs.make())(0).first(), 1);
        assert!(ours.later().is_none());
        let object = (ours.make())(0);
        assert_eq!((object.first(), object.second()), (1, 2));
    }

    #[test]
    fn another_signature_is_refused_in_one_line() {
        let error = compare(layout::<older::FunctionsRef>(), layout::<other::FunctionsRef>()).unwrap_err();
        let LoadError::Layout { difference, dump } = &error else { panic!("{error}") };
        assert!(difference.contains("u32") && difference.contains("u64"), "{difference}");
        assert!(error.to_string().lines().count() == 1 && error.to_string().len() < 600, "{error}");
        assert!(dump.lines().count() > 20, "the log gets everything");
    }

    #[test]
    fn a_symbol_without_the_mark_is_refused() {
        let bytes = [0_u64; 64];
        // SAFETY: `upgrade` reads no further than the mark, which is not there.
        let error = unsafe { functions(bytes.as_ptr().cast()) }.map(|_| ()).unwrap_err();
        assert!(matches!(error, LoadError::Header(_)), "{error}");
        // SAFETY: nothing is read.
        assert!(unsafe { functions(std::ptr::null()) }.is_err());
    }
}
