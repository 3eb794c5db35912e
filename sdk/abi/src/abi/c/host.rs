//! The engine as a C plugin sees it.

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use fp8flow_kernels::scale::ScaleRule;

use super::contract::{Body, CError, CHost, CQuantize, CScaledGemm, OK, Status, text_at};
use crate::abi::guard::text_of;
use crate::abi::wire;
use crate::scaled::Primitives;
use crate::{Error, ErrorKind, Host, Kernels as _, Result};

/// A host on loan: the functions, and what they work on.
pub(super) struct LentHost {
    table: Box<CHost>,
    /// What `context` leads to.
    _services: Box<Services>,
}

struct Services {
    host: Host,
    kernels: Primitives,
}

// SAFETY: `context` leads to the services beside it, which may be shared.
unsafe impl Send for LentHost {}
// SAFETY: as above.
unsafe impl Sync for LentHost {}

impl LentHost {
    pub(super) fn new(host: Host) -> Self {
        let kernels = Primitives::new(host.clone(), [ScaleRule::Linear, ScaleRule::PowerOfTwo]);
        let services = Box::new(Services { host, kernels });
        let table = Box::new(CHost {
            size: size_of::<CHost>(),
            context: (&raw const *services).cast_mut().cast(),
            isa,
            threads,
            parallel_for,
            log_enabled,
            log,
            reduce_amax,
            cancelled,
            quantize,
            scaled_gemm,
        });
        Self { table, _services: services }
    }

    /// Valid as long as this is.
    pub(super) fn pointer(&self) -> *const CHost {
        &raw const *self.table
    }
}

/// # Safety
/// `host` is one that [`LentHost::pointer`] gave, and still valid.
unsafe fn services<'a>(host: *const CHost) -> &'a Services {
    // SAFETY: promised by the caller; `new` has set the context.
    unsafe { &*(*host).context.cast::<Services>() }
}

/// The engine's code, which must not unwind into the plugin.
fn contain<R>(body: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        Err(Error::new(ErrorKind::Internal, format!("the engine panicked: {}", text_of(payload))))
    })
}

/// The status of a service, its error where there is room for it.
///
/// # Safety
/// `error` is null or the caller's.
unsafe fn answer(result: Result<()>, error: *mut CError) -> Status {
    let Err(failure) = result else { return OK };
    // SAFETY: promised by the caller.
    match unsafe { error.as_mut() } {
        Some(error) if error.size >= size_of::<CError>() => error.fill(&failure),
        _ => 1,
    }
}

unsafe extern "C" fn isa(host: *const CHost) -> u32 {
    // SAFETY: the plugin passes the host that it was given, here and below.
    contain(|| Ok(wire::isa_code(unsafe { services(host) }.host.isa()))).unwrap_or(0)
}

unsafe extern "C" fn threads(host: *const CHost) -> usize {
    // SAFETY: as above.
    contain(|| Ok(unsafe { services(host) }.host.threads())).unwrap_or(1)
}

unsafe extern "C" fn parallel_for(
    host: *const CHost,
    tasks: usize,
    body: Option<Body>,
    context: *mut c_void,
) -> Status {
    /// What the plugin's tasks work on; that they may share it is the plugin's promise.
    struct Shared(*mut c_void);
    // SAFETY: as said.
    unsafe impl Sync for Shared {}
    impl Shared {
        fn get(&self) -> *mut c_void {
            self.0
        }
    }
    let shared = Shared(context);
    let result = contain(|| {
        let body = body.ok_or_else(|| Error::invalid("parallel_for without a body"))?;
        // SAFETY: as above; the body is the plugin's, for this context.
        unsafe { services(host) }.host.parallel_for(tasks, &|task| unsafe { body(shared.get(), task) });
        Ok(())
    });
    // SAFETY: nothing is written.
    unsafe { answer(result, std::ptr::null_mut()) }
}

unsafe extern "C" fn log_enabled(host: *const CHost, level: u32, target: *const c_char) -> u32 {
    let ask = || {
        // SAFETY: as above; the target is null or a text.
        let (services, target) = unsafe { (services(host), text_at(target).unwrap_or_default()) };
        Ok(services.host.log_enabled(wire::level(level), &target))
    };
    contain(ask).unwrap_or(false).into()
}

unsafe extern "C" fn log(host: *const CHost, level: u32, target: *const c_char, message: *const c_char) {
    // A line that cannot be written is lost: there is no other place to say so.
    let _ = contain(|| {
        // SAFETY: as above.
        let services = unsafe { services(host) };
        // SAFETY: each is null or a text.
        let [target, message] = [target, message].map(|text| unsafe { text_at(text) }.unwrap_or_default());
        let level = wire::level(level);
        if services.host.log_enabled(level, &target) {
            services.host.log(level, &target, &message);
        }
        Ok(())
    });
}

unsafe extern "C" fn reduce_amax(host: *const CHost, values: *mut f32, len: usize) -> Status {
    let result = contain(|| {
        if len > 0 {
            // SAFETY: as above; the values are the plugin's, for the length of the call.
            let (services, values) = unsafe { (services(host), std::slice::from_raw_parts_mut(values, len)) };
            services.host.reduce_amax(values);
        }
        Ok(())
    });
    // SAFETY: nothing is written.
    unsafe { answer(result, std::ptr::null_mut()) }
}

unsafe extern "C" fn cancelled(host: *const CHost) -> u32 {
    // SAFETY: as above.
    contain(|| Ok(unsafe { services(host) }.host.cancelled())).unwrap_or(false).into()
}

unsafe extern "C" fn quantize(host: *const CHost, call: *const CQuantize, error: *mut CError) -> Status {
    // SAFETY: as above; the call and its tensors are the plugin's, for the length of the call.
    let result = contain(|| unsafe { services(host).kernels.quantize((*call).receive()?) });
    // SAFETY: the error is null or the plugin's.
    unsafe { answer(result, error) }
}

unsafe extern "C" fn scaled_gemm(host: *const CHost, call: *const CScaledGemm, error: *mut CError) -> Status {
    // SAFETY: as above.
    let result = contain(|| unsafe { services(host).kernels.scaled_gemm((*call).receive()) });
    // SAFETY: as above.
    unsafe { answer(result, error) }
}
