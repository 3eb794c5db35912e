//! `report.html`: a run on one page. There is no script in it and nothing from elsewhere, and it says so to the browser,
//! which then would not run one either.

mod casts;
mod charts;
mod digests;
mod environment;
mod layers;
mod memory;
mod stages;
mod summary;
#[cfg(test)]
mod tests;
mod values;
mod words;

use std::path::{Path, PathBuf};

use fp8flow_flow::{Seen, atomic};

use crate::ReportError;
use crate::facts::Facts;
use crate::html::Html;

/// The name of the page in a run's folder.
pub const FILE: &str = "report.html";

const STYLE: &str = include_str!("style.css");

/// A part of the page: what it is called, and what writes it where there is anything to say.
type Part = (&'static str, &'static str, fn(&mut Html, &Facts));

const PARTS: [Part; 10] = [
    ("stages", "Stages", stages::write),
    ("curves", "Curves", charts::write),
    ("layers", "FP8 layer by layer", layers::write),
    ("casts", "What the casts lost", casts::write),
    ("memory", "Memory", memory::write),
    ("words", "What was said", words::write),
    ("environment", "Where it ran", environment::write),
    ("digests", "Digests", digests::write),
    ("again", "How to get the same again", environment::again),
    ("values", "Every value", values::write),
];

/// The page of `run`.
pub fn page(run: &Seen) -> Result<String, ReportError> {
    Ok(of(&Facts::read(run)?))
}

/// Writes the page of `run` to `path`, or into the run's folder, and says where it is.
pub fn write(run: &Seen, path: Option<&Path>) -> Result<PathBuf, ReportError> {
    let path = path.map_or_else(|| run.folder.join(FILE), Path::to_owned);
    atomic::write(&path, page(run)?.as_bytes()).map_err(ReportError::write(&path))?;
    Ok(path)
}

fn of(facts: &Facts) -> String {
    let record = &facts.run.record;
    let mut html = Html::default();
    html.raw(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>",
    );
    html.text(&record.workflow).raw(" · ").text(&record.id).raw("</title>\n<style>\n").raw(STYLE);
    html.raw("</style>\n</head>\n<body>\n");
    summary::write(&mut html, facts);
    let parts: Vec<(&Part, Html)> = PARTS
        .iter()
        .map(|part| {
            let mut html = Html::default();
            part.2(&mut html, facts);
            (part, html)
        })
        .filter(|(_, text)| !text.is_empty())
        .collect();
    html.raw("<nav>");
    for ((id, title, _), _) in &parts {
        html.raw("<a href=\"#").raw(id).raw("\">").raw(title).raw("</a> ");
    }
    html.raw("</nav>\n<main>\n");
    for ((id, title, _), text) in parts {
        html.raw("<section id=\"").raw(id).raw("\">\n<h2>").raw(title).raw("</h2>\n");
        html.append(&text).raw("</section>\n");
    }
    html.raw("</main>\n<footer>Written by fp8flow ").text(env!("CARGO_PKG_VERSION"));
    html.raw(" at ").text(words::moment(&facts.now)).raw(".</footer>\n</body>\n</html>\n");
    html.finish()
}
