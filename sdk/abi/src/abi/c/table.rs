//! A plugin's table of functions, read to the length that it has, and complete.

use std::ffi::c_void;
use std::mem::{MaybeUninit, offset_of};

use super::contract::{
    C_ABI, CBackward, CCounters, CDecision, CError, CForward, CHost, CLayer, CMemory, COptions, CPlugin,
    CTextSink, Status, text_at,
};
use crate::abi::LoadError;

/// The functions that no backend can do without, and the table with the others.
#[derive(Clone, Copy)]
pub(super) struct Table {
    pub(super) start: unsafe extern "C" fn(*const CHost, *mut *mut c_void, *mut CError) -> Status,
    pub(super) recipe_new: unsafe extern "C" fn(
        *mut c_void,
        *const CHost,
        *const std::ffi::c_char,
        *const COptions,
        *mut *mut c_void,
        *mut CError,
    ) -> Status,
    pub(super) recipe_free: unsafe extern "C" fn(*mut c_void),
    pub(super) recipe_describe: unsafe extern "C" fn(*mut c_void, *const CTextSink, *mut CError) -> Status,
    pub(super) recipe_decide:
        unsafe extern "C" fn(*mut c_void, *const CLayer, *mut CDecision, *mut CError) -> Status,
    pub(super) recipe_linear:
        unsafe extern "C" fn(*mut c_void, *const CLayer, *mut *mut c_void, *mut CError) -> Status,
    pub(super) linear_free: unsafe extern "C" fn(*mut c_void),
    pub(super) linear_memory: unsafe extern "C" fn(*mut c_void, u64, *mut CMemory, *mut CError) -> Status,
    pub(super) linear_forward: unsafe extern "C" fn(*mut c_void, *const CForward, *mut CError) -> Status,
    pub(super) linear_backward: unsafe extern "C" fn(*mut c_void, *const CBackward, *mut CError) -> Status,
    pub(super) linear_counters: unsafe extern "C" fn(*mut c_void, *mut CCounters, *mut CError) -> Status,
    pub(super) all: CPlugin,
}

// SAFETY: functions, and a text that nobody writes.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Table {
    /// The table at `pointer`, as far as it goes; what lies beyond is absent.
    ///
    /// # Safety
    /// `pointer` is null or leads to an `fp8flow_plugin` of any version, which lives as long as the process.
    pub(super) unsafe fn read(pointer: *const CPlugin) -> Result<Self, LoadError> {
        if pointer.is_null() {
            return Err(LoadError::Table("it handed over no table of functions".into()));
        }
        // SAFETY: the size comes first in every version.
        let size = unsafe { (&raw const (*pointer).size).read() };
        if size < offset_of!(CPlugin, recipes) {
            return Err(LoadError::Table(format!("its table of functions has {size} bytes")));
        }
        let mut table = MaybeUninit::<CPlugin>::zeroed();
        // SAFETY: `size` bytes are there, and no more than there is room for are copied. All zeros is a table in which
        // everything is absent.
        let table = unsafe {
            let bytes = size.min(size_of::<CPlugin>());
            std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), table.as_mut_ptr().cast(), bytes);
            table.assume_init()
        };
        if table.abi != C_ABI {
            return Err(LoadError::Table(format!(
                "its table is of C ABI {}, this fp8flow speaks {C_ABI}",
                table.abi
            )));
        }
        let without = |name: &str| LoadError::Table(format!("its table of functions has no `{name}`"));
        macro_rules! required {
            ($($name:ident),*) => {
                Self { $($name: table.$name.ok_or_else(|| without(stringify!($name)))?,)* all: table }
            };
        }
        let complete = required!(
            start,
            recipe_new,
            recipe_free,
            recipe_describe,
            recipe_decide,
            recipe_linear,
            linear_free,
            linear_memory,
            linear_forward,
            linear_backward,
            linear_counters
        );
        if table.recipes.is_null() {
            return Err(without("recipes"));
        }
        if table.recipe_state.is_some() != table.recipe_restore.is_some() {
            return Err(LoadError::Table("it has one of `recipe_state` and `recipe_restore`".into()));
        }
        if table.quantize.is_some() != table.scaled_gemm.is_some() {
            return Err(LoadError::Table("it has one of `quantize` and `scaled_gemm`".into()));
        }
        Ok(complete)
    }

    /// Its recipes, as JSON.
    pub(super) fn recipes(&self) -> String {
        // SAFETY: not null, as `read` has seen; by the contract a text that lives as long as the library.
        unsafe { text_at(self.all.recipes) }.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn free(_: *mut c_void) {}

    fn empty() -> CPlugin {
        // SAFETY: a table in which everything is absent.
        let table = unsafe { MaybeUninit::<CPlugin>::zeroed().assume_init() };
        CPlugin { size: size_of::<CPlugin>(), abi: C_ABI, ..table }
    }

    fn refusal(table: &CPlugin) -> String {
        // SAFETY: a table, for the length of the call.
        unsafe { Table::read(table) }.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_table_that_is_not_whole_says_what_it_lacks() {
        // SAFETY: nothing is read.
        assert!(unsafe { Table::read(std::ptr::null()) }.is_err());
        assert!(refusal(&CPlugin { size: 3, ..empty() }).contains("has 3 bytes"));
        assert!(refusal(&CPlugin { abi: 7, ..empty() }).contains("C ABI 7"));
        assert!(refusal(&empty()).contains("no `start`"));
    }

    #[test]
    fn what_lies_beyond_the_size_of_an_older_table_is_not_read() {
        let table = CPlugin { recipe_free: Some(free), ..empty() };
        let older = CPlugin { size: offset_of!(CPlugin, start), ..table };
        assert!(refusal(&older).contains("no `start`"), "{}", refusal(&older));
    }
}
