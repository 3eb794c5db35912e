//! The file, the manifest, the handshake, the digest, the load: one error each.

use fp8flow_host::elf::NotAPlugin;
use fp8flow_host::{Digest, HostError, Shown};
use fp8flow_sdk::manifest::Mismatch;

use crate::common::{Folder, bytes, found, host, plugin, position, search};

/// The error of a plugin that is asked for by its path.
fn error_of(path: &std::path::Path) -> HostError {
    let search = search("/nowhere");
    let opened = search.find(path.to_str().unwrap()).and_then(|found| found.open(&host()));
    opened.map(|plugin| panic!("{plugin:?} was opened")).unwrap_err()
}

fn not_a_plugin(path: &std::path::Path) -> NotAPlugin {
    match error_of(path) {
        HostError::NotAPlugin { source, .. } => source,
        other => panic!("expected no plugin at all: {other}"),
    }
}

#[test]
fn a_library_for_another_sdk_is_refused_unopened() {
    let folder = Folder::new();
    let path = folder.patched("faulty", "\"sdk\":\"0.1.", "\"sdk\":\"0.9.");
    let error = error_of(&path);
    assert!(matches!(error, HostError::Mismatch { mismatch: Mismatch::Sdk { .. }, .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("plugin `faulty`") && error.contains("libpatched.so"), "{error}");
    assert!(error.contains("built with fp8flow-sdk 0.9.0, but this fp8flow speaks 0.1."), "{error}");
}

#[test]
fn a_library_built_to_abort_or_for_elsewhere_or_too_demanding_is_refused_unopened() {
    let folder = Folder::new();
    let error =
        error_of(&folder.patched("faulty", "\"panic\":\"unwind\"", "\"panic\":\"abort\" ")).to_string();
    assert!(error.contains("built with panic = \"abort\""), "{error}");
    let error = error_of(&folder.patched("faulty", "x86_64-linux", "x86_64-haiku")).to_string();
    assert!(
        error.contains("built for x86_64-haiku-gnu, but this fp8flow runs on x86_64-linux-gnu"),
        "{error}"
    );
    let error = error_of(&folder.patched("faulty", "\"cancellation\"", "\"consolations\"")).to_string();
    assert!(error.contains("needs the feature `consolations`"), "{error}");
}

#[test]
fn a_library_that_is_no_plugin_is_told_from_one_whose_manifest_is_broken() {
    let folder = Folder::new();
    // The C library, wherever it is.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.split_whitespace().find(|path| path.contains("/libc.so")).unwrap();
    let error = not_a_plugin(libc.as_ref());
    assert!(matches!(error, NotAPlugin::NoManifest), "{error}");

    let broken = |from: &str, to: &str| not_a_plugin(&folder.patched("faulty", from, to)).to_string();
    assert!(broken("{\"name\":", "{\"nome\":").contains("missing field `name`"));
    assert!(broken("\"faulty\"", "\"fau ty\"").contains("manifest's name \"fau ty\" is not a word"));
    assert!(broken("fp8flow-manifest", "fp9flow-manifest").contains("does not start with a manifest's mark"));
    // The length, which stands behind the mark.
    let mut long = bytes("faulty");
    let at = crate::common::manifest_start(&long).unwrap();
    long[at + 16..at + 20].fill(0xff);
    let error = not_a_plugin(&folder.file("liblong.so", &long)).to_string();
    assert!(error.contains("claims 4294967295 bytes"), "{error}");
}

#[test]
fn what_is_no_library_at_all_is_told_apart() {
    let folder = Folder::new();
    let text = not_a_plugin(&folder.file("libtext.so", b"not a library\n"));
    assert!(matches!(text, NotAPlugin::NotElf), "{text}");
    assert!(matches!(not_a_plugin(&folder.file("libempty.so", b"")), NotAPlugin::NotElf));
    let path = folder.path().to_str().unwrap();
    assert!(
        matches!(search("/nowhere").find(path), Err(HostError::Package(_))),
        "a folder without a sidecar"
    );
    assert!(matches!(not_a_plugin(&folder.path().join("libmissing.so")), NotAPlugin::Io(_)));

    let pipe = folder.path().join("libpipe.so");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(matches!(not_a_plugin(&pipe), NotAPlugin::NotAFile), "reading a pipe would wait for ever");

    let mut other = bytes("faulty");
    other[18] = 183; // EM_AARCH64
    let error = not_a_plugin(&folder.file("libarm.so", &other)).to_string();
    assert!(error.contains("another machine"), "{error}");
    other[4] = 1; // ELFCLASS32
    let error = not_a_plugin(&folder.file("libarm.so", &other)).to_string();
    assert!(error.contains("not 64 bits"), "{error}");
}

#[test]
fn a_library_cut_short_anywhere_is_an_error_and_no_crash() {
    let folder = Folder::new();
    let whole = bytes("faulty");
    let steps = (0..64).map(|i| whole.len() * i / 64);
    let ends = [1, 4, 5, 6, 15, 16, 63, 64, 65, 120, 4095, 4096, 4097].into_iter().chain(steps);
    for end in ends.chain((1..=65).map(|missing| whole.len() - missing)) {
        let error = not_a_plugin(&folder.file("libshort.so", &whole[..end]));
        match error {
            NotAPlugin::NotElf => assert!(end < 4, "{end}"),
            NotAPlugin::Damaged(_) => {}
            other => panic!("cut at {end}: {other}"),
        }
    }
}

#[test]
fn segments_that_do_not_fit_the_file_are_damage_even_where_the_manifest_is_there() {
    // Section headers moved to the front of a file whose segments are gone: opening it would be a bus error.
    let mut bytes = bytes("faulty");
    let headers = u64::from_le_bytes(bytes[32..40].try_into().unwrap()) as usize;
    let size = u64::from_le_bytes(bytes[headers + 32..headers + 40].try_into().unwrap());
    let count = u16::from_le_bytes(bytes[56..58].try_into().unwrap()) as usize;
    let load = (0..count).map(|i| headers + 56 * i).find(|&at| bytes[at..at + 4] == [1, 0, 0, 0]).unwrap();
    let huge = (size + (1 << 40)).to_le_bytes();
    bytes[load + 32..load + 40].copy_from_slice(&huge);
    let folder = Folder::new();
    let error = not_a_plugin(&folder.file("libgap.so", &bytes)).to_string();
    assert!(error.contains("damaged or cut short: a segment lies at"), "{error}");
}

#[test]
fn a_pinned_digest_lets_one_file_through() {
    let folder = Folder::new();
    let [first, second] = ["liba.so", "libb.so"].map(|file| {
        let path = folder.copy("faulty", file);
        search("/nowhere").find(path.to_str().unwrap()).unwrap()
    });
    assert_ne!(first.digest, second.digest);
    let pinned: Digest = first.digest.to_string().parse().unwrap();
    first.pin(&pinned).unwrap();
    let error = second.pin(&pinned).unwrap_err().to_string();
    assert!(error.contains(&format!("has digest {}, but {pinned} is pinned", second.digest)), "{error}");
    assert!("12345".parse::<Digest>().unwrap_err().to_string().contains("64 hexadecimal digits"));
    assert_eq!(pinned.short(), pinned.to_string()[..12]);
}

#[test]
fn a_file_that_changes_between_its_digest_and_its_load_is_not_loaded() {
    let folder = Folder::new();
    let path = folder.copy("faulty", "libchanging.so");
    let found = search("/nowhere").find(path.to_str().unwrap()).unwrap();
    folder.file("libchanging.so", b"something else");
    let error = found.open(&host()).unwrap_err();
    assert!(matches!(error, HostError::Changed { .. }), "{error}");
}

#[test]
fn a_manifest_that_lies_is_found_out() {
    let folder = Folder::new();
    let error = error_of(&folder.patched("faulty", "\"recipes\":[\"faulty\"]", "\"recipes\":[\"honest\"]"));
    assert!(error.to_string().contains("its manifest lists the recipes honest; it has faulty"), "{error}");
    let error = error_of(&folder.patched("faulty", "\"crate\":\"faulty\"", "\"crate\":\"absent\""));
    assert!(matches!(error, HostError::Open { .. }), "{error}");
    assert!(error.to_string().contains("undefined symbol: fp8flow_backend_absent"), "{error}");
}

#[test]
fn a_symbol_that_is_something_else_is_not_called() {
    // The mark that `abi_stable` puts before everything, in the exported static.
    let mut bytes = bytes("faulty");
    let mark = b"abi stable library for Rust     ";
    let mut from = 0;
    let mut found = 0;
    while let Some(at) = position(&bytes, mark, from) {
        bytes[at] = b'A';
        (from, found) = (at + 1, found + 1);
    }
    assert!(found > 0);
    let folder = Folder::new();
    let error = error_of(&folder.file("libmark.so", &bytes));
    assert!(matches!(error, HostError::Load { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("was not exported by fp8flow-sdk") && error.lines().count() == 1, "{error}");
}

#[test]
fn two_plugins_and_two_copies_of_one_live_side_by_side() {
    let folder = Folder::new();
    let copy = folder.copy("faulty", "libcopy.so");
    let copy = search("/nowhere").find(copy.to_str().unwrap()).unwrap().open(&host()).unwrap();
    let (faulty, shipped) = (plugin("faulty"), plugin("torchao-rowwise"));
    let names = |plugin: &fp8flow_host::Plugin| -> Vec<String> {
        plugin.recipes().iter().map(|recipe| recipe.name.clone()).collect()
    };
    assert_eq!(names(&faulty), ["faulty"]);
    assert_eq!(names(&copy), ["faulty"]);
    assert_eq!(names(&shipped), ["rowwise", "tensorwise", "rowwise_with_gw_hp"]);
    assert_ne!(faulty.digest(), copy.digest());
}

#[test]
fn recipes_and_options_that_do_not_exist_are_errors_with_advice() {
    let plugin = plugin("torchao-rowwise");
    let error =
        plugin.recipe("rowise", &fp8flow_sdk::Options::default()).map(|_| ()).unwrap_err().to_string();
    assert_eq!(
        error,
        "plugin `torchao-rowwise` has no recipe `rowise`; did you mean `rowwise`?; \
         it has `rowwise`, `tensorwise`, `rowwise_with_gw_hp`"
    );
    let given = [("round_scales_to_power_of_two".to_owned(), true.into())].into_iter().collect();
    let errors = fp8flow_host::check_options(plugin.recipe_info("rowwise").unwrap(), &given).unwrap_err();
    assert!(errors[0].to_string().contains("did you mean `round_scales_to_power_of_2`?"), "{errors:?}");
}

#[test]
fn everything_known_of_a_plugin_can_be_shown() {
    let found = found("torchao-rowwise");
    let plugin = plugin("torchao-rowwise");
    let shown = Shown { found: &found, recipes: Some(plugin.recipes()) }.to_string();
    for part in [
        "torchao-rowwise 0.1.0\n",
        "libtorchao_rowwise.so (the command line)",
        &format!("digest    blake3 {}", found.digest),
        "SDK       0.1.0 (this fp8flow speaks 0.1.0: fits)",
        "devices   cpu",
        "\nrecipe tensorwise\n",
        "  round_scales_to_power_of_2: true or false; default false\n",
    ] {
        assert!(shown.contains(part), "{part:?} is missing in:\n{shown}");
    }
    let unopened = Shown { found: &found, recipes: None }.to_string();
    assert!(unopened.contains("recipes   rowwise, tensorwise, rowwise_with_gw_hp"), "{unopened}");
}
