//! The order of places, names that occur twice, and the trace.

use fp8flow_host::{HostError, Origin, Place, Search};

use crate::common::{Folder, found, host, place, search};

#[test]
fn a_missing_plugin_is_an_error_that_says_where_it_was_looked_for() {
    let (empty, other, broken) = (Folder::new(), Folder::new(), Folder::new());
    let file = other.copy("faulty", "libfaulty.so");
    broken.file("libtext.so", b"text");
    let places = vec![
        place("/does/not/exist"),
        Place { origin: Origin::Environment, path: empty.path().into() },
        Place { origin: Origin::Workflow, path: file.clone() },
        Place { origin: Origin::User, path: broken.path().into() },
    ];
    let error = Search::in_places(places).find("fualty").unwrap_err();
    assert!(matches!(error, HostError::NotFound { .. }), "{error}");
    let error = error.to_string();
    for part in [
        "no plugin `fualty` was found; did you mean `faulty`?",
        "  /does/not/exist (the command line): does not exist\n",
        &format!("  {} (FP8FLOW_PLUGIN_PATH): has no plugin\n", empty.path().display()),
        &format!("  {} (the workflow): has `faulty`\n", file.display()),
        "(the user's folder): libtext.so: it is not a shared library",
        "--plugin-path",
    ] {
        assert!(error.contains(part), "{part:?} is missing in:\n{error}");
    }
}

#[test]
fn the_first_place_wins() {
    let (first, second) = (Folder::new(), Folder::new());
    let wanted = first.copy("faulty", "libwanted.so");
    second.copy("faulty", "libother.so");
    second.copy("crashing", "libcrashing.so");
    let search = Search::in_places(vec![place("/does/not/exist"), place(first.path()), place(second.path())]);
    assert_eq!(search.find("faulty").unwrap().path, wanted.canonicalize().unwrap());
    assert_eq!(search.find("crashing").unwrap().place, place(second.path()));

    let listing = search.list();
    let names: Vec<_> = listing.plugins.iter().map(|listed| listed.found.name()).collect();
    assert_eq!(names, ["faulty", "crashing", "faulty"]);
    assert_eq!(listing.plugins[0].shadowed_by, None);
    assert_eq!(listing.plugins[1].shadowed_by, None);
    assert_eq!(listing.plugins[2].shadowed_by.as_ref(), Some(&wanted.canonicalize().unwrap()));
    assert_eq!(listing.trace.0.len(), 3);
}

