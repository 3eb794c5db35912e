//! Being asked to stop: the first signal lets the current step finish and saves, the second leaves at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::screen::Screen;

/// Sets `stop` at SIGINT or SIGTERM, for a command that has nothing to save; the second ends the process.
pub(crate) fn end_quietly(stop: &Arc<AtomicBool>) -> std::io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(stop))?;
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}

/// Says `what` happens now, and sets `cancel`, at the first SIGINT, SIGTERM or SIGUSR1. At the next SIGINT or SIGTERM the process ends with 128 and the
/// signal's number. Fails where the system gives no way to listen.
pub(crate) fn listen(cancel: &Arc<AtomicBool>, screen: &Screen, what: &'static str) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])?;
    let cancel = Arc::clone(cancel);
    let (stopping, first) = mpsc::channel();
    let wait = move || {
        for signal in signals.forever() {
            if !cancel.swap(true, Ordering::Relaxed) {
                let _ = stopping.send(());
            } else if signal != SIGUSR1 {
                signal_hook::low_level::exit(128 + signal);
            }
        }
    };
    // Apart from the thread that waits: where nobody reads what is said, saying it takes for ever.
    let screen = screen.clone();
    let say = move || {
        if first.recv().is_ok() {
            screen.complain(format!("stopping: {what}; once more leaves at once"));
        }
    };
    let thread = |name: &str| std::thread::Builder::new().name(name.into());
    thread("stopping").spawn(say)?;
    thread("signals").spawn(wait).map(drop)
}
