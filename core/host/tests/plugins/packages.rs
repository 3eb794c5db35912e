//! Packages: made, installed, found, held to their sidecars, removed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use fp8flow_host::package::{SIDECAR, Sidecar, install, pack, remove, verify};
use fp8flow_host::{HostError, Search};

use crate::common::{Folder, host, search};
use crate::probing::probe;

/// A folder of the user's, and a package that is not in it.
struct Setting {
    user: Folder,
    elsewhere: Folder,
}

impl Setting {
    fn new() -> Self {
        Self { user: Folder::new(), elsewhere: Folder::new() }
    }

    /// Looks in the user's folder alone, and tries plugins in children that survive them.
    fn search(&self) -> Search {
        search(self.user.path()).with_probe(probe("none"))
    }

    /// A package of a plugin whose file differs by `file`.
    fn package(&self, plugin: &str, file: &str) -> PathBuf {
        let library = self.elsewhere.copy(plugin, file);
        pack(
            &self.search().at(&library).unwrap(),
            None,
            &self.elsewhere.path().join(file).with_extension("d"),
        )
        .unwrap()
    }

    fn install(&self, from: &Path, replace: bool) -> Result<fp8flow_host::package::Installed, HostError> {
        let search = self.search();
        install(&search.at(from)?, &search, self.user.path(), replace)
    }

    /// Everything in the user's folder but the lock.
    fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.user.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".lock");
        names.sort();
        names
    }
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// Another byte at the end of a library: it still has everything a library needs.
fn append(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes.push(0);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_package_is_made_installed_found_and_removed() {
    let setting = Setting::new();
    let library = setting.elsewhere.copy("faulty", "libfaulty.so");
    let found = setting.search().at(&library).unwrap();
    let package = pack(&found, Some("https://example.org".into()), setting.elsewhere.path()).unwrap();
    assert_eq!(package.file_name().unwrap(), "faulty-0.1.0");
    let sidecar = Sidecar::read(&package.join(SIDECAR)).unwrap();
    assert_eq!((sidecar.name.as_str(), sidecar.library.blake3), ("faulty", found.digest));
    assert_eq!(sidecar.recipes, ["faulty"]);
    assert!(pack(&found, None, setting.elsewhere.path()).unwrap_err().to_string().contains("faulty-0.1.0"));

    let installed = setting.install(&package, false).unwrap();
    assert!(!installed.was_there && installed.replaced.is_none());
    assert_eq!(installed.found.digest, found.digest);
    assert_eq!(setting.left(), ["faulty"]);
    let found = setting.search().find("faulty").unwrap();
    assert_eq!(found.path, setting.user.path().canonicalize().unwrap().join("faulty/libfaulty.so"));
    assert_eq!(found.package.as_ref().unwrap().sidecar.homepage.as_deref(), Some("https://example.org"));
    found.open(&host()).unwrap();
    assert!(setting.install(&package, false).unwrap().was_there, "the very same");

    let nowhere = setting.elsewhere.path().join("nowhere");
    assert!(remove("faulty", &setting.search(), &nowhere).is_err() && !nowhere.exists(), "nothing is made");
    let removed = remove("faulty", &setting.search(), setting.user.path()).unwrap();
    assert_eq!((removed.version.as_deref(), setting.left().len()), (Some("0.1.0"), 0));
    let error = remove("faulty", &setting.search(), setting.user.path()).unwrap_err().to_string();
    assert!(error.contains("`faulty` is not installed in"), "{error}");
}

#[test]
fn another_one_of_the_name_is_replaced_only_where_that_is_said() {
    let setting = Setting::new();
    let (old, new) = (setting.package("faulty", "liba.so"), setting.package("faulty", "libb.so"));
    let first = setting.install(&old, false).unwrap();
    let error = setting.install(&new, false).unwrap_err().to_string();
    assert!(error.contains("has `faulty` 0.1.0 already") && error.contains("--replace"), "{error}");
    assert_eq!(setting.search().find("faulty").unwrap().digest, first.found.digest);
    let second = setting.install(&new, true).unwrap();
    assert_eq!(second.replaced.as_deref(), Some("0.1.0"));
    assert_ne!(second.found.digest, first.found.digest);
    assert_eq!(setting.left(), ["faulty"]);
    // Also one that is damaged, but nothing that is no package.
    fs::write(setting.user.path().join("faulty").join(SIDECAR), "?").unwrap();
    assert!(setting.install(&new, false).unwrap_err().to_string().contains("(damaged)"));
    setting.install(&old, true).unwrap();
    fs::remove_dir_all(setting.user.path().join("faulty")).unwrap();
    fs::create_dir(setting.user.path().join("faulty")).unwrap();
    fs::write(setting.user.path().join("faulty/notes.txt"), "mine").unwrap();
    for replace in [false, true] {
        let error = setting.install(&new, replace).unwrap_err().to_string();
        assert!(error.contains("is in the way"), "{error}");
    }
    assert!(setting.user.path().join("faulty/notes.txt").exists());
}

#[test]
fn a_library_that_was_put_there_by_hand_is_not_installed_over_and_can_be_removed() {
    let setting = Setting::new();
    let by_hand = setting.user.copy("faulty", "libby_hand.so");
    for replace in [false, true] {
        let error = setting.install(&setting.package("faulty", &format!("lib{replace}.so")), replace);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("libby_hand.so is in the way"), "{error}");
    }
    assert!(setting.install(&by_hand, false).unwrap().was_there);
    let removed = remove("faulty", &setting.search(), setting.user.path()).unwrap();
    assert!(removed.path.ends_with("libby_hand.so"), "{removed:?}");
    assert!(setting.left().is_empty());
}

