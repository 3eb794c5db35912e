//! `plugin pack`, `install`, `verify`, `remove`, and what `list` and `show` say of packages.

use std::path::PathBuf;

use snapbox::{assert_data_eq, str};

use crate::bench::Bench;

const INSTALLED: &str = "home/fp8flow/plugins/torchao-rowwise";

/// A plugin's library, as Cargo has built it.
pub(crate) fn library() -> PathBuf {
    let executable = std::env::current_exe().expect("this one");
    executable.parent().expect("a folder").join("libtorchao_rowwise.so")
}

/// A folder with a package in it, and one of another build of the same plugin.
fn bench() -> Bench {
    let bench = Bench::empty();
    std::fs::create_dir_all(bench.path("other")).expect("made");
    let mut bytes = std::fs::read(library()).expect("it is there");
    bytes.push(0);
    std::fs::write(bench.path("other/libother.so"), bytes).expect("written");
    let line = format!("plugin pack {} --homepage https://example.org/fp8", library().display());
    assert_eq!(bench.fp8flow(&line).code, 0);
    bench
}

#[test]
fn a_package_is_made_and_says_what_is_in_it() {
    let bench = bench();
    let text = String::from_utf8(bench.read("torchao-rowwise-0.1.0/fp8flow-plugin.toml")).expect("text");
    assert_data_eq!(
        text,
        str![[r#"
# What fp8flow holds the library beside this file to; `fp8flow plugin install` takes both.
manifest = 1

name = "torchao-rowwise"
version = "0.1.0"
about = "torchao's float8 training recipes: rowwise, tensorwise, rowwise_with_gw_hp"
license = "MIT OR Apache-2.0"
homepage = "https://example.org/fp8"
sdk = "[..]"
numerics = [..]
target = "x86_64-linux-gnu"
recipes = ["rowwise", "tensorwise", "rowwise_with_gw_hp"]
devices = ["cpu", "cuda"]

[library]
file = "libtorchao_rowwise.so"
blake3 = "[..]"
bytes = [..]

"#]]
    );
    let said = bench.fp8flow("plugin pack other/libother.so --homepage file:///etc/passwd");
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("is not the address of a page"), "{}", said.err);
    let said = bench.fp8flow("plugin pack other/libother.so --out other --json");
    let object = &said.lines()[0];
    assert_eq!((said.code, object["event"].as_str()), (0, Some("plugin_packed")), "{}", said.err);
    assert_eq!(object["sidecar"], "other/torchao-rowwise-0.1.0/fp8flow-plugin.toml");
    assert_eq!(bench.fp8flow("plugin pack other/libother.so --out other").code, 74, "it is there already");
    assert_eq!(bench.fp8flow("plugin pack torchao-rowwise-0.1.0/fp8flow-plugin.toml").code, 69);
}

#[test]
fn a_plugin_is_installed_shown_verified_and_removed() {
    let bench = bench();
    assert_data_eq!(
        bench.fp8flow("plugin verify").out,
        str!["no plugin is installed in [..]/home/fp8flow/plugins[..]"]
    );
    let said = bench.fp8flow("plugin install torchao-rowwise-0.1.0");
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert_data_eq!(
        said.out,
        str![[r#"
torchao-rowwise 0.1.0 is installed
  file      [..]/home/fp8flow/plugins/torchao-rowwise/libtorchao_rowwise.so
  digest    blake3 [..]
  recipes   rowwise, tensorwise, rowwise_with_gw_hp

whether its arithmetic is right:  fp8flow plugin test torchao-rowwise
its recipes and their options:    fp8flow plugin show torchao-rowwise
in a workflow:

    [backend]
    plugin = "torchao-rowwise"
    recipe = "rowwise"

"#]]
    );
    let again = bench.fp8flow("plugin install torchao-rowwise-0.1.0 --json");
    assert_eq!((again.code, &again.lines()[0]["was_there"]), (0, &true.into()));
    assert_data_eq!(
        bench.fp8flow("plugin verify").out,
        str![[r#"
ok  torchao-rowwise  0.1.0  [..]  as its sidecar says; opens and starts

"#]]
    );
    let shown = bench.fp8flow("plugin show torchao-rowwise").out;
    for words in [
        "homepage  https://example.org/fp8",
        "licence   MIT OR Apache-2.0",
        "fp8flow-plugin.toml, which holds the library to that digest",
        "(the user's folder)",
    ] {
        assert!(shown.contains(words), "no {words:?} in {shown}");
    }
    let listed = bench.fp8flow("plugin list").out;
    assert!(listed.contains("MIT OR Apache-2.0, https://example.org/fp8"), "{listed}");
    assert!(listed.contains(", held by its sidecar"), "{listed}");
    let object = &bench.fp8flow("plugin list --json").lines()[0]["plugins"][0];
    assert_eq!(object["homepage"], "https://example.org/fp8");
    assert!(object["sidecar"].as_str().is_some_and(|path| path.ends_with("fp8flow-plugin.toml")), "{object}");

    let removed = bench.fp8flow("plugin remove torchao-rowwise");
    assert_eq!(removed.code, 0, "{}", removed.err);
    assert_data_eq!(
        removed.out,
        str![[r#"
torchao-rowwise 0.1.0 is removed: [..]/home/fp8flow/plugins/torchao-rowwise is gone

"#]]
    );
    // Beside the executable there is one too.
    let refused = bench.fp8flow("plugin remove torchao-rowwise");
    assert_eq!(refused.code, 69);
    assert_data_eq!(
        refused.err,
        str![[r#"
error: `torchao-rowwise` is not installed in [..]/home/fp8flow/plugins, but found in [..]/libtorchao_rowwise.so (beside the executable), which `plugin remove` leaves alone: delete that file yourself, or take its place out of those that are searched

"#]]
    );
    assert!(library().exists());
    assert_eq!(bench.fp8flow("plugin remove ../plugins").code, 69);
}

#[test]
fn another_build_takes_the_place_only_where_that_is_asked_for() {
    let bench = bench();
    assert_eq!(bench.fp8flow("plugin install torchao-rowwise-0.1.0").code, 0);
    let refused = bench.fp8flow("plugin install other/libother.so");
    assert_eq!(refused.code, 1);
    assert_data_eq!(
        refused.err,
        str![[r#"
error: [..]/home/fp8flow/plugins/torchao-rowwise has `torchao-rowwise` 0.1.0 already, which is another one; `--replace` puts this one in its place

"#]]
    );
    let replaced = bench.fp8flow("plugin install other/libother.so --replace");
    assert!(
        replaced.out.starts_with("torchao-rowwise 0.1.0 is installed in place of 0.1.0\n"),
        "{replaced:?}"
    );
    assert!(bench.path(INSTALLED).join("libother.so").exists());
    assert!(!bench.path(INSTALLED).join("libtorchao_rowwise.so").exists());
}

#[test]
fn what_was_altered_is_told_and_is_exit_69() {
    let bench = bench();
    assert_eq!(bench.fp8flow("plugin install torchao-rowwise-0.1.0").code, 0);
    let library = bench.path(INSTALLED).join("libtorchao_rowwise.so");
    let mut bytes = std::fs::read(&library).expect("it is there");
    bytes.push(0);
    std::fs::write(&library, bytes).expect("written");
    let said = bench.fp8flow("plugin verify");
    assert_eq!((said.code, said.err.as_str()), (69, ""));
    assert_data_eq!(
        said.out,
        str![[r#"
wrong  torchao-rowwise  ?  ?  altered since it was packed

torchao-rowwise: plugin `torchao-rowwise` ([..]/plugins/torchao-rowwise) was altered: it has digest [..], and its fp8flow-plugin.toml says [..]; get the package again and install it with `fp8flow plugin install PACKAGE --replace`, or take it away with `fp8flow plugin remove torchao-rowwise`

"#]]
    );
    let object = &bench.fp8flow("plugin verify --json").lines()[0];
    assert_eq!((&object["ok"], &object["exit_code"]), (&false.into(), &69.into()));
    assert_eq!(object["plugins"][0]["status"], "wrong");
    assert!(object["plugins"][0]["advice"].as_str().is_some_and(|advice| advice.contains("--replace")));
    // Nothing takes it for the plugin, and nothing else takes its name.
    let shown = bench.fp8flow("plugin show torchao-rowwise");
    assert_eq!(shown.code, 69);
    assert!(shown.err.contains("was altered"), "{}", shown.err);
    let listed = bench.fp8flow("plugin list").out;
    assert!(listed.contains("damaged: ") && listed.contains("not usable: "), "{listed}");
    assert_eq!(bench.fp8flow("plugin install torchao-rowwise-0.1.0").code, 1);
    assert_eq!(bench.fp8flow("plugin install torchao-rowwise-0.1.0 --replace").code, 0);
    assert_eq!(bench.fp8flow("plugin verify torchao-rowwise").code, 0);
    // A file may be meant without a `/`, as elsewhere.
    std::fs::copy(bench.path("other/libother.so"), bench.path("libother.so")).expect("copied");
    let file = bench.fp8flow("plugin verify libother.so");
    assert_eq!(file.code, 0, "{}", file.out);
    // A sidecar that is none has a place.
    let sidecar = bench.path(INSTALLED).join("fp8flow-plugin.toml");
    let text = std::fs::read_to_string(&sidecar).expect("text");
    std::fs::write(&sidecar, text.replacen("license", "licence", 1)).expect("written");
    let said = bench.fp8flow("plugin verify");
    assert_eq!(said.code, 69);
    assert!(said.out.contains("fp8flow-plugin.toml:7:1: unknown field `licence`"), "{}", said.out);
    let unknown = bench.fp8flow("plugin verify nobodys-plugin");
    assert_eq!(unknown.code, 69);
    assert!(unknown.out.starts_with("wrong  nobodys-plugin  ?  ?  not found\n"), "{}", unknown.out);
}
