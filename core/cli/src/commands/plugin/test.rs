//! `fp8flow plugin test`: the conformance suite on a plugin's library.

use std::time::Duration;

use fp8flow_flow::Class;
use fp8flow_host::Found;
use fp8flow_stages::conformance::{Examined, LeftOut, News, Unfit, examine};
use serde_json::json;

use super::facts;
use crate::failure::Failure;
use crate::screen::Screen;

pub(super) fn test(found: &Found, device: &str, limit: Duration, screen: &Screen) -> Result<(), Failure> {
    let manifest = &found.manifest;
    if !screen.json() {
        let (path, digest) = (found.path.display(), found.digest.short());
        screen.print(format!("{} {}  {path}  blake3 {digest}…\n", manifest.name, manifest.version));
    }
    let mut subject = String::new();
    let heard = examine(found, device, limit, &mut |news| {
        let examined = match news {
            News::Card(_) if screen.json() => return,
            News::Card(card) => return screen.print(format!("layers on {card}\n")),
            News::Ended(examined) => examined,
        };
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
    let examination = heard.map_err(|unfit| failure(&unfit))?;
    let (checks, failed) = (examination.checks.len(), examination.failures().count());
    if screen.json() {
        let passed = examination.passed();
        let mut object = facts(found);
        object["event"] = "plugin_tested".into();
        object["device"] = examination.device.as_str().into();
        object["left_out"] = json!(examination.left_out);
        object["passed"] = passed.into();
        object["checks"] = checks.into();
        object["failed"] = failed.into();
        screen.print(object.to_string());
        return outcome(passed);
    }
    if !examination.left_out.is_empty() {
        screen.print("");
    }
    for LeftOut { name, reason } in &examination.left_out {
        screen.print(format!("left out: {name}: {reason}"));
    }
    if failed == 0 {
        screen.print(format!("\n\x1b[32mconforms\x1b[0m: {checks} checks"));
    } else {
        let lines: Vec<_> = examination.failures().map(again).collect();
        screen.print(format!(
            "\n\x1b[1;91mdoes not conform\x1b[0m: {failed} of {checks} checks failed\n{}",
            lines.join("\n")
        ));
    }
    outcome(examination.passed())
}

fn outcome(passed: bool) -> Result<(), Failure> {
    if passed { Ok(()) } else { Err(Failure::Said(Class::Failed)) }
}

fn failure(unfit: &Unfit) -> Failure {
    match unfit {
        Unfit::Unknown(_) => Failure::usage(unfit, unfit.help()),
        Unfit::NotForCards { .. } | Unfit::NoCard(_) => {
            Failure::new(Class::Missing, unfit).help(unfit.help())
        }
    }
}

fn line(examined: &Examined) -> String {
    let mark = if examined.passed { "\x1b[32mok\x1b[0m    " } else { "\x1b[1;91mFAILED\x1b[0m" };
    format!("  {mark}  {:<14} {}", examined.check, examined.message)
}

fn again(examined: &Examined) -> String {
    format!("  {} of {}: {}", examined.check, examined.subject, examined.message)
}
