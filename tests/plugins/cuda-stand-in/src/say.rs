//! Last words: a mistake that the real card would punish in some later call ends the process here, named.

/// Says what was wrong and ends the process.
pub(crate) fn stop(what: &str) -> ! {
    eprintln!("emulated card: {what}");
    std::process::abort();
}
