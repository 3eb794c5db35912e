//! `fp8flow runs`: the runs of a folder.

use fp8flow_flow::Seen;
use fp8flow_report::words::{duration, go_on, minute};
use serde_json::json;

use crate::args::RunsCommand;
use crate::choose;
use crate::failure::Failure;
use crate::run_text::{colour, object};
use crate::screen::Screen;
use crate::table::{self, Cell};

pub(super) fn runs(command: &RunsCommand, screen: &Screen) -> Result<(), Failure> {
    let RunsCommand::List(args) = command;
    let (mut seen, mut unreadable) = (Vec::new(), Vec::new());
    for (path, record) in choose::all(&args.runs)? {
        match record.and_then(|_| Seen::look(&path)).and_then(|run| run.at().map(|at| (run, at))) {
            Ok(row) => seen.push(row),
            Err(error) => unreadable.push((path, error.to_string())),
        }
    }
    let go_on = |index: usize| unfinished(&seen, index).then(|| go_on(&seen[index].0));
    if screen.json() {
        let rows = seen
            .iter()
            .enumerate()
            .map(|(index, (run, at))| object(run, ("at", json!(at)), run.lasted(), go_on(index).as_deref()));
        let broken = unreadable.iter().map(|(path, error)| json!({ "folder": path, "error": error }));
        let object = json!({ "runs": rows.collect::<Vec<_>>(), "unreadable": broken.collect::<Vec<_>>() });
        screen.print(object.to_string());
        return Ok(());
    }
    if seen.is_empty() {
        screen.print(format!("no run in {}", args.runs.display()));
    } else {
        show(&seen, &go_on, screen);
    }
    for (_, error) in &unreadable {
        screen.complain(format!("\x1b[1;33mwarning\x1b[0m: {error}"));
    }
    Ok(())
}

fn show(seen: &[(Seen, Option<String>)], go_on: &dyn Fn(usize) -> Option<String>, screen: &Screen) {
    let heads = ["run", "workflow", "status", "at", "started (UTC)", "for"];
    let mut rows = vec![heads.map(|head| Cell::new(head).colour("\x1b[2m")).to_vec()];
    for (run, at) in seen {
        rows.push(vec![
            Cell::new(&run.record.id),
            Cell::new(&run.record.workflow),
            Cell::new(run.standing.word()).colour(colour(run.standing)),
            Cell::new(at.as_deref().unwrap_or("-")),
            Cell::new(minute(&run.record.started)),
            Cell::new(duration(run.lasted())),
        ]);
    }
    let mut lines = table::lines(&rows, "").into_iter();
    screen.print(lines.next().unwrap_or_default());
    for (index, line) in lines.enumerate() {
        screen.print(line);
        if let Some(command) = go_on(index) {
            screen.print(format!("    goes on with: {command}"));
        }
    }
}

/// Whether `run` would go on with the run at `index`: no later one is of the same workflow.
fn unfinished(seen: &[(Seen, Option<String>)], index: usize) -> bool {
    let run = &seen[index].0;
    let later = seen[index + 1..].iter().any(|(later, _)| later.record.identity == run.record.identity);
    !later && run.standing.is_unfinished()
}
