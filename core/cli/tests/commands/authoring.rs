//! Projects for plugins: what is said of them, and of those that cannot be.

use crate::bench::Bench;

#[test]
fn a_project_is_written_whole_with_a_workflow_that_waits_for_the_library_alone() {
    let bench = Bench::empty();
    let said = bench.fp8flow("plugin new mine");
    let expected =
        "wrote mine\nnext: cd mine && cargo build --release\nmine/README.md has the commands behind it\n";
    assert_eq!((said.code, said.out.as_str()), (0, expected));
    for file in ["Cargo.toml", "Cargo.lock", ".gitignore", "vendor/fp8flow/sdk/abi/src/lib.rs"] {
        assert!(bench.path("mine").join(file).exists(), "{file}");
    }
    let said = bench.fp8flow("check mine/workflow.toml --json");
    let findings = said.lines()[0]["findings"].to_string();
    assert!(findings.contains("mine/target/release") && !findings.contains("F0101"), "{findings}");
    assert_eq!(bench.fp8flow("check mine/workflow.toml --set backend={plugin=\"none\"}").code, 0);

    let said = bench.fp8flow("plugin new yours --lang c --dir a/b --json");
    assert_eq!(said.code, 0, "{}", said.err);
    let told = said.lines()[0].clone();
    assert_eq!(
        (told["event"].as_str(), told["folder"].as_str()),
        (Some("plugin_created"), Some("a/b/yours"))
    );
    assert!(bench.path("a/b/yours/plugin.c").exists());
}

#[test]
fn what_is_there_is_left_alone_and_a_name_that_cannot_be_is_explained() {
    let bench = Bench::empty();
    bench.write("mine", "a file");
    let said = bench.fp8flow("plugin new mine");
    assert_eq!(said.code, 74);
    assert!(said.err.contains("mine is there already") && said.err.contains("--dir DIR"), "{}", said.err);
    assert_eq!(bench.read("mine"), b"a file");

    for (name, why) in [("Mine", "starts with a letter a-z"), ("torchao-rowwise", "comes with fp8flow")] {
        let said = bench.fp8flow(&format!("plugin new {name}"));
        assert_eq!(said.code, 2);
        assert!(said.err.contains(why), "{}", said.err);
        assert!(!bench.path(name).exists());
    }
}
