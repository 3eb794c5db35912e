//! From CUDA C to a shared library, by the machine's C++ compiler.
//!
//! The source and its headers are written to a folder, the emulator's `ptx.cuh` in the place of the product's, and are
//! preprocessed; then the words that only CUDA knows are taken out, and a table of the kernels is put at the end.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::entries::{self, Entry};
use crate::nvrtc::{Program, REGISTERS};
use crate::options::Options;

const PRELUDE: &str = include_str!("../emulator/prelude.h");
const PTX: &str = include_str!("../emulator/ptx.cuh");

/// What came of a program. `cubin` is empty for a virtual architecture.
#[derive(Default)]
pub(crate) struct Compiled {
    pub(crate) cubin: Vec<u8>,
    pub(crate) ptx: String,
}

/// Why nothing did, as a log.
pub(crate) enum Failure {
    Option(String),
    Source(String),
}

fn compiler() -> String {
    std::env::var("CXX").unwrap_or_else(|_| "c++".into())
}

/// What the compiler says that it is.
fn compiler_version() -> Result<&'static str, Failure> {
    static VERSION: OnceLock<Result<String, String>> = OnceLock::new();
    let version = VERSION.get_or_init(|| {
        let output = Command::new(compiler()).arg("--version").output();
        output
            .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
            .map_err(|e| format!("{}: {e}", compiler()))
    });
    version.as_deref().map_err(|error| Failure::Source(format!("no C++ compiler: {error}\n")))
}

/// The processor's instructions, if a fused multiply-add is among them: without, a library computes it, as exactly.
fn machine() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("fma") {
        return "-march=native";
    }
    "-O2"
}

pub(crate) fn compile(program: &Program, options: &[String]) -> Result<(Compiled, String), Failure> {
    let options = Options::parse(options).map_err(Failure::Option)?;
    let key = key(program, &options)?;
    let store = std::env::temp_dir().join("fp8flow-emulated-card");
    let kept = |ending: &str| store.join(format!("{key}.{ending}"));
    let stored = std::fs::read(kept("so")).ok().zip(std::fs::read_to_string(kept("log")).ok());
    let (cubin, report) = if let Some(stored) = stored {
        stored
    } else {
        let made = make(program, &options)?;
        // A store that cannot be written to is no fault of the program.
        let _ = keep(&store, &kept("log"), made.1.as_bytes());
        let _ = keep(&store, &kept("so"), &made.0);
        made
    };
    let log = if options.report { report } else { String::new() };
    let ptx = format!("// emulated: {key}\n");
    Ok((Compiled { cubin: if options.real { cubin } else { Vec::new() }, ptx }, log))
}

/// Everything that the result depends on.
fn key(program: &Program, options: &Options) -> Result<String, Failure> {
    let mut hash = blake3::Hasher::new();
    let mut add = |text: &str| {
        hash.update(&text.len().to_le_bytes());
        hash.update(text.as_bytes());
    };
    let own =
        [PRELUDE, PTX, compiler_version()?, machine(), env!("CARGO_PKG_VERSION"), include_str!("compile.rs")];
    own.into_iter().chain([include_str!("entries.rs"), include_str!("options.rs")]).for_each(&mut add);
    add(&format!("{options:?}"));
    add(&program.name);
    add(&program.text);
    for (name, text) in &program.headers {
        add(name);
        add(text);
    }
    // Code for one machine is not run on another.
    add(&std::fs::read_to_string("/proc/cpuinfo")
        .unwrap_or_default()
        .lines()
        .take(26)
        .filter(|line| line.starts_with("flags") || line.starts_with("model name"))
        .collect::<String>());
    Ok(hash.finalize().to_hex().to_string())
}

/// Whole or not at all: other processes read the same folder.
fn keep(store: &Path, to: &Path, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(store)?;
    let mut aside = tempfile::NamedTempFile::new_in(store)?;
    std::io::Write::write_all(&mut aside, bytes)?;
    aside.persist(to)?;
    Ok(())
}