#[test]
fn what_does_not_survive_a_child_or_does_not_fit_is_not_installed() {
    let setting = Setting::new();
    let crashing = setting.package("crashing", "libcrashing.so");
    for (crash, expected) in [
        ("segfault", "it crashed with SIGSEGV"),
        ("exit", "it ended the process (exit status: 3)"),
        ("error", "crashing: start: told to fail"),
        ("recipes", "panicked: told to panic in recipes"),
    ] {
        let search = search(setting.user.path()).with_probe(probe(crash));
        let found = search.at(&crashing).unwrap();
        let error = install(&found, &search, setting.user.path(), false).unwrap_err().to_string();
        assert!(error.contains(expected), "{crash}: {error}");
        // Not the copy that was tried.
        let named = error.contains(&found.path.display().to_string());
        assert!(named != error.contains("told to"), "{crash}: {error}");
        assert!(!error.contains(".aside-"), "{crash}: {error}");
        assert!(setting.left().is_empty(), "{crash}: {:?}", setting.left());
    }
    // What the child says of the copy is said of the library.
    let lying = setting.elsewhere.patched("faulty", "\"recipes\":[\"faulty\"", "\"recipes\":[\"fualty\"");
    let error = setting.install(&lying, false).unwrap_err().to_string();
    let of_the_library = error.starts_with(&format!("plugin `faulty` ({}) contradicts", lying.display()));
    assert!(of_the_library && setting.left().is_empty(), "{error}");
    let old = setting.elsewhere.patched("faulty", "\"sdk\":\"0.1.", "\"sdk\":\"0.9.");
    let error = setting.install(&old, false).unwrap_err();
    assert!(matches!(error, HostError::Mismatch { .. }), "{error}");
    // A name that is a word of a manifest, but leads out of the folder.
    let hidden = setting.elsewhere.patched("faulty", "\"name\":\"faulty\"", "\"name\":\"..ulty\"");
    let error = setting.install(&hidden, false).unwrap_err().to_string();
    assert!(error.contains("begins with a dot"), "{error}");
    assert!(setting.left().is_empty());
    let error = setting.install(setting.elsewhere.path(), false).unwrap_err().to_string();
    assert!(error.contains("there is no fp8flow-plugin.toml in it"), "{error}");
}

