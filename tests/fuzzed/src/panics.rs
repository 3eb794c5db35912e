//! Panics that are told when a target ends. Libraries panic as well, where the program catches it and makes an error of
//! it; to write such a one out with a backtrace costs more memory than any input.

use std::sync::Mutex;

static LAST: Mutex<String> = Mutex::new(String::new());

/// From now on a panic is kept and not written.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(|info| {
        if let Ok(mut last) = LAST.lock() {
            *last = info.to_string();
        }
    }));
}

/// The last that was kept.
pub fn last_panic() -> String {
    LAST.lock().map(|last| last.clone()).unwrap_or_default()
}