#[test]
fn two_plugins_of_one_name_in_one_place_are_an_error_that_names_both() {
    let folder = Folder::new();
    let [a, b] = ["liba.so", "libb.so"].map(|file| folder.copy("faulty", file).canonicalize().unwrap());
    let error = search(folder.path()).find("faulty").unwrap_err();
    assert!(matches!(error, HostError::Ambiguous { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains(a.to_str().unwrap()) && error.contains(b.to_str().unwrap()), "{error}");

    let listing = search(folder.path()).list();
    assert_eq!(listing.plugins[0].conflicts_with.as_ref(), Some(&b));
    assert_eq!(listing.plugins[1].conflicts_with.as_ref(), Some(&a));
    assert_eq!(search("/nowhere").find(b.to_str().unwrap()).unwrap().path, b, "a path is never ambiguous");
}

#[test]
fn one_file_found_twice_is_one_plugin() {
    let folder = Folder::new();
    let path = folder.copy("faulty", "liba.so");
    std::fs::copy(&path, folder.path().join("libcopy.so")).unwrap();
    std::os::unix::fs::symlink(&path, folder.path().join("liblink.so")).unwrap();
    let search = Search::in_places(vec![place(folder.path()), place(&path), place(folder.path())]);
    assert_eq!(search.find("faulty").unwrap().path, path.canonicalize().unwrap());
    let listing = search.list();
    assert_eq!(listing.plugins.len(), 1, "{listing:?}");
    assert_eq!((&listing.plugins[0].shadowed_by, &listing.plugins[0].conflicts_with), (&None, &None));
}

#[test]
fn the_usual_places_come_in_order() {
    let (cli, workflow) = (Folder::new(), Folder::new());
    let search = Search::new(&[cli.path().into()], &[workflow.path().into()]);
    let origins: Vec<_> = search.list().trace.0.iter().map(|step| step.place.origin).collect();
    let mut expected = vec![Origin::CommandLine, Origin::Workflow, Origin::User];
    if std::env::var_os("FP8FLOW_PLUGIN_PATH").is_some() {
        expected.insert(1, Origin::Environment);
    }
    assert_eq!(origins[..expected.len()], expected);
    assert!(origins[expected.len()..].iter().all(|origin| *origin == Origin::Executable), "{origins:?}");
    // Beside this executable, from whatever folder it is run.
    let beside = search.find("torchao-rowwise").unwrap();
    assert_eq!(beside.digest, found("torchao-rowwise").digest);
    assert_eq!(beside.place.origin, Origin::Executable);
}

#[test]
fn a_listing_opens_nothing_and_shows_what_cannot_be_loaded() {
    let (folder, cache) = (Folder::new(), Folder::new());
    folder.patched("faulty", "\"sdk\":\"0.1.", "\"sdk\":\"0.9.");
    folder.copy("crashing", "libcrashing.so");
    let search = search(folder.path()).with_cache(cache.path().into());
    let listing = search.list();
    let mapped = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!mapped.contains(folder.path().to_str().unwrap()));
    let [crashing, patched] = listing.plugins.as_slice() else { panic!("{listing:?}") };
    assert!(crashing.found.compatible().is_ok() && patched.found.compatible().is_err());
    assert_eq!(crashing.found.manifest.recipes, ["none"]);
    assert_eq!(crashing.found.recipes(), None, "never opened, so their options are unknown");
    let error = search.find("faulty").unwrap().open(&host()).unwrap_err();
    assert!(matches!(error, HostError::Mismatch { .. }), "{error}");
}

#[test]
fn a_recipe_alone_leads_to_the_only_plugin_that_has_it() {
    let (mixed, shadowing, old) = (Folder::new(), Folder::new(), Folder::new());
    mixed.copy("faulty", "libfaulty.so");
    mixed.copy("crashing", "libcrashing.so");
    let found = search(mixed.path()).find_recipe("none").unwrap();
    assert_eq!((found.name(), &found.place), ("crashing", &place(mixed.path())));

    // One that does not fit is passed over, and shadows its name all the same.
    old.patched("crashing", "\"sdk\":\"0.1.", "\"sdk\":\"0.9.");
    let error =
        Search::in_places(vec![place(old.path()), place(mixed.path())]).find_recipe("none").unwrap_err();
    assert!(matches!(error, HostError::NoSuchRecipe { .. }), "{error}");
    assert!(error.to_string().contains("`crashing` is built with fp8flow-sdk 0.9.0"), "{error}");

    let error = search(mixed.path()).find_recipe("fualty").unwrap_err().to_string();
    assert!(
        error.starts_with("no plugin with a recipe `fualty` was found; did you mean `faulty`?"),
        "{error}"
    );
    assert!(error.contains("has `crashing`, `faulty`"), "{error}");

    shadowing.copy("crashing", "liba.so");
    shadowing.copy("crashing", "libb.so");
    assert!(matches!(search(shadowing.path()).find_recipe("none"), Err(HostError::Ambiguous { .. })));
    mixed.patched("faulty", "\"recipes\":[\"faulty\"]", "\"recipes\":[\"none\"]  ");
    std::fs::remove_file(mixed.path().join("libfaulty.so")).unwrap();
    let error = search(mixed.path()).find_recipe("none").unwrap_err();
    assert!(matches!(error, HostError::Undecided { .. }), "{error}");
    assert!(
        error.to_string().contains("have a recipe `none`: `crashing`, `faulty`; name the one"),
        "{error}"
    );
}
