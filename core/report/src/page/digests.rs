//! Digests: of every stage's result and of its files, and the end of the chain over every step.

use fp8flow_flow::SeenResult;

use super::words::digest;
use crate::facts::{Facts, Stage};
use crate::html::{Html, clipped};
use crate::words::size;

/// Files of a stage that are listed.
const FILES: usize = 200;

pub(super) fn write(html: &mut Html, facts: &Facts) {
    let done: Vec<&Stage> = facts.stages.iter().filter(|stage| stage.result.is_some()).collect();
    if done.is_empty() {
        return;
    }
    html.raw("<div class=\"scroll\"><table>\n<thead><tr><th>stage</th><th>digest of its result (blake3)</th></tr></thead>\n<tbody>\n");
    for stage in &done {
        let Some(result) = &stage.result else { continue };
        html.raw("<tr>").element("th", "", clipped(&stage.seen.name, 200));
        digest(html, "", &clipped(&result.result, 200));
        html.raw("</tr>\n");
    }
    for (stage, training) in facts.trainings() {
        let Some(last) = &training.chain else { continue };
        html.raw("<tr><th>").text(clipped(&stage.seen.name, 200)).raw(" <small>chain after step ");
        html.text(last.step).raw("</small></th>");
        digest(html, "", &clipped(&last.chain, 200));
        html.raw("</tr>\n");
    }
    html.raw("</tbody></table></div>\n<p class=\"note\">The chain goes over the weights, loss and learning rate of every step: two runs with the same last link had the same bits all the way.</p>\n");
    let files = done.iter().filter_map(|stage| stage.result.as_ref()).map(|result| result.outputs().count());
    html.raw("<details><summary>").text(files.sum::<usize>()).raw(" files with size and digest</summary>\n");
    html.raw("<div class=\"scroll\"><table>\n<thead><tr><th>file</th><th class=\"number\">size</th><th>blake3</th></tr></thead>\n");
    for stage in done {
        let Some(result) = &stage.result else { continue };
        html.raw("<tbody>\n");
        let (mut rest, name) = (0, &stage.seen.name);
        for (index, file) in result.outputs().enumerate() {
            if index >= FILES {
                rest += 1;
                continue;
            }
            let path =
                if file.path.is_absolute() { file.path } else { std::path::Path::new(name).join(file.path) };
            html.raw("<tr><th scope=\"row\">")
                .element("code", "", clipped(&path.display().to_string(), 500))
                .raw("</th>");
            html.element("td", "number", size(file.size));
            digest(html, "small", &clipped(&file.blake3, 200));
            html.raw("</tr>\n");
        }
        if rest > 0 {
            html.raw("<tr><td colspan=\"3\">and ").text(rest).raw(" more: see stage.json</td></tr>\n");
        }
        html.raw("</tbody>\n");
    }
    html.raw("</table></div></details>\n");
    inputs(html, facts);
}

/// Files outside the run that its stages were made from.
fn inputs(html: &mut Html, facts: &Facts) {
    let results = facts.stages.iter().filter_map(|stage| stage.result.as_ref());
    let files: Vec<_> = results.flat_map(SeenResult::inputs).take(FILES).collect();
    if files.is_empty() {
        return;
    }
    html.raw("<details><summary>")
        .text(files.len())
        .raw(" files that it was made from</summary>\n<div class=\"scroll\"><table>\n");
    html.raw("<thead><tr><th>file</th><th class=\"number\">size</th><th>blake3</th></tr></thead>\n<tbody>\n");
    for file in files {
        html.raw("<tr><th scope=\"row\">")
            .element("code", "", clipped(&file.path.display().to_string(), 500))
            .raw("</th>");
        html.element("td", "number", size(file.size));
        digest(html, "small", &clipped(&file.blake3, 200));
        html.raw("</tr>\n");
    }
    html.raw("</tbody></table></div></details>\n");
}
