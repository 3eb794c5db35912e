//! Layouts as text, and which differences from the published ones are allowed.

use std::fmt::Write as _;
use std::path::Path;

/// A published type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    /// What it is, its name, and what never changes about it.
    pub(crate) head: String,
    /// Whether lines may be added at the end.
    pub(crate) grows: bool,
    /// One line a field or method.
    pub(crate) lines: Vec<String>,
}

const GROWS: &str = " (grows at its end)";
const PREFACE: &str = "\
# The ABI of fp8flow-sdk as published: the structs of fp8flow_plugin.h with offsets, then every type that the Rust road
# hands across. Types that grow get lines at their end and nowhere else; the others never change. Kept by the test `abi`
# (FP8FLOW_BLESS=1 adds what has grown, and nothing else).
";

fn path() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/abi.txt"))
}

pub(crate) fn write(sections: &[Section]) -> String {
    let mut text = PREFACE.to_owned();
    for Section { head, grows, lines } in sections {
        let _ = writeln!(text, "\n{head}{}", if *grows { GROWS } else { "" });
        for line in lines {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

pub(crate) fn read(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let (Some(line), Some(section)) = (line.strip_prefix("  "), sections.last_mut()) {
            section.lines.push(line.to_owned());
            continue;
        }
        let head = line.strip_suffix(GROWS);
        let grows = head.is_some();
        sections.push(Section { head: head.unwrap_or(line).to_owned(), grows, lines: Vec::new() });
    }
    sections
}

/// Every way in which `now` breaks what was `published`.
pub(crate) fn breaks(published: &[Section], now: &[Section]) -> Vec<String> {
    let mut breaks = Vec::new();
    for old in published {
        let Some(new) = now.iter().find(|new| new.head == old.head) else {
            breaks.push(format!("`{}` is gone, or is another", old.head));
            continue;
        };
        if old.grows != new.grows {
            breaks.push(format!("`{}`: whether it may grow has changed", old.head));
        }
        for (i, line) in old.lines.iter().enumerate() {
            match new.lines.get(i) {
                Some(found) if found == line => {}
                Some(found) => breaks.push(format!("`{}`: `{line}` became `{found}`", old.head)),
                None => breaks.push(format!("`{}`: `{line}` is gone", old.head)),
            }
        }
        if !old.grows && new.lines.len() > old.lines.len() {
            breaks.push(format!("`{}` has grown, and must never", old.head));
        }
    }
    breaks
}

pub(crate) fn bless_or_compare(now: &[Section]) {
    let published = std::fs::read_to_string(path()).unwrap_or_default();
    let broken = breaks(&read(&published), now);
    assert!(
        broken.is_empty(),
        "the ABI is broken; plugins in the field would crash or be refused:\n  {}\nNew fields and methods go to the end of \
         types that grow. A change that cannot be avoided is a new C ABI number or a new generation of the SDK: then \
         begin abi.txt anew, and say so in CHANGELOG.md.",
        broken.join("\n  ")
    );
    let text = write(now);
    if published != text {
        assert!(
            std::env::var_os("FP8FLOW_BLESS").is_some(),
            "the ABI has grown: run this test with FP8FLOW_BLESS=1 and commit sdk/abi/abi.txt"
        );
        std::fs::write(path(), text).unwrap();
    }
}

#[test]
fn growth_at_the_end_is_allowed_and_nothing_else() {
    let section = |grows, lines: &[&str]| Section {
        head: "c struct a".to_owned(),
        grows,
        lines: lines.iter().map(|&line| line.to_owned()).collect(),
    };
    let old = [section(true, &["0 size", "8 x"])];
    assert_eq!(read(&write(&old)), old);
    assert_eq!(breaks(&old, &old), [""; 0]);
    assert_eq!(breaks(&old, &[section(true, &["0 size", "8 x", "16 y"])]), [""; 0]);
    for (grows, lines) in [
        (true, &["0 size", "8 y", "16 x"][..]),
        (true, &["0 size"]),
        (true, &["8 x", "0 size"]),
        (true, &["0 size", "16 x"]),
        (false, &["0 size", "8 x"]),
    ] {
        assert!(!breaks(&old, &[section(grows, lines)]).is_empty(), "{grows}, {lines:?}");
    }
    assert!(!breaks(&old, &[]).is_empty());
    let fixed = [section(false, &["0 x"])];
    assert!(!breaks(&fixed, &[section(false, &["0 x", "8 y"])]).is_empty());
}
