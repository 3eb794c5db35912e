//! The tutorial, followed to the letter: every command is run, every file written, and what it shows is looked for.

use std::fs::{self, File};
use std::path::Path;

use crate::page::{Block, blocks};
use crate::project::{ROOT, Workshop, age_of_sources};

const PAGE: &str = "docs/src/plugins/tutorial.md";

#[test]
fn the_tutorial_leads_to_a_verified_plugin() {
    // Always the same place: Cargo takes what it has built of the SDK again.
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(place).unwrap();
    let lock = File::create(place.join("tutorial.lock")).unwrap();
    lock.lock().unwrap();
    let (folder, kept) = (place.join("tutorial"), place.join("tutorial-target"));
    let project = folder.join("mx-like");
    if project.join("target").exists() {
        let _ = fs::remove_dir_all(&kept);
        fs::rename(project.join("target"), &kept).unwrap();
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();

    let mut workshop = Workshop::new(folder);
    let page = fs::read_to_string(Path::new(ROOT).join(PAGE)).unwrap();
    let mut printed = String::new();
    for block in blocks(&page) {
        match block {
            Block::Commands(lines) => {
                printed.clear();
                for line in lines {
                    if let Some(folder) = line.strip_prefix("cd ") {
                        workshop.folder = workshop.folder.join(folder);
                    } else {
                        printed += &workshop.run(line);
                    }
                    if line.starts_with("fp8flow plugin new ") {
                        age_of_sources(&project);
                        if kept.exists() {
                            fs::rename(&kept, project.join("target")).unwrap();
                        }
                    }
                }
            }
            Block::Printed(lines) => {
                for line in lines {
                    let shown = printed.lines().any(|found| shows(found, line));
                    assert!(shown, "nothing has printed `{line}`:\n{printed}");
                }
            }
            Block::File(path, text) => fs::write(workshop.folder.join(path), text).unwrap(),
        }
    }
    assert!(project.join("runs").exists() && project.join("out/model.safetensors").exists());

    // What the page does not ask of an author, but we do.
    workshop.run("cargo fmt --check -- --config max_width=100,use_small_heuristics=Default");
    workshop.run("cargo clippy --locked --release --all-targets -- -D warnings");
    let fresh = Workshop::new(tempfile::tempdir().unwrap().keep());
    fresh.run("fp8flow plugin new mine");
    fresh.run("cd mine && cargo fmt --check");
    fs::remove_dir_all(&fresh.folder).unwrap();
}

/// Whether a line that was printed is, among others, what the page shows of it, with `…` for what it leaves out.
fn shows(printed: &str, shown: &str) -> bool {
    let rest = shown.split('…').map(str::trim).try_fold(printed, |rest, part| Some(rest.split_once(part)?.1));
    rest.is_some()
}

#[test]
fn a_line_may_leave_something_out() {
    for (shown, yes) in
        [("conforms: … checks", true), ("32 checks", true), ("…", true), ("checks … conforms", false)]
    {
        assert_eq!(shows("conforms: 32 checks", shown), yes, "{shown}");
    }
}
