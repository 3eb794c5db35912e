//! JSON as Python's `json.dumps` writes it: a space after `,` and `:`, or lines with an indent.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// `value` on one line, or on several with `indent` spaces a level.
pub(super) fn to_python_json(
    value: &impl Serialize,
    indent: Option<usize>,
) -> Result<String, serde_json::Error> {
    let mut out = Vec::new();
    match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut out, OneLine))?,
        Some(width) => {
            let indent = vec![b' '; width.min(16)];
            value.serialize(&mut Serializer::with_formatter(
                &mut out,
                PrettyFormatter::with_indent(&indent),
            ))?;
        }
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_spaces_are_pythons() {
        let value = json!({"b": [1, 2.5, null], "a": {"ü": "<&>\"'\n"}, "e": [], "f": {}});
        // python: json.dumps(value, ensure_ascii=False)
        let line = r#"{"b": [1, 2.5, null], "a": {"ü": "<&>\"'\n"}, "e": [], "f": {}}"#;
        assert_eq!(to_python_json(&value, None).unwrap(), line);
        let lines = "{\n  \"b\": [\n    1\n  ],\n  \"e\": []\n}";
        assert_eq!(to_python_json(&json!({"b": [1], "e": []}), Some(2)).unwrap(), lines);
    }
}
