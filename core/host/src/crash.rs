//! A plugin that takes the process with it is named first.
//!
//! Every thread knows which call of which plugin it is in: a pointer that is set before a call and set back after it, and
//! that the threads of the pool take over from the thread they work for. Where a program has asked for it
//! ([`explain`]), a handler for the signals of crashes writes who it was, and leaves the rest to whoever handled the
//! signals before, so that the process ends as it would have ended. What it says is left in a file, too, for who asks
//! later, where a program has named one ([`note`](note())).
#![allow(unsafe_code)]

mod note;
mod text;

use std::cell::Cell;
use std::marker::PhantomData;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering, compiler_fence};
use std::sync::{Once, OnceLock};

use libc::{c_int, c_void, siginfo_t};

use crate::shell::quoted;

pub use note::{Noted, note};
use text::{Crash, Text};

/// A plugin, as a crash tells of it.
#[derive(Debug)]
pub(crate) struct Subject {
    name: Box<str>,
    /// Its file, as a shell reads it.
    library: Box<str>,
}

impl Subject {
    pub(crate) fn new(name: &str, library: &Path) -> Self {
        Self { name: name.into(), library: quoted(&library.to_string_lossy()).into() }
    }
}

/// A call, on the stack of the thread that makes it.
pub(crate) struct Call {
    plugin: *const Subject,
    /// Empty where it is about no layer.
    layer: *const str,
    name: &'static str,
}

thread_local! {
    // Without a destructor and with a constant to begin with, it can be read in a signal handler.
    static CURRENT: Cell<*const Call> = const { Cell::new(ptr::null()) };
}

/// Does `body`, which is the call `name` of a plugin about a layer, if `layer` is not empty.
#[inline]
pub(crate) fn during<R>(plugin: &Subject, layer: &str, name: &'static str, body: impl FnOnce() -> R) -> R {
    let call = Call::new(plugin, layer, name);
    let _entered = call.enter();
    body()
}

impl Call {
    /// For [`Call::enter`]; plugin and layer must live as long.
    #[inline]
    pub(crate) fn new(plugin: &Subject, layer: &str, name: &'static str) -> Self {
        Self { plugin, layer, name }
    }

    /// This thread is in the call until that is dropped.
    #[inline]
    pub(crate) fn enter(&self) -> Entered<'_> {
        Entered::at(self)
    }
}

/// The call that a thread is in, for those that work for it meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct Carried(*const Call);

impl Carried {
    /// This thread's.
    pub(crate) fn here() -> Self {
        Self(CURRENT.get())
    }

    /// Does `body` as a part of that call, which lasts longer.
    pub(crate) fn during<R>(self, body: impl FnOnce() -> R) -> R {
        let _entered = Entered::at(self.0);
        body()
    }
}

/// Goes back to the call before, also where a panic passes.
pub(crate) struct Entered<'a>(*const Call, PhantomData<&'a Call>);

impl Entered<'_> {
    #[inline]
    fn at(call: *const Call) -> Self {
        let before = CURRENT.replace(call);
        // The handler, which runs in this thread, must not see a call that is not written yet.
        compiler_fence(Ordering::SeqCst);
        Self(before, PhantomData)
    }
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        CURRENT.set(self.0);
        compiler_fence(Ordering::SeqCst);
    }
}

/// The signals of crashes, in words.
pub(crate) const SIGNALS: [(c_int, &str); 5] = [
    (libc::SIGSEGV, "SIGSEGV (segmentation fault)"),
    (libc::SIGBUS, "SIGBUS (bus error)"),
    (libc::SIGFPE, "SIGFPE (arithmetic error)"),
    (libc::SIGILL, "SIGILL (illegal instruction)"),
    (libc::SIGABRT, "SIGABRT (abort)"),
];

/// What is said beside the call.
static WANTED: OnceLock<String> = OnceLock::new();
/// Who handled the signals before.
static BEFORE: OnceLock<[libc::sigaction; SIGNALS.len()]> = OnceLock::new();
/// Whether it was said; several threads may crash at once.
static SAID: AtomicBool = AtomicBool::new(false);

