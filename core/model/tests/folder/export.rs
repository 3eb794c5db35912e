//! Exports: read again bit for bit, the same bytes each time, and whole or not there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fp8flow_kernels::Serial;
use fp8flow_model::{
    ExportOptions, ExportType, ModelConfig, ModelError, Parameters, Weights, check_target, companion_files,
    export, initialise_until,
};
use half::{bf16, f16};
use serde_json::{Value, json};

use crate::{bits, config_with, data, entries, numbered};

fn options(dtype: ExportType, max_shard_bytes: u64) -> ExportOptions {
    ExportOptions { dtype, max_shard_bytes, ..ExportOptions::default() }
}

fn read_again(folder: &Path) -> (ModelConfig, Parameters) {
    let config = ModelConfig::open(folder).unwrap();
    let parameters = Weights::open(folder, &config).unwrap().load(&Serial).unwrap();
    (config, parameters)
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The parameters after rounding each element.
fn rounded(parameters: &Parameters, round: impl Fn(f32) -> f32) -> Vec<(String, Vec<u32>)> {
    let mut all = bits(parameters);
    for (_, elements) in &mut all {
        for element in elements {
            *element = round(f32::from_bits(*element)).to_bits();
        }
    }
    all
}

#[test]
fn every_type_comes_back_rounded_once_to_nearest_even() {
    let folder = tempfile::tempdir().unwrap();
    for tied in [false, true] {
        let config =
            config_with(&json!({ "tie_word_embeddings": tied, "attention_bias": tied, "mlp_bias": tied }));
        let parameters = numbered(&config);
        for dtype in [ExportType::F32, ExportType::Bf16, ExportType::F16] {
            let round = |x: f32| match dtype {
                ExportType::F32 => x,
                ExportType::Bf16 => bf16::from_f32(x).to_f32(),
                ExportType::F16 => f16::from_f32(x).to_f32(),
            };
            for shard in [u64::MAX, 600] {
                let out = folder.path().join(format!("{tied}-{}-{shard}", dtype.name()));
                export(&out, &config, &parameters, &options(dtype, shard)).unwrap();
                let (config_again, again) = read_again(&out);
                assert!(bits(&again) == rounded(&parameters, round), "{}", out.display());
                assert_eq!(ModelConfig { raw: config.raw.clone(), ..config_again }, config);
            }
        }
    }
}

#[test]
fn one_file_or_shards_with_an_index_in_the_order_of_the_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let config = config_with(&json!({}));
    let parameters = numbered(&config);
    let (one, many) = (folder.path().join("one"), folder.path().join("many"));
    export(&one, &config, &parameters, &options(ExportType::F32, 1 << 20)).unwrap();
    assert_eq!(entries(&one), ["config.json", "fp8flow-export.json", "model.safetensors"]);

    let files = export(&many, &config, &parameters, &options(ExportType::F32, 1536)).unwrap();
    let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
    let shards = names.iter().filter(|name| name.ends_with(".safetensors")).count();
    assert_eq!(names[1], format!("model-00001-of-{shards:05}.safetensors"));
    let index = json_of(&many.join("model.safetensors.index.json"));
    assert_eq!(index["metadata"]["total_size"], json!(parameters.len() * 4));
    let map = index["weight_map"].as_object().unwrap();
    let places: Vec<_> = parameters.specs().iter().map(|spec| map[&spec.name].as_str().unwrap()).collect();
    assert!(places.is_sorted());
    assert_eq!(map.len(), parameters.specs().len());
    for name in &names[1..=shards] {
        let file = fp8flow_model::SafeFile::open(many.join(name)).unwrap();
        let bytes: usize = file.iter().map(|(_, tensor)| tensor.bytes.len()).sum();
        assert!(bytes <= 1536, "{name} holds {bytes} bytes");
        assert_eq!(file.metadata()["format"], "pt");
    }
}

