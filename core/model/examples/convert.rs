//! Reads a model folder and writes it in another type: `convert FROM TO f32|bf16|f16 [BYTES_PER_SHARD]`.

use std::path::Path;
use std::process::ExitCode;

use fp8flow_kernels::Serial;
use fp8flow_model::{ExportOptions, ExportType, ModelConfig, ModelError, Weights, companion_files, export};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, dtype, rest @ ..] = arguments.as_slice() else {
        eprintln!("convert FROM TO f32|bf16|f16 [BYTES_PER_SHARD]");
        return ExitCode::from(2);
    };
    let mut options =
        ExportOptions { tokenizer_files: companion_files(Path::new(from)), ..Default::default() };
    options.dtype = match dtype.as_str() {
        "f32" => ExportType::F32,
        "f16" => ExportType::F16,
        _ => ExportType::Bf16,
    };
    if let Some(bytes) = rest.first().and_then(|bytes| bytes.parse().ok()) {
        options.max_shard_bytes = bytes;
    }
    match convert(Path::new(from), Path::new(to), &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn convert(from: &Path, to: &Path, options: &ExportOptions) -> Result<(), ModelError> {
    let config = ModelConfig::open(from)?;
    let masters = Weights::open(from, &config)?.load(&Serial)?;
    for file in export(to, &config, &masters, options)? {
        println!("{}  {:>12} bytes  {}", file.written.digest, file.written.bytes, file.name);
    }
    Ok(())
}
