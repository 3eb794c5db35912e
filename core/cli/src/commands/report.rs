//! `fp8flow report`: a run as a page.

use serde_json::json;

use crate::args::ReportArgs;
use crate::choose;
use crate::failure::Failure;
use crate::run_text::near;
use crate::screen::Screen;

pub(super) fn report(args: &ReportArgs, screen: &Screen) -> Result<(), Failure> {
    let run = choose::one(&args.place.runs, args.run.as_deref())?;
    let path = fp8flow_report::write(&run, args.out.as_deref())?;
    let place = std::path::absolute(&path).unwrap_or(path);
    screen.print(if screen.json() {
        json!({ "run": run.record.id, "report": place }).to_string()
    } else {
        format!("the report of run {} is in {}", run.record.id, near(&place))
    });
    Ok(())
}
