//! `fp8flow plugin test`: the conformance suite on a plugin's library.

use std::time::Duration;

use fp8flow_flow::Class;
use fp8flow_host::Found;
use fp8flow_stages::conformance::{Examined, examine};
use serde_json::json;

use super::facts;
use crate::failure::Failure;
use crate::screen::Screen;

pub(super) fn test(found: &Found, limit: Duration, screen: &Screen) -> Result<(), Failure> {
    let manifest = &found.manifest;
    if !screen.json() {
        let (path, digest) = (found.path.display(), found.digest.short());
        screen.print(format!("{} {}  {path}  blake3 {digest}…\n", manifest.name, manifest.version));
    }
    let mut subject = String::new();
    let examination = examine(found, limit, &mut |examined| {
        if screen.json() {
            let mut object = json!(examined);
            object["event"] = "check_finished".into();
            return screen.print(object.to_string());
        }
        if subject != examined.subject {
            subject.clone_from(&examined.subject);
            screen.print(&subject);
        }
        screen.print(line(examined));
    });
    let (checks, failed) = (examination.checks.len(), examination.failures().count());
    if screen.json() {
        let passed = examination.passed();
        let mut object = facts(found);
        object["event"] = "plugin_tested".into();
        object["passed"] = passed.into();
        object["checks"] = checks.into();
        object["failed"] = failed.into();
        screen.print(object.to_string());
    } else if failed == 0 {
        screen.print(format!("\n\x1b[32mconforms\x1b[0m: {checks} checks"));
    } else {
        let lines: Vec<_> = examination.failures().map(again).collect();
        screen.print(format!(
            "\n\x1b[1;91mdoes not conform\x1b[0m: {failed} of {checks} checks failed\n{}",
            lines.join("\n")
        ));
    }
    if examination.passed() { Ok(()) } else { Err(Failure::Said(Class::Failed)) }
}

fn line(examined: &Examined) -> String {
    let mark = if examined.passed { "\x1b[32mok\x1b[0m    " } else { "\x1b[1;91mFAILED\x1b[0m" };
    format!("  {mark}  {:<14} {}", examined.check, examined.message)
}

fn again(examined: &Examined) -> String {
    format!("  {} of {}: {}", examined.check, examined.subject, examined.message)
}
