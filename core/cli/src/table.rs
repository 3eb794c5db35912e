//! Columns that stand under each other.

use std::fmt::Write as _;

/// A cell: its text, and a colour for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    colour: &'static str,
    right: bool,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// A number: it stands at the right.
    pub(crate) fn number(text: impl Into<String>) -> Self {
        Self { text: text.into(), right: true, ..Self::default() }
    }

    /// In colour, an ANSI sequence.
    pub(crate) fn colour(self, colour: &'static str) -> Self {
        Self { colour, ..self }
    }
}

/// The lines of a table, each indented; the last cell of a row is as long as it likes.
pub(crate) fn lines(rows: &[Vec<Cell>], indent: &str) -> Vec<String> {
    let width = |cell: &Cell| cell.text.chars().count();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(width).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<Cell>| {
        let mut line = indent.to_owned();
        for (cell, column) in row.iter().zip(&widths) {
            let pad = " ".repeat(column - width(cell));
            let reset = if cell.colour.is_empty() { "" } else { "\x1b[0m" };
            let text = format!("{}{}{reset}", cell.colour, cell.text);
            let (left, right) = if cell.right { (pad, text) } else { (text, pad) };
            let _ = write!(line, "{left}{right}  ");
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_colour_takes_no_room() {
        let rows = [
            vec![Cell::new("run"), Cell::number("loss"), Cell::new("x")],
            vec![Cell::new("quiet-fox").colour("\x1b[1m"), Cell::number("0.25"), Cell::new("")],
        ];
        assert_eq!(lines(&rows, " "), [" run        loss  x", " \x1b[1mquiet-fox\x1b[0m  0.25"]);
    }
}
