//! Projects of `plugin new`: a place where they are built, and what must hold of every one.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use tempfile::TempDir;

/// The repository.
pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A folder to make projects in, with `fp8flow` in the path and no network.
pub(crate) struct Workshop {
    /// Where commands run.
    pub(crate) folder: PathBuf,
    beside: TempDir,
}

impl Workshop {
    /// Commands run in `folder`, which is there.
    pub(crate) fn new(folder: PathBuf) -> Self {
        let beside = tempfile::tempdir().unwrap();
        symlink(env!("CARGO_BIN_EXE_fp8flow-under-test"), beside.path().join("fp8flow")).unwrap();
        Self { folder, beside }
    }

    /// Runs a line of shell, says how long it took, and returns what it printed.
    pub(crate) fn run(&self, line: &str) -> String {
        let path = format!("{}:{}", self.beside.path().display(), std::env::var("PATH").unwrap());
        let started = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-ec", line]).current_dir(&self.folder).env("PATH", path);
        // The tests' own surroundings are not an author's.
        for name in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR", "FP8FLOW_PLUGIN_PATH", "RUSTFLAGS"] {
            command.env_remove(name);
        }
        command.env("CARGO_NET_OFFLINE", "true");
        command.env("XDG_CACHE_HOME", self.beside.path().join("cache"));
        command.env("XDG_DATA_HOME", self.beside.path().join("data"));
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        println!("{:7.1} s  {line}", started.elapsed().as_secs_f64());
        assert!(status.success(), "`{line}` failed: {status}\n{text}");
        text
    }
}

/// Lets the SDK in `project` be as old as the sources that it was packed from, so that what Cargo built of it in an earlier
/// run of a test is taken again.
pub(crate) fn age_of_sources(project: &Path) {
    age(&project.join("vendor/fp8flow"), Path::new(ROOT));
}

fn age(copy: &Path, original: &Path) {
    for entry in fs::read_dir(copy).unwrap() {
        let name = entry.unwrap().file_name();
        let (copy, original) = (copy.join(&name), original.join(&name));
        if copy.is_dir() {
            age(&copy, &original);
        } else {
            let modified = fs::metadata(&original).unwrap().modified().unwrap();
            File::options().append(true).open(&copy).unwrap().set_modified(modified).unwrap();
        }
    }
}

#[test]
fn the_lock_of_a_project_is_what_cargo_makes_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let workshop = Workshop::new(folder.path().to_owned());
    workshop.run("fp8flow plugin new mine");
    let project = folder.path().join("mine");
    let lock = project.join("Cargo.lock");
    let shipped = fs::read_to_string(&lock).unwrap();
    fs::copy(Path::new(ROOT).join("Cargo.lock"), &lock).unwrap();
    workshop.run("cd mine && cargo metadata --format-version 1 >metadata.json");
    let cut = fs::read_to_string(&lock).unwrap();
    if std::env::var_os("FP8FLOW_BLESS").is_some() {
        const ENTRY: &str = "[[package]]\n";
        let mine = "name = \"mine\"\n";
        let kept: Vec<&str> = cut.split(ENTRY).filter(|entry| !entry.starts_with(mine)).collect();
        let template = Path::new(ROOT).join("core/author/templates/rust/Cargo.lock");
        fs::write(template, kept.join(ENTRY)).unwrap();
    } else {
        let help =
            "write it again: FP8FLOW_BLESS=1 cargo test -p fp8flow-tests --test book the_lock_of_a_project";
        assert!(cut == shipped, "{help}");
    }
}

#[test]
fn a_project_in_c_conforms_and_trains() {
    let have = |program: &str| {
        Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    if !have("make") || !have("cc") {
        return println!("skipped: there is no make or no cc");
    }
    let folder = tempfile::tempdir().unwrap();
    let workshop = Workshop::new(folder.path().to_owned());
    workshop.run("fp8flow plugin new mine --lang c");
    let built = workshop.run("cd mine && make CFLAGS='-O2 -Werror'");
    assert!(!built.contains("warning"), "{built}");
    let tested = workshop.run("cd mine && make test");
    assert!(tested.contains("conforms: "), "{tested}");
    let run = workshop.run("cd mine && fp8flow run workflow.toml --set stages.train.steps=2");
    assert!(run.contains("recipe tensorwise was seen to compute in FP8"), "{run}");
}
