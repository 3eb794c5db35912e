//! A file as a sequence of rows, in bounded memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::shape::Shape;
use crate::DataError;

/// The longest row that is read; a file without line ends must not fill the memory.
const MAX_ROW_BYTES: u64 = 64 << 20;

/// A row before its format is looked at.
#[derive(Debug)]
pub(super) enum RawRow {
    Json(Value),
    Line(String),
}

/// How rows follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// A line of text each.
    Lines,
    /// A JSON object on a line each; blank lines are nothing.
    JsonLines,
    /// Elements of one JSON array.
    Array(Place),
}

/// Where in an array the reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// After `[`.
    Start,
    /// After an element.
    AfterElement,
    /// After `]`.
    End,
}

/// Reads one row after another.
pub(super) struct Rows {
    reader: BufReader<Box<dyn Read + Send>>,
    path: PathBuf,
    layout: Layout,
    /// Rows read.
    row: u64,
    /// Line the reader stands in, from 1.
    line: u64,
    /// Line the latest row begins at.
    row_line: u64,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("path", &self.path).field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl Rows {
    /// The rows of the file at `path`: lines of text if `plain`, else JSON in the layout its first byte tells.
    pub(super) fn open(path: &Path, plain: bool) -> Result<Self, DataError> {
        let io = |source| DataError::Io { action: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.is_dir() {
            return Err(io(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        Self::new(Box::new(file), path, plain)
    }

    fn new(source: Box<dyn Read + Send>, path: &Path, plain: bool) -> Result<Self, DataError> {
        let mut rows = Self {
            reader: BufReader::with_capacity(1 << 16, source),
            path: path.to_owned(),
            layout: Layout::Lines,
            row: 0,
            line: 1,
            row_line: 1,
            buffer: Vec::new(),
        };
        if rows.peek()? == Some(0xEF) {
            rows.skip_byte_order_mark()?;
        }
        if !plain {
            rows.layout = match rows.skip_space()? {
                Some(b'[') => {
                    rows.reader.consume(1);
                    Layout::Array(Place::Start)
                }
                Some(b'{') => Layout::JsonLines,
                other => return Err(rows.no_json(other)),
            };
        }
        Ok(rows)
    }

    /// The number of the latest row, from 1.
    pub(super) fn number(&self) -> u64 {
        self.row
    }

    /// The latest row does not have the shape its format wants.
    pub(super) fn wrong_shape(&self, shape: Shape) -> DataError {
        self.error(self.row_line, shape.expected, shape.found)
    }

    /// The next row; `None` at the end of the file.
    pub(super) fn next_row(&mut self) -> Result<Option<RawRow>, DataError> {
        match self.layout {
            Layout::Lines => {
                if !self.read_line()? {
                    return Ok(None);
                }
                let bytes = std::mem::take(&mut self.buffer);
                match String::from_utf8(bytes) {
                    Ok(line) => Ok(Some(RawRow::Line(line))),
                    Err(error) => Err(self.error(
                        self.row_line,
                        "text in UTF-8",
                        format!("a byte at {} that is none", error.utf8_error().valid_up_to()),
                    )),
                }
            }
            Layout::JsonLines => loop {
                if !self.read_line()? {
                    return Ok(None);
                }
                if !self.buffer.trim_ascii().is_empty() {
                    return self.parse("a JSON object on a line (JSON Lines), or one array of rows");
                }
                self.row -= 1;
            },
            Layout::Array(place) => self.next_element(place),
        }
    }

    /// Reads a line without its end into the buffer and counts it as a row; `false` at the end of the file.
    fn read_line(&mut self) -> Result<bool, DataError> {
        self.buffer.clear();
        let path = &self.path;
        let read = (&mut self.reader)
            .take(MAX_ROW_BYTES + 1)
            .read_until(b'\n', &mut self.buffer)
            .map_err(|source| DataError::Io { action: "read", path: path.clone(), source })?;
        if read == 0 {
            return Ok(false);
        }
        self.row += 1;
        self.row_line = self.line;
        if self.buffer.pop_if(|byte| *byte == b'\n').is_some() {
            self.buffer.pop_if(|byte| *byte == b'\r');
            self.line += 1;
        } else if read as u64 > MAX_ROW_BYTES {
            return Err(self.too_long());
        }
        Ok(true)
    }

    /// The next element of the array.
    fn next_element(&mut self, place: Place) -> Result<Option<RawRow>, DataError> {
        let next = self.skip_space()?;
        match (place, next) {
            (Place::Start | Place::AfterElement, Some(b']')) => {
                self.reader.consume(1);
                self.layout = Layout::Array(Place::End);
                return match self.skip_space()? {
                    None => Ok(None),
                    Some(byte) => Err(self.error(self.line, "nothing after the array of rows", found(byte))),
                };
            }
            (Place::AfterElement, Some(b',')) => {
                self.reader.consume(1);
                match self.skip_space()? {
                    Some(b']') => return Err(self.error(self.line, "a row after `,`", "`]`")),
                    None => return Err(self.error(self.line, "a row after `,`", "the end of the file")),
                    Some(_) => {}
                }
            }
            (Place::AfterElement, Some(byte)) => {
                return Err(self.error(self.line, "`,` or `]` after a row", found(byte)));
            }
            (Place::Start, Some(_)) => {}
            (Place::End, _) => return Ok(None),
            (_, None) => {
                return Err(self.error(self.line, "`]` after the last row", "the end of the file"));
            }
        }
        self.row += 1;
        self.row_line = self.line;
        self.layout = Layout::Array(Place::AfterElement);
        self.scan_element()?;
        self.parse("JSON")
    }

    /// Reads bytes up to the `,` or `]` that ends an element: quotes and brackets are all that has to be known.
    fn scan_element(&mut self) -> Result<(), DataError> {
        self.buffer.clear();
        let (mut depth, mut quoted, mut escaped) = (0_u64, false, false);
        loop {
            let chunk = self.reader.fill_buf().map_err(|source| DataError::Io {
                action: "read",
                path: self.path.clone(),
                source,
            })?;
            if chunk.is_empty() && depth == 0 && !quoted {
                return Ok(());
            }
            if chunk.is_empty() {
                return Err(self.error(self.row_line, "a complete row", "the end of the file inside it"));
            }
            let end = chunk.iter().position(|&byte| {
                if byte == b'\n' {
                    self.line += 1;
                }
                if quoted {
                    quoted = escaped || byte != b'"';
                    escaped = !escaped && byte == b'\\';
                    return false;
                }
                match byte {
                    b'"' => quoted = true,
                    b'{' | b'[' => depth += 1,
                    b',' | b']' | b'}' if depth == 0 => return true,
                    b']' | b'}' => depth -= 1,
                    _ => {}
                }
                false
            });
            let taken = end.unwrap_or(chunk.len());
            if self.buffer.len() as u64 + taken as u64 > MAX_ROW_BYTES {
                return Err(self.too_long());
            }
            self.buffer.extend_from_slice(&chunk[..taken]);
            self.reader.consume(taken);
            if end.is_some() {
                return Ok(());
            }
        }
    }

    /// The buffer as JSON.
    fn parse(&self, expected: &str) -> Result<Option<RawRow>, DataError> {
        serde_json::from_slice(&self.buffer).map(|value| Some(RawRow::Json(value))).map_err(|error| {
            let message = error.to_string();
            let (what, _) = message.split_once(" at line ").unwrap_or((&message, ""));
            let line = self.row_line + (error.line() as u64).saturating_sub(1);
            self.error(line, expected, format!("a mistake: {what}"))
        })
    }

    /// The next byte that is not white space, not yet consumed.
    fn skip_space(&mut self) -> Result<Option<u8>, DataError> {
        loop {
            match self.peek()? {
                Some(b'\n') => self.line += 1,
                Some(b' ' | b'\t' | b'\r') => {}
                other => return Ok(other),
            }
            self.reader.consume(1);
        }
    }

    fn skip_byte_order_mark(&mut self) -> Result<(), DataError> {
        for expected in [0xEF, 0xBB, 0xBF] {
            if self.peek()? != Some(expected) {
                return Err(self.error(1, "text in UTF-8", "bytes that are none"));
            }
            self.reader.consume(1);
        }
        Ok(())
    }

    fn peek(&mut self) -> Result<Option<u8>, DataError> {
        match self.reader.fill_buf() {
            Ok(bytes) => Ok(bytes.first().copied()),
            Err(source) => Err(DataError::Io { action: "read", path: self.path.clone(), source }),
        }
    }

    fn no_json(&self, first: Option<u8>) -> DataError {
        let found = match first {
            None => "an empty file".to_owned(),
            Some(byte) => format!("{} at its beginning", found(byte)),
        };
        DataError::File {
            path: self.path.clone(),
            expected: "a JSON array of rows or a JSON object on each line".into(),
            found,
        }
    }

    fn too_long(&self) -> DataError {
        self.error(self.row_line, format!("a row of at most {} MiB", MAX_ROW_BYTES >> 20), "a longer one")
    }

    fn error(&self, line: u64, expected: impl Into<String>, found: impl Into<String>) -> DataError {
        DataError::Row {
            path: self.path.clone(),
            row: self.row,
            line,
            expected: expected.into(),
            found: found.into(),
        }
    }
}

fn found(byte: u8) -> String {
    if byte.is_ascii_graphic() { format!("`{}`", char::from(byte)) } else { format!("the byte {byte:#04x}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rows(text: &[u8], plain: bool) -> Result<Vec<RawRow>, DataError> {
        let mut rows = Rows::new(Box::new(io::Cursor::new(text.to_vec())), Path::new("rows.json"), plain)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next_row()? {
            all.push(row);
            assert_eq!(rows.number(), all.len() as u64);
        }
        Ok(all)
    }

    fn json_rows(text: &str) -> Vec<Value> {
        let value = |row| match row {
            RawRow::Json(value) => value,
            RawRow::Line(line) => panic!("a line: {line}"),
        };
        rows(text.as_bytes(), false).unwrap().into_iter().map(value).collect()
    }

    fn error(text: &str) -> String {
        rows(text.as_bytes(), false).unwrap_err().to_string()
    }

    #[test]
    fn an_array_and_json_lines_give_the_same_rows() {
        let expected = [json!({"a": "],}\"\\"}), json!({"b": [1, {"c": []}]})];
        let array = " [ {\"a\": \"],}\\\"\\\\\"}\n ,{\"b\":\r\n [1, {\"c\": []}]}\n]\n";
        let lines = "\n{\"a\": \"],}\\\"\\\\\"}\r\n\n  {\"b\": [1, {\"c\": []}]}";
        assert_eq!(json_rows(array), expected);
        assert_eq!(json_rows(lines), expected);
        assert_eq!(json_rows(&format!("\u{feff}{array}")), expected);
        assert_eq!(json_rows("[]"), Vec::<Value>::new());
    }

    #[test]
    fn a_line_of_text_is_a_row_without_its_end() {
        let lines: Vec<_> = rows("eins\r\n\nzwei\n[".as_bytes(), true)
            .unwrap()
            .into_iter()
            .map(|row| match row {
                RawRow::Line(line) => line,
                RawRow::Json(value) => panic!("{value}"),
            })
            .collect();
        assert_eq!(lines, ["eins", "", "zwei", "["]);
    }

    #[test]
    fn malformed_files_are_named_with_row_and_line() {
        for (text, expected) in [
            (
                "",
                "rows.json: expected a JSON array of rows or a JSON object on each line, found an empty file",
            ),
            ("hello", "a JSON object on each line, found `h` at its beginning"),
            ("[\n{\"a\": 1},\n\n{\"a\" 2}]", "row 2 (line 4): expected JSON, found a mistake: expected `:`"),
            (
                "[\n{\"a\": 1},\n{\"a\":\n 2",
                "row 2 (line 3): expected a complete row, found the end of the file inside it",
            ),
            ("[{\"a\": 1}", "row 1 (line 1): expected `]` after the last row, found the end of the file"),
            (
                "[{\"a\": 1} {\"a\": 1}]",
                "row 1 (line 1): expected JSON, found a mistake: trailing characters",
            ),
            ("[{\"a\": 1}}]", "row 1 (line 1): expected `,` or `]` after a row, found `}`"),
            ("[{\"a\": 1},]", "row 1 (line 1): expected a row after `,`, found `]`"),
            ("[,{\"a\": 1}]", "row 1 (line 1): expected JSON, found a mistake: EOF while parsing a value"),
            ("[{\"a\": 1},\n", "row 1 (line 2): expected a row after `,`, found the end of the file"),
            ("[{\"a\": 1}]\n{}", "row 1 (line 2): expected nothing after the array of rows, found `{`"),
            (
                "{\"a\": 1}\n{\"a\":\n1}",
                "row 2 (line 2): expected a JSON object on a line (JSON Lines), or one array of rows, found a mistake: EOF while parsing a value",
            ),
        ] {
            assert!(error(text).contains(expected), "{text:?}: {}", error(text));
        }
        let text = rows(b"ab\n\xff\n", true).unwrap_err().to_string();
        assert!(text.contains("row 2 (line 2): expected text in UTF-8"), "{text}");
    }

    #[test]
    fn nesting_deeper_than_the_parser_goes_is_an_error() {
        let deep = "[".repeat(100_000);
        assert!(error(&format!("[{deep}{}]", "]".repeat(100_000))).contains("recursion limit"));
        assert!(error(&format!("{{\"a\": {deep}")).contains("recursion limit"));
    }

    #[test]
    fn a_row_without_end_is_an_error_before_it_fills_the_memory() {
        for (start, plain) in [("[\"", false), ("{", false), ("a", true)] {
            let endless = io::Cursor::new(start).chain(io::repeat(b'a'));
            let mut rows = Rows::new(Box::new(endless), Path::new("endless"), plain).unwrap();
            let error = rows.next_row().unwrap_err().to_string();
            assert!(error.contains("row 1 (line 1): expected a row of at most 64 MiB"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), plain: bool) {
            let _ = rows(&bytes, plain);
        }

        #[test]
        fn no_mutation_of_good_files_makes_the_reader_panic(at in 0..60_usize, byte: u8, array: bool) {
            let mut text = if array {
                b"[{\"a\": [1, {\"b\": \"\\\"x\"}]}, {\"c\": null}, {\"d\": 1.5}]  ".to_vec()
            } else {
                b"{\"a\": [1, {\"b\": \"\\\"x\"}]}\n{\"c\": null}\n{\"d\": 1.5}\n\n".to_vec()
            };
            let at = at % text.len();
            text[at] = byte;
            let _ = rows(&text, false);
        }
    }
}