#[test]
fn a_library_is_held_to_its_sidecar_wherever_it_is_found() {
    let setting = Setting::new();
    setting.install(&setting.package("faulty", "libfaulty.so"), false).unwrap();
    let library = setting.user.path().join("faulty/libfaulty.so");
    append(&library);
    let link = Folder::new();
    symlink(&library, link.path().join("libelse.so")).unwrap();
    let package = library.parent().unwrap();
    for error in [
        setting.search().find("faulty").unwrap_err(),
        setting.search().find_recipe("faulty").unwrap_err(),
        setting.search().at(&library).unwrap_err(),
        setting.search().at(package).unwrap_err(),
        // The package as a place, its library as a place, a link to it in a place.
        search(package).find("faulty").unwrap_err(),
        search(&library).find("faulty").unwrap_err(),
        search(link.path()).find("faulty").unwrap_err(),
    ] {
        assert!(matches!(error, HostError::Altered { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains("was altered") && error.contains("plugin install"), "{error}");
    }
    let listing = setting.search().list();
    assert!(listing.plugins.is_empty());
    let [(path, why)] = listing.damaged.as_slice() else { panic!("{listing:?}") };
    assert!(path.ends_with("faulty/libfaulty.so") && why.contains("was altered"), "{listing:?}");
    let verdicts = verify(&[], &setting.search(), setting.user.path());
    assert!(matches!(verdicts[0].problem, Some(HostError::Altered { .. })), "{verdicts:?}");
    let removed = remove("faulty", &setting.search(), setting.user.path()).unwrap();
    assert_eq!(removed.version.as_deref(), Some("0.1.0"), "as its sidecar says");
    assert!(setting.left().is_empty());
}

#[test]
fn a_sidecar_that_says_something_else_gives_no_name_away() {
    let setting = Setting::new();
    setting.install(&setting.package("faulty", "libfaulty.so"), false).unwrap();
    let other = Folder::new();
    other.copy("faulty", "libother.so");
    let both = Search::in_places(vec![
        crate::common::place(setting.user.path()),
        crate::common::place(other.path()),
    ]);
    let sidecar = setting.user.path().join("faulty").join(SIDECAR);
    let whole = fs::read_to_string(&sidecar).unwrap();
    for (from, to, expected) in [
        ("name = \"faulty\"", "name = \"other\"", "has name = \"other\", and the library says \"faulty\""),
        ("version = \"0.1.0\"", "version = \"9.9.9\"", "has version = \"9.9.9\""),
        ("[\"faulty\"]", "[\"faulty\", \"more\"]", "has recipes = [\"faulty\", \"more\"]"),
        ("bytes = ", "bytes = 1", "has library.bytes = 1"),
        ("numerics = ", "numerics = 9", "has numerics = 9"),
        ("libfaulty.so", "libabsent.so", "No such file"),
        ("libfaulty.so", "../other.so", "fp8flow-plugin.toml:"),
        ("manifest = 1", "manifest = one", "fp8flow-plugin.toml:2:12: "),
    ] {
        fs::write(&sidecar, &whole).unwrap();
        edit(&sidecar, from, to);
        let error = both.find("faulty").unwrap_err().to_string();
        assert!(error.contains(expected), "{to}: {error}");
        let listing = both.list();
        assert_eq!((listing.damaged.len(), listing.plugins.len()), (1, 1), "{to}");
        assert!(listing.plugins[0].shadowed_by.is_some(), "{to}");
    }
    fs::write(&sidecar, &whole).unwrap();
    assert!(both.find("faulty").unwrap().package.is_some());
    // Also a package that was not installed, whose folder is called otherwise.
    let package = setting.package("faulty", "libnamed.so");
    edit(&package.join(SIDECAR), "manifest = 1", "manifest = 7");
    let both = Search::in_places(vec![crate::common::place(&package), crate::common::place(other.path())]);
    let error = both.find("faulty").unwrap_err().to_string();
    assert!(error.contains("manifest 7 is not known"), "{error}");
}

#[test]
fn nothing_is_loaded_from_where_nobody_has_asked_for_plugins() {
    let setting = Setting::new();
    let package = setting.package("faulty", "libfaulty.so");
    // A link to a package, a hidden one, one below another folder, a folder of bare libraries.
    symlink(&package, setting.user.path().join("linked")).unwrap();
    let copy = |to: &str| {
        let to = setting.user.path().join(to);
        fs::create_dir_all(&to).unwrap();
        for file in ["libfaulty.so", SIDECAR] {
            fs::copy(package.join(file), to.join(file)).unwrap();
        }
        to
    };
    copy(".aside-hidden");
    copy("deep/er");
    fs::remove_file(copy("bare").join(SIDECAR)).unwrap();
    let listing = setting.search().list();
    assert!(listing.plugins.is_empty() && listing.damaged.is_empty(), "{listing:?}");
    assert!(matches!(setting.search().find("faulty"), Err(HostError::NotFound { .. })));
    // Within a package, a link to a library elsewhere: the very same bytes, and still refused.
    let own = copy("faulty");
    assert!(setting.search().find("faulty").is_ok());
    fs::remove_file(own.join("libfaulty.so")).unwrap();
    symlink(package.join("libfaulty.so"), own.join("libfaulty.so")).unwrap();
    for error in [
        setting.search().find("faulty").unwrap_err(),
        setting.search().at(&own).unwrap_err(),
        setting.search().at(&own.join("libfaulty.so")).unwrap_err(),
    ] {
        assert!(error.to_string().contains("is a link: a package holds its library itself"), "{error}");
    }
}

#[test]
fn only_the_users_folder_is_changed() {
    let setting = Setting::new();
    let other = Folder::new();
    let library = other.copy("faulty", "libfaulty.so");
    let both = Search::in_places(vec![
        crate::common::place(setting.user.path()),
        crate::common::place(other.path()),
    ]);
    let error = remove("faulty", &both, setting.user.path()).unwrap_err().to_string();
    assert!(error.contains(library.to_str().unwrap()) && error.contains("leaves alone"), "{error}");
    assert!(library.exists());
    for name in ["../faulty", "/", "", ".", ".lock"] {
        assert!(remove(name, &both, setting.user.path()).is_err(), "{name}");
    }
    // What an interrupted installation or removal left is swept out by the next change.
    fs::create_dir_all(setting.user.path().join(".aside-abc/removed")).unwrap();
    setting.user.file(".aside-file", b"half");
    setting.install(&library, false).unwrap();
    assert_eq!(setting.left(), ["faulty"]);
    let sidecar = Sidecar::read(&setting.user.path().join("faulty").join(SIDECAR)).unwrap();
    assert_eq!(sidecar.library.file, "libfaulty.so");
}

#[test]
fn a_look_at_what_is_installed_tells_each_apart() {
    let setting = Setting::new();
    setting.install(&setting.package("faulty", "libfaulty.so"), false).unwrap();
    setting.install(&setting.package("crashing", "libcrashing.so"), false).unwrap();
    setting.user.copy("torchao-rowwise", "libby_hand.so");
    setting.user.file("libtext.so", b"text");
    let verdicts =
        verify(&[], &search(setting.user.path()).with_probe(probe("segfault")), setting.user.path());
    let seen: Vec<_> = verdicts
        .iter()
        .map(|verdict| (verdict.name.as_str(), verdict.held, verdict.problem.is_none()))
        .collect();
    let expected = [
        ("crashing", true, false),
        ("faulty", true, true),
        ("torchao-rowwise", false, true),
        ("libtext.so", false, false),
    ];
    assert_eq!(seen, expected, "{verdicts:?}");
    assert!(matches!(verdicts[0].problem, Some(HostError::Probe { .. })));
    let named = verify(&["faulty".into(), "fualty".into()], &setting.search(), setting.user.path());
    assert!(named[0].problem.is_none());
    assert!(matches!(named[1].problem, Some(HostError::NotFound { .. })), "{named:?}");
}

/// Bytes that this thread has read so far, where the system counts them.
fn bytes_read() -> Option<u64> {
    let counts = fs::read_to_string("/proc/thread-self/io").ok()?;
    counts.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()
}

#[test]
fn what_is_called_otherwise_is_not_read_through() {
    let setting = Setting::new();
    let other = setting.user.copy("torchao-rowwise", "libother.so");
    let library = setting.user.copy("faulty", "liba.so");
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    let (own, others) = (size(&library), size(&other));
    let Some(before) = bytes_read() else {
        return println!("skipped: this system does not count what is read");
    };
    remove("faulty", &setting.search(), setting.user.path()).unwrap();
    let read = bytes_read().unwrap() - before;
    assert!(
        (own..own + others).contains(&read),
        "{read} bytes, of a library with {own} and one with {others}"
    );
}
