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
/// Columns of a row's name.
const NAME: usize = 20;

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
            self::row(&mut out, row);
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

fn row(out: &mut String, row: &Row) {
    let (colour, word) = match row.status {
        Status::Ok => (GREEN, "ok"),
        Status::Warn => (YELLOW, "warn"),
        Status::Fail => (RED, "fail"),
    };
    // A recipe stands under its plugin.
    let name = match row.name.split_once('/') {
        Some((_, recipe)) => format!("  {recipe}"),
        None => row.name.clone(),
    };
    let _ = write!(out, "  {colour}{word:<6}{RESET}{name:<NAME$}");
    let indent = STATUS + NAME;
    if name.chars().count() >= NAME {
        let _ = write!(out, "\n{:indent$}", "");
    }
    for (i, line) in wrapped(&row.found, WIDTH - indent).iter().enumerate() {
        let before = if i == 0 { String::new() } else { " ".repeat(indent) };
        let _ = writeln!(out, "{before}{line}");
    }
    if let Some(place) = &row.place {
        let _ = writeln!(out, "{:indent$}{DIM}{place}{RESET}", "");
    }
    for (i, line) in row.advice.iter().flat_map(|advice| wrapped(advice, WIDTH - indent - 2)).enumerate() {
        let arrow = if i == 0 { "→ " } else { "  " };
        let _ = writeln!(out, "{:indent$}{CYAN}{arrow}{line}{RESET}", "");
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

/// `text` in lines of at most `width` columns, cut between words; a longer word has a line of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let columns = line.chars().count();
            if columns > 0 && columns + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
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
        assert_eq!(wrapped("", 10), Vec::<String>::new());
    }
}
