//! `fp8flow_plugin.h` against the structs that the engine takes for it.

use std::fmt::Write as _;
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

use fp8flow_sdk::abi::c::contract::*;
use fp8flow_sdk::tensor::{DType, DeviceId, RawTensor};

use crate::snapshot::Section;

/// A struct of the header.
pub(crate) struct Struct {
    name: &'static str,
    size: usize,
    align: usize,
    fields: Vec<(&'static str, usize)>,
}

macro_rules! structs {
    ($($name:ident = $type:ty { $($field:ident),* $(,)? })*) => {
        vec![$(Struct {
            name: stringify!($name),
            size: size_of::<$type>(),
            align: align_of::<$type>(),
            fields: vec![$((stringify!($field), offset_of!($type, $field))),*],
        }),*]
    };
}

/// Every struct, as the engine has it.
pub(crate) fn structs() -> Vec<Struct> {
    structs! {
        fp8flow_error = CError { size, message, help }
        fp8flow_device = DeviceId { kind, ordinal, stream }
        fp8flow_tensor = RawTensor { data, dtype, rank, shape, strides, device }
        fp8flow_bytes = CBytes { data, len }
        fp8flow_const_bytes = CConstBytes { data, len }
        fp8flow_named_tensor = CNamedTensor { name, tensor }
        fp8flow_quantize = CQuantize { size, x, format, axis, power_of_two, codes, scales }
        fp8flow_scaled_gemm = CScaledGemm {
            size, a, transpose_a, transpose_b, b, scale_a, scale_b, out, accumulate,
        }
        fp8flow_host = CHost {
            size, context, isa, threads, parallel_for, log_enabled, log, reduce_amax, cancelled, quantize, scaled_gemm,
        }
        fp8flow_options = COptions { size, context, boolean, integer, number, choice }
        fp8flow_layer = CLayer { size, name, in_features, out_features, tokens, block, group, group_len }
        fp8flow_decision = CDecision { size, fp8, fp8_gemms, reason }
        fp8flow_memory = CMemory {
            size, shared_saved, shared_forward, saved, forward_scratch, backward_scratch, own, keep_input,
        }
        fp8flow_counters = CCounters {
            size, fprop, dgrad, wgrad, high_precision, cast, saturated, underflowed, non_finite, amax, scale_age,
        }
        fp8flow_cast = CCast { codes, scales }
        fp8flow_forward = CForward {
            size, pass, telemetry, x, x_by_row, x_by_col, weight, y, group_ready, reserved, group_saved, group_forward,
            saved, scratch,
        }
        fp8flow_backward = CBackward {
            size, telemetry, accumulate_dx, accumulate_dw, reserved, dy, weight, x, dx, dw, group_saved, saved, scratch,
        }
        fp8flow_text_sink = CTextSink { size, context, write }
        fp8flow_state_sink = CStateSink { size, context, put }
        fp8flow_plugin = CPlugin {
            size, abi, reserved, recipes, start, stop, recipe_new, recipe_free, recipe_describe, recipe_decide,
            recipe_linear, recipe_on, recipe_state, recipe_restore, linear_free, linear_memory, linear_input_formats,
            linear_forward, linear_backward, linear_counters, quantize, scaled_gemm,
        }
    }
}

impl Struct {
    pub(crate) fn section(&self) -> Section {
        let grows = self.fields[0].0 == "size";
        // The size of one that grows is what it has grown to.
        let rest = if grows { String::new() } else { format!(" size {}", self.size) };
        Section {
            head: format!("c struct {}, align {}{rest}", self.name, self.align),
            grows,
            lines: self.lines(),
        }
    }

