//! Keeps a plugin's panics on the plugin's side.
//!
//! After a panic nobody knows what state the backend is in, so it is not called again: the backend, its recipes and
//! its layers share one [`Poison`], and whoever finds it set returns an error instead of entering the author's code.
//! Not even their destructors run.

use std::any::Any;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use crate::{Error, ErrorKind, Result};

/// Set by the first panic, to what it said.
#[derive(Clone, Debug, Default)]
pub(super) struct Poison(Arc<OnceLock<String>>);

impl Poison {
    /// Runs `body`, which is the author's code for `call`, unless it has panicked before. An [`Error`] that unwinds, out of a
    /// call whose signature has none, is that call's error.
    pub(super) fn contain<R>(&self, call: &str, body: impl FnOnce() -> Result<R>) -> Result<R> {
        if let Some(first) = self.0.get() {
            let message = format!("not called, because {first}");
            return Err(Error::new(ErrorKind::Panicked, message).with_help(HELP));
        }
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
            let payload = match payload.downcast::<Error>() {
                Ok(error) => {
                    let _ = self.0.set(format!("`{call}` failed before: {error}"));
                    return Err(*error);
                }
                Err(payload) => payload,
            };
            let text = text_of(payload);
            // The first panic is the one to report; it may have come from another thread meanwhile.
            let _ = self.0.set(format!("`{call}` panicked before: {text}"));
            Err(Error::new(ErrorKind::Panicked, format!("panicked: {text}")).with_help(HELP))
        })
    }

    fn is_set(&self) -> bool {
        self.0.get().is_some()
    }
}

const HELP: &str = "this is a bug of the plugin; the place is in the log";

/// An author's object, and the poison of the backend it belongs to.
#[derive(Debug)]
pub(super) struct Guarded<T> {
    object: ManuallyDrop<T>,
    poison: Poison,
}

impl<T> Guarded<T> {
    pub(super) fn new(object: T, poison: Poison) -> Self {
        Self { object: ManuallyDrop::new(object), poison }
    }

    pub(super) fn poison(&self) -> &Poison {
        &self.poison
    }

    pub(super) fn call<R>(&self, call: &str, body: impl FnOnce(&T) -> Result<R>) -> Result<R> {
        self.poison.contain(call, || body(&self.object))
    }

    pub(super) fn call_mut<R>(&mut self, call: &str, body: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        let Self { object, poison } = self;
        poison.contain(call, || body(object))
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        if self.poison.is_set() {
            return;
        }
        let Self { object, poison } = self;
        // Where dropping panics there is nobody to return the error to; the next call reports it.
        let _ = poison.contain("drop", || {
            // SAFETY: dropped here only, and never used afterwards.
            unsafe { ManuallyDrop::drop(object) };
            Ok(())
        });
    }
}

/// What a panic said.
pub(super) fn text_of(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => match payload.downcast::<&'static str>() {
            Ok(text) => (*text).to_owned(),
            Err(payload) => {
                // Anything may panic once more when it is dropped.
                std::mem::forget(payload);
                "without a message".to_owned()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_the_last_call() {
        let mut calls = 0;
        let mut guarded = Guarded::new(&mut calls, Poison::default());
        let mut call = |panics: bool| {
            guarded.call_mut("count", |calls| {
                **calls += 1;
                assert!(!panics, "no more");
                Ok(())
            })
        };
        assert_eq!(call(false), Ok(()));
        let error = call(true).unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Panicked, "panicked: no more"));
        let error = call(false).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Panicked);
        assert_eq!(error.message, "not called, because `count` panicked before: no more");
        drop(guarded);
        assert_eq!(calls, 2);
    }

    #[test]
    fn destructors_run_in_the_guard_and_not_after_a_panic() {
        struct Dropped(Arc<OnceLock<()>>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.set(()).unwrap();
                panic!("while dropping");
            }
        }
        let seen = Arc::new(OnceLock::new());
        let poison = Poison::default();
        drop(Guarded::new(Dropped(seen.clone()), poison.clone()));
        assert!(seen.get().is_some() && poison.is_set());

        let seen = Arc::new(OnceLock::new());
        drop(Guarded::new(Dropped(seen.clone()), poison));
        assert!(seen.get().is_none(), "a poisoned object is left alone");
    }

    #[test]
    fn an_error_that_unwinds_is_the_error_of_the_call_and_the_last_call() {
        let poison = Poison::default();
        let error = Error::invalid("no such layer");
        let found =
            poison.contain("memory", || -> Result<()> { std::panic::resume_unwind(Box::new(error.clone())) });
        assert_eq!(found, Err(error));
        let later = poison.contain("forward", || Ok(())).unwrap_err();
        assert_eq!(later.message, "not called, because `memory` failed before: no such layer");
    }

    #[test]
    fn a_payload_that_panics_when_dropped_does_no_harm() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("boom");
            }
        }
        let error = Poison::default().contain("call", || -> Result<()> { std::panic::panic_any(Bomb) });
        assert_eq!(error.unwrap_err().message, "panicked: without a message");
    }
}
