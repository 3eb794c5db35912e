//! Plugins in C and C++: the examples, built with the system's compiler, do all that a Rust plugin does; and what is
//! wrong with one is said.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{Bench, Ended};

/// The folder of the header and the examples.
fn sdk() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/c").canonicalize().unwrap()
}

fn example(name: &str) -> String {
    std::fs::read_to_string(sdk().join("examples").join(name)).unwrap()
}

/// A library made of `source` (C, or C++ where the name of the file says so), strictly; none without such a compiler.
pub(crate) fn library(bench: &Bench, file: &str, source: &str) -> Option<PathBuf> {
    let (compiler, standard) = if file.contains(".cpp") { ("c++", "-std=c++17") } else { ("cc", "-std=c99") };
    if Command::new(compiler).arg("--version").output().is_err() {
        println!("skipped: there is no `{compiler}` to build {file} with");
        return None;
    }
    let source = bench.write(file, source);
    let library = bench.path(&format!("lib{}.so", file.split('.').next().unwrap()));
    let output = Command::new(compiler)
        .args([standard, "-O2", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fPIC", "-shared", "-I"])
        .arg(bench.path("include"))
        .arg("-I")
        .arg(sdk().join("include"))
        .arg(&source)
        .arg("-o")
        .arg(&library)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(library)
}

fn test(bench: &Bench, library: &Path) -> Ended {
    bench.command(&["plugin", "test", library.to_str().unwrap()]).output().unwrap().into()
}

#[test]
fn the_examples_conform() {
    for file in ["tensorwise.c", "rowwise.cpp"] {
        let bench = Bench::new();
        let Some(library) = library(&bench, file, &example(file)) else { continue };
        let tested = test(&bench, &library);
        assert_eq!(tested.code, Some(0), "{}", tested.all());
        assert!(tested.out.contains("conforms"), "{}", tested.out);
    }
}

/// The digest of the model that a plugin has trained.
fn trained(bench: &Bench, more: &[&str]) -> blake3::Hash {
    let ran = bench.run(more);
    assert_eq!(ran.code, Some(0), "{}", ran.all());
    blake3::hash(&std::fs::read(bench.path("out/model.safetensors")).unwrap())
}

#[test]
fn a_c_plugin_trains_the_same_bits_on_any_number_of_threads_and_those_of_its_twin_in_rust() {
    let digest = |file: &str, plugin: &str, recipe: &str, threads: &str| {
        let bench = Bench::new()
            .with("plugin = \"torchao-rowwise\"", &format!("plugin = \"{plugin}\""))
            .with("recipe = \"rowwise\"", &format!("recipe = \"{recipe}\""));
        let library = library(&bench, file, &example(file))?;
        Some(trained(&bench, &["--threads", threads, "--plugin-path", library.to_str().unwrap()]))
    };
    let tensorwise = |threads| digest("tensorwise.c", "c-tensorwise", "tensorwise", threads);
    assert_eq!(tensorwise("1"), tensorwise("3"));
    let Some(rowwise) = digest("rowwise.cpp", "cpp-rowwise", "rowwise", "3") else { return };
    assert_eq!(rowwise, trained(&Bench::new(), &[]), "the same recipe by the other road");
}

#[test]
fn what_is_wrong_with_a_c_plugin_is_said() {
    let whole = example("tensorwise.c");
    let header = std::fs::read_to_string(sdk().join("include/fp8flow_plugin.h")).unwrap();
    let newer = header.replace("#define FP8FLOW_C_ABI 1", "#define FP8FLOW_C_ABI 2");
    let short = "    offsetof(fp8flow_plugin, linear_forward), FP8FLOW_C_ABI";
    let without = whole.replace("    sizeof(fp8flow_plugin), FP8FLOW_C_ABI", short);
    let quoted = whole.replace("scaling in plain C.\"", "scaling, \\\"plain\\\".\"");
    for (source, header, says) in [
        (&without, &header, "its table of functions has no `linear_forward`"),
        (&whole, &newer, "built with a header of C ABI 2, but this fp8flow speaks 1"),
        (&quoted, &header, "the manifest is malformed"),
    ] {
        let bench = Bench::new();
        bench.write("include/fp8flow_plugin.h", header);
        let Some(library) = library(&bench, "wrong.c", source) else { return };
        let tested = test(&bench, &library);
        assert!(tested.code != Some(0) && tested.all().contains(says), "{says}: {}", tested.all());
    }
}

#[test]
fn an_exception_is_an_error_of_its_call() {
    let bench = Bench::new();
    let throws = example("rowwise.cpp").replace(
        "        refresh(call.weight, call.telemetry);\n        operand x",
        "        throw std::runtime_error(\"no more\");\n        operand x",
    );
    let Some(library) = library(&bench, "throwing.cpp", &throws) else { return };
    let tested = test(&bench, &library);
    assert_eq!(tested.code, Some(1), "{}", tested.all());
    assert!(tested.all().contains("forward: no more"), "{}", tested.all());
}

#[test]
fn a_library_that_switches_the_arithmetic_of_the_process_is_refused() {
    let bench = Bench::new()
        .with("plugin = \"torchao-rowwise\"", "plugin = \"c-tensorwise\"")
        .with("recipe = \"rowwise\"", "recipe = \"tensorwise\"");
    // What the linker adds for -ffast-math, or did before GCC 13.
    let switching = "\n__attribute__((constructor)) static void flush(void) {\n    \
                     unsigned mxcsr;\n    __asm__ volatile(\"stmxcsr %0\" : \"=m\"(mxcsr));\n    mxcsr |= 0x8040;\n    \
                     __asm__ volatile(\"ldmxcsr %0\" : : \"m\"(mxcsr));\n}\n";
    let source = example("tensorwise.c") + switching;
    let Some(library) = library(&bench, "fast.c", &source) else { return };
    let ran = bench.run(&["--plugin-path", library.to_str().unwrap()]);
    assert_eq!(ran.code, Some(69), "{}", ran.all());
    assert!(ran.all().contains("switches how the whole process computes"), "{}", ran.all());
}
