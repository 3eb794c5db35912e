//! Documents: `{"text": …}`, or a line of a plain file.

use serde_json::Value;

use super::Record;
use super::shape::{self, Parsed, Shape};
use crate::report::Reason;

pub(super) fn parse(row: Value) -> Result<Parsed, Shape> {
    let mut row = shape::object(row, "a row")?;
    Ok(document(shape::required_string(&mut row, "text")?))
}

/// A document, unless it is blank.
pub(super) fn document(text: String) -> Parsed {
    if text.trim().is_empty() { Err(Reason::EmptyText) } else { Ok(Record::Text(text)) }
}
