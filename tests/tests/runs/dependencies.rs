//! The program and its plugins are loaded on any Linux with a C library: nothing of CUDA, MPI or Python is linked.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use object::LittleEndian;
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::{Dyn as _, FileHeader as _};

/// What every Linux has.
const ALLOWED: [&str; 6] =
    ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "libpthread.so.0", "libdl.so.2"];

/// The libraries that an ELF file asks for.
fn needed(path: &Path) -> BTreeSet<String> {
    let bytes = fs::read(path).unwrap();
    let header = FileHeader64::<LittleEndian>::parse(&*bytes).unwrap();
    let sections = header.sections(LittleEndian, &*bytes).unwrap();
    let (entries, names) =
        sections.dynamic(LittleEndian, &*bytes).unwrap().expect("it is linked dynamically");
    let names = sections.strings(LittleEndian, &*bytes, names).unwrap();
    let needed = entries.iter().filter(|entry| entry.d_tag(LittleEndian) == DT_NEEDED);
    needed
        .map(|entry| String::from_utf8(entry.string(LittleEndian, names).unwrap().to_owned()).unwrap())
        .collect()
}

#[test]
fn the_program_and_its_plugins_need_the_c_library_and_nothing_else() {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_fp8flow-under-test"));
    let folder = program.parent().unwrap();
    let mut files = vec![program.clone()];
    for plugin in ["torchao_rowwise", "transformer_engine_hybrid"] {
        let name = format!("lib{plugin}.so");
        let found =
            [folder.join("deps").join(&name), folder.join(&name)].into_iter().find(|path| path.exists());
        files.push(found.unwrap_or_else(|| panic!("{name} is not beside the program")));
    }
    // Where it was built, also what is given to users.
    files.extend(Some(folder.with_file_name("release").join("fp8flow")).filter(|path| path.exists()));
    for file in files {
        let needed = needed(&file);
        println!("{}: {needed:?}", file.display());
        assert!(needed.contains("libc.so.6"), "{}", file.display());
        let other: Vec<&String> = needed.iter().filter(|name| !ALLOWED.contains(&name.as_str())).collect();
        assert!(other.is_empty(), "{} needs {other:?}", file.display());
    }
}
