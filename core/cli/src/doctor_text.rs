//! A diagnosis for people: one screen of 100 columns.

use std::fmt::Write as _;

use fp8flow_stages::doctor::{Diagnosis, Group, Row, Status};

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[1;91m";
const YELLOW: &str = "\x1b[1;33m";
const GREEN: &str = "\x1b[32m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";

/// Columns of the screen.
const WIDTH: usize = 100;
/// Columns of a row's status with the space around it.
const STATUS: usize = 8;
/// Most columns of a row's name; a longer one has a line of its own.
const NAME: usize = 28;

/// Every row in its group, and the answer. With `brief`, only what is not well.
pub(crate) fn text(diagnosis: &Diagnosis, workflow: Option<&str>, brief: bool) -> String {
    let mut out = String::new();
    for group in [Group::Machine, Group::Cuda, Group::Plugins, Group::Workflow] {
        let rows: Vec<&Row> = diagnosis
            .rows
            .iter()
            .filter(|row| row.group == group && !(brief && row.status == Status::Ok))
            .collect();
        if rows.is_empty() {
            continue;
        }
        let heading = match (group, workflow) {
            (Group::Workflow, Some(file)) => format!("{}  {DIM}{file}{RESET}", title(group)),
            _ => title(group).to_owned(),
        };
        let _ = writeln!(out, "{BOLD}{heading}{RESET}");
        for row in rows {
            self::row(&mut out, row, columns(diagnosis, group == Group::Plugins));
        }
        out.push('\n');
    }
    out.push_str(&verdict(diagnosis, workflow));
    out
}

fn title(group: Group) -> &'static str {
    match group {
        Group::Machine => "machine",
        Group::Cuda => "cuda",
        Group::Plugins => "plugins",
        Group::Workflow => "workflow",
    }
}

/// A recipe stands under its plugin.
fn name(row: &Row) -> String {
    row.name.split_once('/').map_or_else(|| row.name.clone(), |(_, recipe)| format!("  {recipe}"))
}

/// Columns of the names: of the plugins, which choose theirs, or of everything else.
fn columns(diagnosis: &Diagnosis, plugins: bool) -> usize {
    let rows = diagnosis.rows.iter().filter(|row| (row.group == Group::Plugins) == plugins);
    rows.map(|row| name(row).chars().count() + 2).filter(|columns| *columns <= NAME).max().unwrap_or(0)
}

fn row(out: &mut String, row: &Row, columns: usize) {
    let (colour, word) = match row.status {
        Status::Ok => (GREEN, "ok"),
        Status::Warn => (YELLOW, "warn"),
        Status::Fail => (RED, "fail"),
    };
    let name = name(row);
    let indent = STATUS + columns;
    let _ = write!(out, "  {colour}{word:<6}{RESET}{name:<columns$}");
    if name.chars().count() + 2 > columns {
        let _ = write!(out, "\n{:indent$}", "");
    }
    let width = WIDTH - indent;
    let mut lines = wrapped(&row.found, width);
    if let Some(place) = &row.place {
        let dim = format!("{DIM}{place}{RESET}");
        match lines.last_mut() {
            Some(last) if last.chars().count() + 2 + place.chars().count() <= width => {
                last.push_str("  ");
                last.push_str(&dim);
            }
            _ => lines.push(dim),
        }
    }
    for (i, line) in row.advice.iter().flat_map(|advice| wrapped(advice, width - 2)).enumerate() {
        let arrow = if i == 0 { "→" } else { " " };
        lines.push(format!("{CYAN}{arrow} {line}{RESET}"));
    }
    for (i, line) in lines.iter().enumerate() {
        let before = if i == 0 { 0 } else { indent };
        let _ = writeln!(out, "{:before$}{line}", "");
    }
}

fn verdict(diagnosis: &Diagnosis, workflow: Option<&str>) -> String {
    let words = match (workflow, diagnosis.class.is_none()) {
        (None, true) => format!("{GREEN}this machine can run FP8{RESET}"),
        (None, false) => format!("{RED}not everything works{RESET}"),
        (Some(file), true) => format!("{GREEN}this machine can run {file}{RESET}"),
        (Some(file), false) => format!("{RED}this machine cannot run {file}{RESET}"),
    };
    let count = |status, word: &str| match diagnosis.count(status) {
        0 => String::new(),
        n => format!(", {n} {word}"),
    };
    format!(
        "{words}: {} ok{}{}\n",
        diagnosis.count(Status::Ok),
        count(Status::Warn, "warn"),
        count(Status::Fail, "fail")
    )
}

/// `text` in lines of at most `width` columns, cut between words, but not between a number and its unit; a longer word has
/// a line of its own.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let is_number = |word: &str| word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        let mut words = paragraph.split_whitespace();
        while let Some(word) = words.next() {
            let unit = is_number(word).then(|| words.next()).flatten();
            let word = unit.map_or_else(|| word.to_owned(), |unit| format!("{word} {unit}"));
            let columns = line.chars().count();
            if columns > 0 && columns + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&word);
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn lines_are_cut_between_words_and_long_words_are_kept() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a /very/long/path b", 6), ["a", "/very/long/path", "b"]);
        assert_eq!(wrapped("first\n  second", 80), ["first", "second"]);
        assert_eq!(wrapped("takes 87.6 MB", 10), ["takes", "87.6 MB"]);
        assert_eq!(wrapped("", 10), Vec::<String>::new());
    }
}