#[test]
fn the_configuration_keeps_its_spelling_and_learns_the_new_type() {
    let folder = tempfile::tempdir().unwrap();
    for (source, old_spelling) in [("untied-f32", false), ("old-spelling-f16", true)] {
        let (config, parameters) = read_again(&data(source));
        let out = folder.path().join(source);
        export(&out, &config, &parameters, &options(ExportType::Bf16, u64::MAX)).unwrap();
        let (mut before, mut after) =
            (json_of(&data(source).join("config.json")), json_of(&out.join("config.json")));
        assert_eq!(after["dtype"], "bfloat16");
        assert_eq!(after.get("torch_dtype").is_some(), old_spelling);
        for key in ["dtype", "torch_dtype"] {
            before[key] = "bfloat16".into();
            after[key] = "bfloat16".into();
        }
        assert_eq!(before, after);
    }
    let config = config_with(&json!({}));
    let out = folder.path().join("plain");
    export(&out, &config, &numbered(&config), &options(ExportType::F32, u64::MAX)).unwrap();
    assert_eq!(json_of(&out.join("config.json"))["architectures"], json!(["LlamaForCausalLM"]));
}

#[test]
fn the_same_model_gives_the_same_bytes_and_their_digests() {
    let folder = tempfile::tempdir().unwrap();
    let config = config_with(&json!({}));
    let parameters = numbered(&config);
    let export_to = |name: &str| {
        export(&folder.path().join(name), &config, &parameters, &options(ExportType::Bf16, 600)).unwrap()
    };
    let files = export_to("a");
    assert_eq!(files, export_to("b"));
    for file in &files {
        let bytes = fs::read(folder.path().join("a").join(&file.name)).unwrap();
        assert_eq!((file.written.bytes, file.written.digest), (bytes.len() as u64, blake3::hash(&bytes)));
    }
    let mut names: Vec<_> = files.iter().map(|file| file.name.clone()).collect();
    names.sort();
    assert_eq!(names, entries(&folder.path().join("a")));
    let manifest = json_of(&folder.path().join("a/fp8flow-export.json"));
    assert_eq!(manifest["files"].as_object().unwrap().len(), files.len() - 1);
}

#[test]
fn tokenizer_files_are_copied_and_may_not_take_the_place_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    for name in ["tokenizer.json", "chat_template.jinja", "README.md", "model.safetensors"] {
        fs::write(source.join(name), format!("this is {name}")).unwrap();
    }
    let config = config_with(&json!({}));
    let out = folder.path().join("out");
    let mut options = options(ExportType::F32, u64::MAX);
    options.tokenizer_files = companion_files(&source);
    export(&out, &config, &numbered(&config), &options).unwrap();
    assert_eq!(
        entries(&out),
        ["chat_template.jinja", "config.json", "fp8flow-export.json", "model.safetensors", "tokenizer.json"]
    );
    assert_eq!(fs::read_to_string(out.join("tokenizer.json")).unwrap(), "this is tokenizer.json");

    for bad in ["model.safetensors", "absent.json"] {
        options.tokenizer_files = vec![source.join(bad)];
        let error = export(&folder.path().join("bad"), &config, &numbered(&config), &options).unwrap_err();
        assert!(error.to_string().starts_with(&source.join(bad).display().to_string()), "{error}");
    }
    assert_eq!(entries(folder.path()), ["out", "source"]);
}

#[test]
fn an_earlier_export_is_replaced_whole() {
    let folder = tempfile::tempdir().unwrap();
    let config = config_with(&json!({}));
    let parameters = numbered(&config);
    let out = folder.path().join("deep/out");
    export(&out, &config, &parameters, &options(ExportType::F32, 600)).unwrap();
    let loaded = Weights::open(&out, &config).unwrap();
    export(&out, &config, &parameters, &options(ExportType::F32, u64::MAX)).unwrap();
    assert_eq!(entries(&out), ["config.json", "fp8flow-export.json", "model.safetensors"]);
    assert_eq!(entries(&folder.path().join("deep")), ["out"]);
    // Whoever still has the old files mapped reads them as they were.
    assert!(bits(&loaded.load(&Serial).unwrap()) == bits(&parameters));
}

