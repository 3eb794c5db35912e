//! Packs the sources of the SDK, so that the binary can write them into a project: nothing of it is on crates.io.
//!
//! Files are packed as they lie in the checkout. Only the manifests are cut: tests and benches stay behind, and so do the
//! dependencies that only they have.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The crates of the SDK, by folder.
const CRATES: [&str; 4] = ["sdk/abi", "sdk/cuda", "sdk/kernels", "sdk/testkit"];

/// Sections of a crate's manifest that tests and benches need.
const LEFT_OUT: [&str; 2] = ["[dev-dependencies]", "[[bench]]"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut files = Vec::new();
    let mut needed = BTreeSet::new();
    for folder in CRATES {
        let manifest = watched(root.join(folder).join("Cargo.toml"));
        let text = fs::read_to_string(&manifest)?;
        needed.extend(dependencies(&text));
        files.push((format!("{folder}/Cargo.toml"), written(&out, folder, &cut(&text))?));
        sources(&watched(root.join(folder).join("src")), &format!("{folder}/src"), &mut files)?;
    }
    let workspace = fs::read_to_string(watched(root.join("Cargo.toml")))?;
    files.push(("Cargo.toml".into(), written(&out, "workspace", &workspace_of(&workspace, &needed))?));
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        files.push((name.into(), watched(root.join(name))));
    }

    let mut list = String::from("&[\n");
    for (name, path) in files {
        let path = path.to_str().ok_or("the path of the checkout is not UTF-8")?;
        writeln!(list, "    ({name:?}, include_bytes!({path:?})),")?;
    }
    list.push(']');
    fs::write(out.join("sdk.rs"), list)?;
    Ok(())
}

/// `path`, a change of which (or, for a folder, anywhere within) makes this program run again.
fn watched(path: PathBuf) -> PathBuf {
    println!("cargo::rerun-if-changed={}", path.display());
    path
}

/// Every file below `folder`, called by its path below `name`, in the order of names.
fn sources(folder: &Path, name: &str, files: &mut Vec<(String, PathBuf)>) -> Result<(), Box<dyn Error>> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let file = entry.file_name();
        let name = format!("{name}/{}", file.to_str().ok_or("a file's name is not UTF-8")?);
        if entry.file_type()?.is_dir() {
            sources(&entry.path(), &name, files)?;
        } else {
            files.push((name, entry.path()));
        }
    }
    Ok(())
}

/// `text` as a file of this build.
fn written(out: &Path, name: &str, text: &str) -> Result<PathBuf, Box<dyn Error>> {
    let path = out.join(format!("{}.toml", name.replace('/', "-")));
    fs::write(&path, text)?;
    Ok(path)
}

/// The sections of a manifest, each with the line that begins it.
fn sections(manifest: &str) -> Vec<String> {
    let mut sections = vec![String::new()];
    for line in manifest.lines() {
        if line.starts_with('[') {
            sections.push(String::new());
        }
        let section = sections.last_mut().expect("there is one from the start");
        section.push_str(line);
        section.push('\n');
    }
    sections
}

/// A crate's manifest without what its tests need.
fn cut(manifest: &str) -> String {
    let kept = sections(manifest).into_iter();
    let kept: String =
        kept.filter(|section| !LEFT_OUT.iter().any(|head| section.starts_with(head))).collect();
    format!("{}\n", kept.trim_end())
}

/// The keys of `[dependencies]`, each a line of the form `name.workspace = true` or `name = { workspace = true, … }`.
fn dependencies(manifest: &str) -> Vec<String> {
    let sections = sections(manifest);
    let lines =
        sections.iter().filter(|section| section.starts_with("[dependencies]")).flat_map(|s| s.lines());
    let name = |line: &str| {
        let plain = line.split_once(".workspace = ");
        Some(plain.or_else(|| line.split_once(" = { workspace = "))?.0.to_owned())
    };
    lines.skip(1).filter_map(name).collect()
}

/// The workspace of the packed crates: its package facts, the lints, and the lines of the dependencies in `needed`.
fn workspace_of(manifest: &str, needed: &BTreeSet<String>) -> String {
    let members = CRATES.map(|folder| format!("{folder:?}")).join(", ");
    let mut text = format!(
        "# The SDK of fp8flow {}, as it came with the binary that wrote this folder.\n\
         [workspace]\nresolver = \"3\"\nmembers = [{members}]\n\n",
        env!("CARGO_PKG_VERSION")
    );
    for section in sections(manifest) {
        let head = section.lines().next().unwrap_or_default();
        match head {
            "[workspace.dependencies]" => {
                text.push_str(head);
                text.push('\n');
                for line in section.lines() {
                    if line.split_once(" = ").is_some_and(|(name, _)| needed.contains(name)) {
                        text.push_str(line);
                        text.push('\n');
                    }
                }
                text.push('\n');
            }
            "[workspace.package]" => text.push_str(&section),
            _ if head.starts_with("[workspace.lints") => text.push_str(&section),
            _ => {}
        }
    }
    // A comment at the end of a section belongs to the one behind it.
    let end = text.trim_end().lines().rev().take_while(|line| line.starts_with('#')).count();
    let lines: Vec<&str> = text.trim_end().lines().collect();
    format!("{}\n", lines[..lines.len() - end].join("\n").trim_end())
}
