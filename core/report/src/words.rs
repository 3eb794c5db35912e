//! Moments, durations, sizes and commands as people read them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use fp8flow_flow::Seen;
use fp8flow_host::shell::quoted;
use serde_json::Value;

/// `2026-11-25 22:17` of a moment.
pub fn minute(time: &str) -> String {
    time.get(..16).unwrap_or(time).replace('T', " ")
}

/// `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `812 B`, `48.2 kB`, `1.25 GB`, not broken across lines.
pub(crate) fn size(bytes: u64) -> String {
    let x = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes}\u{a0}B"),
        1_000..1_000_000 => format!("{:.1}\u{a0}kB", x / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}\u{a0}MB", x / 1e6),
        _ => format!("{:.2}\u{a0}GB", x / 1e9),
    }
}

/// A share as people say it.
pub(crate) fn percent(share: f64) -> String {
    match 100.0 * share {
        0.0 => "0\u{a0}%".into(),
        percent if percent < 0.1 => format!("{percent:.4}\u{a0}%"),
        percent => format!("{percent:.1}\u{a0}%"),
    }
}

/// The command that goes on with `run`: its workflow's file, with what was laid over it.
pub fn go_on(run: &Seen) -> String {
    run_of(run, &run.record.file)
}

/// The same, good wherever one stands.
pub(crate) fn go_on_from_anywhere(run: &Seen) -> String {
    run_of(run, &workflow_file(run).display().to_string())
}

/// The workflow's file, absolute.
pub(crate) fn workflow_file(run: &Seen) -> PathBuf {
    let file = Path::new(&run.record.file);
    Path::new(&run.record.folder).join(file.file_name().unwrap_or(file.as_os_str()))
}

fn run_of(run: &Seen, file: &str) -> String {
    let words = run.record.environment["argv"].as_array().into_iter().flatten().filter_map(Value::as_str);
    format!("fp8flow run {}{}", quoted(file), said_again(&words.collect::<Vec<_>>()))
}

/// What a command line says beside the workflow of which run is meant, and of where its plugins are.
fn said_again(words: &[&str]) -> String {
    let mut again = String::new();
    for (index, word) in words.iter().enumerate() {
        for option in ["--set", "--point", "--runs", "--plugin-path"] {
            let value = match word.strip_prefix(option) {
                Some("") => words.get(index + 1).copied(),
                Some(rest) => rest.strip_prefix('='),
                None => None,
            };
            if let Some(value) = value {
                let _ = write!(again, " {option} {}", quoted(value));
            }
        }
    }
    again
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_line_has_said_is_said_again() {
        let words =
            "fp8flow --plugin-path=mine run w.toml --threads 2 --set a=1 --point p --runs r --plugin-path b";
        let words: Vec<&str> = words.split(' ').collect();
        assert_eq!(said_again(&words), " --plugin-path mine --set a=1 --point p --runs r --plugin-path b");
    }

    #[test]
    fn a_moment_is_shown_to_the_minute() {
        assert_eq!(minute("2026-11-25T22:17:01.250Z"), "2026-11-25 22:17");
    }

    #[test]
    fn durations_and_sizes_are_short() {
        for (seconds, words) in
            [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (185.2, "3 min 5 s"), (7800.0, "2 h 10 min")]
        {
            assert_eq!(duration(seconds), words);
        }
        for (bytes, words) in
            [(999, "999 B"), (1_234, "1.2 kB"), (68_620_000, "68.6 MB"), (9_990_000_000, "9.99 GB")]
        {
            assert_eq!(size(bytes), words.replace(' ', "\u{a0}"));
        }
    }
}