#[test]
fn what_something_else_wrote_is_left_alone() {
    let config = config_with(&json!({}));
    let parameters = numbered(&config);
    // Files in the target, overwriting allowed, and the message's end, if it is an error.
    let cases: [(&[&str], bool, Option<&str>); 6] = [
        (&[], false, None),
        (
            &["notes.txt"],
            false,
            Some("holds `notes.txt`, which no earlier export wrote: choose another folder"),
        ),
        (
            &["notes.txt"],
            true,
            Some("holds `notes.txt`, which no earlier export wrote: choose another folder"),
        ),
        (
            &["config.json", "model.safetensors"],
            false,
            Some(
                "holds `config.json`, which no earlier export wrote: allow overwriting or choose another folder",
            ),
        ),
        (&["config.json", "model.safetensors"], true, None),
        (
            &["config.json", "checkpoint-1/x"],
            true,
            Some("holds the folder `checkpoint-1`, so it is not replaced: choose another folder"),
        ),
    ];
    for (files, overwrite, problem) in cases {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        fs::create_dir(&out).unwrap();
        for file in files {
            fs::create_dir_all(out.join(file).parent().unwrap()).unwrap();
            fs::write(out.join(file), "old").unwrap();
        }
        let before = entries(&out);
        let options = ExportOptions { overwrite, ..options(ExportType::F32, u64::MAX) };
        let result = export(&out, &config, &parameters, &options);
        match problem {
            None => {
                result.unwrap();
                read_again(&out);
            }
            Some(problem) => {
                let error = result.unwrap_err();
                assert!(
                    matches!(error, ModelError::Target { .. }) && error.to_string().ends_with(problem),
                    "{error}"
                );
                assert_eq!(entries(&out), before);
            }
        }
        assert_eq!(entries(folder.path()), ["out"]);
    }
}

#[test]
fn an_added_file_makes_an_earlier_export_the_users_own() {
    let folder = tempfile::tempdir().unwrap();
    let config = config_with(&json!({}));
    let out = folder.path().join("out");
    let again = || export(&out, &config, &numbered(&config), &options(ExportType::F32, u64::MAX));
    again().unwrap();
    fs::write(out.join("results.csv"), "1").unwrap();
    assert!(again().unwrap_err().to_string().contains("holds `results.csv`"));
    assert_eq!(fs::read_to_string(out.join("results.csv")).unwrap(), "1");
}

#[test]
fn an_unwritable_place_is_one_clear_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = config_with(&json!({}));
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for (target, message) in [(file.join("out"), "file is no folder: "), (file.clone(), "is no folder")] {
        let error = export(&target, &config, &numbered(&config), &ExportOptions::default()).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
    assert_eq!(entries(folder.path()), ["file"]);
}

#[test]
fn what_a_killed_export_left_is_removed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join(".out.fp8flow-partial");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("model.safetensors"), "half").unwrap();
    let config = config_with(&json!({}));
    export(&folder.path().join("out"), &config, &numbered(&config), &ExportOptions::default()).unwrap();
    assert_eq!(entries(folder.path()), ["out"]);
}

#[test]
fn a_link_to_a_folder_stays_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let config = config_with(&json!({}));
    export(&link, &config, &numbered(&config), &ExportOptions::default()).unwrap();
    assert!(link.is_symlink() && real.join("config.json").exists());
}