    fn lines(&self) -> Vec<String> {
        self.fields.iter().map(|(field, offset)| format!("{offset} {field}")).collect()
    }
}

/// The named numbers of the header, an enumeration each.
pub(crate) fn enums() -> Vec<Section> {
    let header = std::fs::read_to_string(HEADER).unwrap();
    let enums = header.split("enum {").skip(1).filter_map(|text| text.split('}').next());
    let number = |words: &[&str]| match words {
        [name, "=", number] if name.starts_with("FP8FLOW_") => {
            number.trim_end_matches(',').parse::<u32>().ok().map(|number| format!("{name} = {number}"))
        }
        _ => None,
    };
    let section = |text: &str| {
        let words: Vec<_> = text.split_whitespace().collect();
        let lines: Vec<_> = words.windows(3).filter_map(number).collect();
        Section { head: format!("c enum of {}", lines[0]), grows: true, lines }
    };
    enums.map(section).collect()
}

const HEADER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../c/include/fp8flow_plugin.h");

/// Runs the system's compiler.
fn compile(compiler: &str, arguments: &[&str]) {
    let output = Command::new(compiler).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{compiler} cannot be started: {error}"));
    assert!(
        output.status.success(),
        "{compiler} {arguments:?}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_header_compiles_without_a_warning_as_c99_and_as_cpp17() {
    let strict = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"];
    for (compiler, standard, language) in
        [("cc", "-std=c99", "c"), ("cc", "-std=c11", "c"), ("c++", "-std=c++17", "c++")]
    {
        if language == "c++" && Command::new(compiler).arg("--version").output().is_err() {
            println!("skipped: there is no C++ compiler to try the header with");
            continue;
        }
        compile(compiler, &[&strict[..], &[standard, "-x", language, HEADER]].concat());
    }
}

#[test]
fn the_compiler_lays_the_structs_out_as_the_engine_does() {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("layout.c"), folder.path().join("layout"));
    let mut text = format!("#include \"{HEADER}\"\n#include <stdio.h>\nint main(void) {{\n");
    for Struct { name, fields, .. } in structs() {
        let _ = writeln!(text, "printf(\"{name} %zu\\n\", sizeof({name}));");
        for (field, _) in fields {
            let _ = writeln!(text, "printf(\"%zu {field}\\n\", offsetof({name}, {field}));");
        }
    }
    text.push_str("return 0; }\n");
    std::fs::write(&source, text).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    compile("cc", &["-std=c99", "-o", &path(&program), &path(&source)]);
    let output = Command::new(&program).output().unwrap();
    let mut expected = String::new();
    for of in structs() {
        let _ = writeln!(expected, "{} {}\n{}", of.name, of.size, of.lines().join("\n"));
    }
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn the_numbers_of_the_header_are_the_codes_of_the_engine() {
    let found: Vec<_> = enums().into_iter().flat_map(|of| of.lines).collect();
    let expected = [
        ["OK = 0", "INTERNAL = 1", "INVALID = 2", "UNSUPPORTED = 3", "PROTOCOL = 4", "CANCELLED = 5"]
            .as_slice(),
        &["F32 = 1", "BF16 = 2", "E4M3 = 3", "E5M2 = 4"],
        &["PER_ROW = 0", "PER_COL = 1", "PER_TENSOR = 2"],
        &["ERROR = 0", "WARN = 1", "INFO = 2", "DEBUG = 3", "TRACE = 4"],
        &["TRAIN = 0", "EVAL = 1", "RECOMPUTE = 2"],
        &["FORWARD_DONE = 0", "BACKWARD_DONE = 1", "WEIGHTS_CHANGED = 2"],
    ];
    let expected: Vec<_> = expected.concat().iter().map(|line| format!("FP8FLOW_{line}")).collect();
    assert_eq!(found, expected);
    for (number, dtype) in [(1, DType::F32), (2, DType::BF16), (3, DType::E4M3), (4, DType::E5M2)] {
        assert_eq!(dtype.0, number);
    }
}

#[test]
fn the_header_and_the_engine_speak_of_the_same_version() {
    let header = std::fs::read_to_string(HEADER).unwrap();
    assert!(header.contains(&format!("#define FP8FLOW_C_ABI {C_ABI}\n")));
    assert!(header.contains(&format!("#define FP8FLOW_SDK \"{}\"\n", fp8flow_sdk::manifest::SDK_VERSION)));
    assert!(header.contains(&format!("{ENTRY}(void)")));
}