/// From the first plugin on that this process opens, a crash in a call of a plugin is told on stderr: plugin, layer,
/// call, signal, and `more`, which is a line or nothing. The process ends by the same signal as without. For programs:
/// signals belong to the process. What is asked first counts.
pub fn explain(more: String) {
    let _ = WANTED.set(more);
}

/// Listens, if that was asked for.
pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    if WANTED.get().is_some() {
        ONCE.call_once(install);
    }
}

fn install() {
    // SAFETY: zeros are a `sigaction`: the default, no flags, an empty mask.
    let mut before: [libc::sigaction; SIGNALS.len()] = unsafe { std::mem::zeroed() };
    for ((signal, _), before) in SIGNALS.iter().zip(&mut before) {
        // SAFETY: asks for the action in force, into a structure of its own.
        unsafe { libc::sigaction(*signal, ptr::null(), before) };
    }
    // Known before the first signal can come.
    let _ = BEFORE.set(before);
    // SAFETY: as above.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as *const () as usize;
    // A stack of its own, for that of the thread may be what has run out.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    for (signal, _) in SIGNALS {
        // SAFETY: `handle` has the signature of a handler with `SA_SIGINFO`, and calls nothing that a handler must not.
        unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    }
}

extern "C" fn handle(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    let call = CURRENT.get();
    if !call.is_null() && !SAID.swap(true, Ordering::Relaxed) {
        // SAFETY: the call is in progress in this thread, or in one that waits for this thread: it and its names are alive.
        let (plugin, layer, call) = unsafe { (&*(*call).plugin, &*(*call).layer, (*call).name) };
        let signal = SIGNALS.iter().find(|(known, _)| *known == signal).map_or("a signal", |(_, name)| name);
        let crash = Crash { plugin, layer, call, signal };
        // One room for both: a stack for signals is small.
        let mut text = Text::empty();
        text.message(&crash, WANTED.get().map_or("", String::as_str));
        // SAFETY: so many bytes are there. Whether that succeeds changes nothing.
        let _ = unsafe { libc::write(libc::STDERR_FILENO, text.bytes().as_ptr().cast(), text.bytes().len()) };
        if text.note(&crash) {
            note::leave(text.bytes());
        }
    }
    step_aside();
    // A fault happens again when this returns; what was sent has to be sent again, and comes when this returns.
    // SAFETY: the kernel gives the facts of this very signal.
    if unsafe { (*info).si_code } <= 0 {
        // SAFETY: sends a signal to this thread.
        unsafe { libc::raise(signal) };
    }
}

/// Gives all signals back to whoever handled them before. They are not called from here: on a stack for signals there is
/// little room, and the next crash, an abort after a fault, must not come back here either.
fn step_aside() {
    for ((signal, _), before) in SIGNALS.iter().zip(BEFORE.get().into_iter().flatten()) {
        // SAFETY: this very action was in force.
        unsafe { libc::sigaction(*signal, before, ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The call that this thread is in.
    fn now() -> Option<(String, String, &'static str)> {
        let call = CURRENT.get();
        // SAFETY: as in the handler.
        (!call.is_null()).then(|| unsafe {
            ((*(*call).plugin).name.to_string(), (*(*call).layer).to_owned(), (*call).name)
        })
    }

    #[test]
    fn calls_nest_and_end_also_by_a_panic() {
        let [a, b, c] = ["a", "b", "c"].map(|name| Subject::new(name, Path::new("lib.so")));
        assert_eq!(now(), None);
        during(&a, "x", "forward", || {
            during(&b, "", "decide", || assert_eq!(now(), Some(("b".into(), String::new(), "decide"))));
            let caught = std::panic::catch_unwind(|| during(&c, "", "on", || panic!("in a call")));
            assert!(caught.is_err());
            assert_eq!(now(), Some(("a".into(), "x".into(), "forward")));
            let carried = Carried::here();
            std::thread::scope(|scope| {
                let address = carried.0 as usize;
                scope.spawn(move || {
                    assert_eq!(now(), None);
                    Carried(address as *const Call)
                        .during(|| assert_eq!(now().expect("carried").2, "forward"));
                    assert_eq!(now(), None);
                });
            });
        });
        assert_eq!(now(), None);
    }
}
