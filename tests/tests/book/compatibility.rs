//! The policy of versions, held against libraries: an SDK with more in it, one with other layouts, another optimisation.
//!
//! A project's own copy of the SDK is changed as a later release might change it, and the plugin is built with that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::project::Workshop;

/// A project in a place of its own, whose SDK says that it is of `version`.
struct Project {
    workshop: Workshop,
    folder: PathBuf,
    version: &'static str,
    _place: tempfile::TempDir,
}

impl Project {
    fn new(version: &'static str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let workshop = Workshop::new(place.path().to_owned());
        workshop.run("fp8flow plugin new other");
        let folder = place.path().join("other");
        let ours = concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"");
        let project = Self { workshop, folder, version, _place: place };
        project.change("vendor/fp8flow/Cargo.toml", ours, &format!("version = \"{version}\""));
        project
    }

    /// Replaces `from`, which must be there, in a file.
    fn change(&self, file: &str, from: &str, to: &str) {
        let path = self.folder.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no `{from}`");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
    }

    /// Builds it without any optimisation of its own code; where `plugin test` would find it.
    fn build(&self) -> PathBuf {
        // One place for all: what the SDK depends on is built once.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compatibility");
        let output = Command::new(env!("CARGO"))
            .args(["build", "--offline", "--config", "profile.dev.opt-level=0"])
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", &target)
            .env_remove("RUSTFLAGS")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let library = self.folder.join("libother.so");
        fs::copy(target.join("debug/libother.so"), &library).unwrap();
        library
    }

    /// Its version as `plugin show` says it, and what `plugin test` says of the library.
    fn test(&self) -> String {
        let library = self.build().display().to_string();
        let shown = self.workshop.run(&format!("fp8flow plugin show {library} 2>&1 || true"));
        let tested = self.workshop.run(&format!("fp8flow plugin test {library} 2>&1 || true"));
        assert!(shown.contains(self.version) || shown.contains("layout"), "{shown}");
        tested
    }
}

/// What stands last in the table of a recipe's methods.
const LAST: &str = "    fn restore(&mut self, state: RSlice<'_, u8>) -> Outcome<()>;\n";

// One test: the builds share a folder, and the machine.
#[test]
fn libraries_load_or_are_refused_as_the_policy_says() {
    // Without optimisation, by a later patch of the SDK that has a method more at the end.
    let later = Project::new("0.1.99");
    let more = format!("{LAST}    /// Later.\n    fn later(&self) -> u32 {{\n        7\n    }}\n");
    later.change("vendor/fp8flow/sdk/abi/src/abi/objects.rs", LAST, &more);
    let tested = later.test();
    assert!(tested.contains("conforms: "), "{tested}");

    // The same generation by its number, with a struct that has grown: what numbers do not say, layouts do.
    let broken = Project::new(env!("CARGO_PKG_VERSION"));
    let failure = "    message: RString,\n    help: ROption<RString>,\n}";
    let grown = failure.replace("    help", "    more: u64,\n    help");
    broken.change("vendor/fp8flow/sdk/abi/src/abi/wire.rs", failure, &grown);
    let made = "Self { kind, message: error.message.into(), help";
    broken.change("vendor/fp8flow/sdk/abi/src/abi/wire.rs", made, &made.replace("help", "more: 0, help"));
    let tested = broken.test();
    assert!(tested.contains("its functions have another layout than this fp8flow's SDK"), "{tested}");

    // Another generation, older: refused before it is opened, although nothing else differs.
    let older = Project::new("0.0.9");
    let tested = older.test();
    assert!(
        tested.contains("built with fp8flow-sdk 0.0.9") && tested.contains("rebuild the plugin"),
        "{tested}"
    );
}