fn make(program: &Program, options: &Options) -> Result<(Vec<u8>, String), Failure> {
    let failed = |error: std::io::Error| Failure::Source(format!("the emulated NVRTC: {error}\n"));
    let folder = tempfile::tempdir().map_err(failed)?;
    let at = |name: &str| folder.path().join(name);
    write(&at(&program.name), &program.text).map_err(failed)?;
    for (name, text) in &program.headers {
        let ours = Path::new(name).file_name().is_some_and(|name| name == "ptx.cuh");
        write(&at(name), if ours { PTX } else { text }).map_err(failed)?;
    }
    write(&at("emulator/prelude.h"), PRELUDE).map_err(failed)?;
    write(&at("emulator/macros.h"), &options.header()).map_err(failed)?;

    let (seen, words) = (at("emulator/seen.ii"), options.compiler_words());
    let preprocess = [
        "-E",
        "-x",
        "c++",
        "-nostdinc",
        "-I.",
        "-include",
        "emulator/prelude.h",
        "-include",
        "emulator/macros.h",
    ];
    run(
        folder.path(),
        Command::new(compiler()).args(preprocess).args(&words).arg("-o").arg(&seen).arg(&program.name),
    )?;
    let seen = std::fs::read_to_string(&seen).map_err(failed)?;
    let (mut text, entries) = entries::extract(&seen);
    text.push_str(&table(&entries, options));
    write(&at("emulator/kernels.ii"), &text).map_err(failed)?;

    let library = at("emulator/kernels.so");
    let mut command = Command::new(compiler());
    command.args(["-x", "c++-cpp-output", "emulator/kernels.ii", "-o"]).arg(&library).args(&words);
    command.args(["-O2", machine(), "-shared", "-fPIC", "-fvisibility=hidden", "-w"]);
    // A card evaluates as the text says; it forgives casts between types, but no misaligned address.
    command.args(["-fno-math-errno", "-fno-strict-aliasing", "-fwrapv", "-fno-exceptions", "-fno-rtti"]);
    command.args(["-fsanitize=alignment,bounds", "-fsanitize-undefined-trap-on-error"]);
    command.args(["-nodefaultlibs", "-Wl,-z,defs", "-lm", "-lc", "-lgcc"]);
    run(folder.path(), &mut command)?;
    let library = std::fs::read(&library).map_err(failed)?;
    Ok((library, report(&entries, options)))
}

fn write(path: &PathBuf, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text)
}

fn run(folder: &Path, command: &mut Command) -> Result<(), Failure> {
    let output = command.current_dir(folder).env("LC_ALL", "C").output();
    let output = output.map_err(|error| Failure::Source(format!("{}: {error}\n", compiler())))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::Source(String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// The kernels by name, for the driver.
fn table(entries: &[Entry], options: &Options) -> String {
    let mut text = String::from("\n# 1 \"emulator/table\"\n");
    for Entry { name, .. } in entries {
        let _ = writeln!(
            text,
            "static void emu_run_{name}(void* const* arguments) {{ EmuCall<decltype(&{name})>::run(&{name}, arguments); }}"
        );
    }
    text.push_str("extern \"C\" {\n");
    // An empty array is no C++.
    let _ =
        writeln!(text, "__attribute__((visibility(\"default\"))) extern const EmuEntry emu_entries[] = {{");
    for Entry { name, bounds } in entries {
        let bounds =
            bounds.as_ref().map_or_else(|| "1024".to_owned(), |bounds| format!("emu_bounds({bounds})"));
        let call = format!("EmuCall<decltype(&{name})>");
        let _ = writeln!(text, "{{\"{name}\", emu_run_{name}, {call}::sizes, {call}::count, {bounds}}},");
    }
    let _ = writeln!(text, "{{\"\", nullptr, nullptr, 0, 0}}}};");
    let visible = "__attribute__((visibility(\"default\"))) extern const";
    let _ = writeln!(text, "{visible} unsigned emu_entry_count = {};", entries.len());
    let _ =
        writeln!(text, "{visible} int emu_target[2] = {{{}, {}}};", options.target, i32::from(options.exact));
    text.push_str("}\n");
    text
}

/// What ptxas says with `-v`, word for word; there are no registers to count.
fn report(entries: &[Entry], options: &Options) -> String {
    let mut log = String::from("ptxas info    : 0 bytes gmem\n");
    for Entry { name, .. } in entries {
        let _ =
            writeln!(log, "ptxas info    : Compiling entry function '{name}' for '{}'", options.architecture);
        let _ = writeln!(log, "ptxas info    : Function properties for {name}");
        let _ = writeln!(
            log,
            "ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"
        );
        let _ = writeln!(log, "ptxas info    : Used {REGISTERS} registers, used 1 barriers");
    }
    log
}
