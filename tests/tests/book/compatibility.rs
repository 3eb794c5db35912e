//! The policy of versions, held against libraries: an SDK with more in it, one with other layouts, another optimisation.
//!
//! A project's own copy of the SDK is changed as a later release might change it, and the plugin is built with that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::project::Workshop;

/// A project whose SDK can be another from one build to the next.
struct Project {
    workshop: Workshop,
    folder: PathBuf,
    /// What was changed: file and original text.
    changed: Vec<(PathBuf, String)>,
    _place: tempfile::TempDir,
}

impl Project {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let workshop = Workshop::new(place.path().to_owned());
        workshop.run("fp8flow plugin new other");
        let folder = place.path().join("other");
        Self { workshop, folder, changed: Vec::new(), _place: place }
    }

    /// The SDK as it came.
    fn restore(&mut self) {
        for (path, text) in self.changed.drain(..).rev() {
            fs::write(path, text).unwrap();
        }
    }

    /// Replaces `from`, which must be there, in a file of the SDK.
    fn change(&mut self, file: &str, from: &str, to: &str) {
        let path = self.folder.join("vendor/fp8flow/sdk/abi").join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no `{from}`");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        self.changed.push((path, text));
    }

    fn version(&mut self, version: &str) {
        self.change("Cargo.toml", "version.workspace = true", &format!("version = \"{version}\""));
    }

    /// What `plugin test` says of the library, built without any optimisation of its own code.
    fn test(&self) -> String {
        // One place for all: what the SDK depends on is built once.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside");
        let output = Command::new(env!("CARGO"))
            .args(["build", "--offline", "--config", "profile.dev.opt-level=0"])
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", &target)
            .env_remove("RUSTFLAGS")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::copy(target.join("debug/libother.so"), self.folder.join("libother.so")).unwrap();
        self.workshop.run("fp8flow plugin test other/libother.so 2>&1 || true")
    }
}

/// What stands last in the table of a recipe's methods.
const LAST: &str = "    fn restore(&mut self, state: RSlice<'_, u8>) -> Outcome<()>;\n";

// One test: the builds share a folder, and the machine.
#[test]
fn libraries_load_or_are_refused_as_the_policy_says() {
    let mut project = Project::new();

    // A later patch of the SDK, which has a method more at the end.
    project.version("0.1.99");
    let more = format!("{LAST}    /// Later.\n    fn later(&self) -> u32 {{\n        7\n    }}\n");
    project.change("src/abi/objects.rs", LAST, &more);
    let tested = project.test();
    assert!(tested.contains("conforms: "), "{tested}");
    project.restore();

    // The same generation by its number, with a struct that has grown: what numbers do not say, layouts do.
    let failure = "    message: RString,\n    help: ROption<RString>,\n}";
    project.change("src/abi/wire.rs", failure, &failure.replace("    help", "    more: u64,\n    help"));
    let made = "Self { kind, message: error.message.into(), help";
    project.change("src/abi/wire.rs", made, &made.replace("help", "more: 0, help"));
    let tested = project.test();
    assert!(tested.contains("its functions have another layout than this fp8flow's SDK"), "{tested}");
    project.restore();

    // Another generation, older: refused before it is opened, although nothing else differs.
    project.version("0.0.9");
    let tested = project.test();
    assert!(tested.contains("built with fp8flow-sdk 0.0.9"), "{tested}");
    assert!(tested.contains("rebuild the plugin"), "{tested}");
}