#[test]
fn a_weight_that_the_type_cannot_hold_is_an_error_and_what_was_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let config = config_with(&json!({}));
    let name = "model.layers.0.mlp.up_proj.weight";
    let with = |value: f32| {
        let mut parameters = numbered(&config);
        let index = parameters.index(name).unwrap();
        let columns = parameters.specs()[index].shape[1];
        parameters.tensors_mut()[index].f32_mut()[2 * columns + 3] = value;
        parameters
    };
    let write = |value: f32, dtype| export(&out, &config, &with(value), &options(dtype, 600));
    write(65519.99, ExportType::F16).unwrap();
    let largest_bf16 = f32::from_bits(0x7f7f_7fff);
    write(largest_bf16, ExportType::Bf16).unwrap();
    write(f32::MAX, ExportType::F32).unwrap();
    let before = entries(&out);
    let place = format!("{}: `{name}` holds", out.display());
    for (value, dtype, words) in [
        (
            -65520.0,
            ExportType::F16,
            "-65520 at [2, 3], which float16 cannot hold (its largest is 65504): export as",
        ),
        (
            f32::from_bits(0x7f7f_8000),
            ExportType::Bf16,
            "at [2, 3], which bfloat16 cannot hold: export as f32",
        ),
        (f32::NAN, ExportType::Bf16, "NaN at [2, 3], which bfloat16 cannot hold as a number"),
        (f32::INFINITY, ExportType::F32, "inf at [2, 3], which float32 cannot hold as a number"),
        (f32::NAN, ExportType::F16, "NaN at [2, 3], which float16 cannot hold as a number"),
    ] {
        let error = write(value, dtype).unwrap_err().to_string();
        assert!(error.starts_with(&place) && error.contains(words), "{error}");
        assert!(error.ends_with("; nothing is written"), "{error}");
    }
    assert_eq!(entries(&out), before);
    assert_eq!(entries(folder.path()), ["out"]);
}

#[test]
fn a_place_that_cannot_be_written_is_found_without_writing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::write(root.join("file"), "").unwrap();
    std::os::unix::fs::symlink(root.join("nothing"), root.join("dangling")).unwrap();
    std::os::unix::fs::symlink(&root, root.join("link")).unwrap();
    fs::create_dir(root.join("closed")).unwrap();
    fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    let before = entries(&root);
    for (place, words) in [
        ("file", "is no folder"),
        ("file/out", "/file is no folder: choose another place"),
        ("dangling", "/dangling is a link to nothing"),
        ("dangling/out", "/dangling is a link to nothing"),
        ("/", "give a folder with a name"),
        (".", "holds"),
    ] {
        let error = check_target(&root.join(place), false).unwrap_err().to_string();
        assert!(error.contains(words), "{place}: {error}");
    }
    if fs::File::create(root.join("closed/probe")).is_ok() {
        fs::remove_file(root.join("closed/probe")).unwrap();
        println!("nothing is closed to this user: that part is left out");
    } else {
        let error = check_target(&root.join("closed/a/b"), false).unwrap_err().to_string();
        assert!(error.contains("/closed cannot be written to"), "{error}");
    }
    for place in ["out", "./out", "link/out", "link/link/out/.", "a/../out"] {
        assert_eq!(check_target(&root.join(place), false).unwrap(), root.join("out"), "{place}");
    }
    assert_eq!(check_target(&root.join("a/b"), false).unwrap(), root.join("a/b"));
    assert_eq!(entries(&root), before);
}

#[test]
fn whoever_is_asked_to_stop_reads_and_draws_and_writes_no_further_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = config_with(&json!({}));
    let (made, out) = (folder.path().join("made"), folder.path().join("out"));
    export(&made, &config, &numbered(&config), &options(ExportType::F32, u64::MAX)).unwrap();
    let stop = Arc::new(AtomicBool::new(true));
    let weights = Weights::open(&made, &config).unwrap();
    assert!(matches!(weights.load_until(&Serial, &stop), Err(ModelError::Stopped)));
    assert!(matches!(initialise_until(&config, 1, &Serial, &stop), Err(ModelError::Stopped)));
    for out in [&out, &made] {
        let options = ExportOptions { stop: stop.clone(), ..options(ExportType::Bf16, 600) };
        assert!(matches!(export(out, &config, &numbered(&config), &options), Err(ModelError::Stopped)));
    }
    assert_eq!(entries(folder.path()), ["made"]);
    assert!(bits(&read_again(&made).1) == bits(&numbered(&config)));
    stop.store(false, Ordering::Relaxed);
    assert!(bits(&weights.load_until(&Serial, &stop).unwrap()) == bits(&numbered(&config)));
}
