//! What a command has done, as it is called for programs.

use crate::bench::Bench;
use crate::packages::library;

#[test]
fn events_are_called_by_what_was_done_to_what() {
    let bench = Bench::empty();
    let pack = format!("plugin pack {}", library().display());
    for (line, event) in [
        ("init --template quickstart", "workflow_created"),
        ("check workflow.toml", "workflow_checked"),
        ("plugin new mine", "plugin_created"),
        (&pack, "plugin_packed"),
        ("plugin install torchao-rowwise-0.1.0", "plugin_installed"),
        ("plugin verify", "plugin_verified"),
        ("plugin remove torchao-rowwise", "plugin_removed"),
        ("doctor", "doctor_finished"),
        ("check nowhere.toml", "error"),
    ] {
        let said = bench.fp8flow(&format!("{line} --json"));
        let names: Vec<_> = said.lines().iter().map(|object| object["event"].clone()).collect();
        assert_eq!(names, [event], "{line}: {}", said.err);
    }
}
