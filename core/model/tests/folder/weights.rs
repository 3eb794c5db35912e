//! Weights that do not fit: everything wrong is found from the headers, and nothing leads out of the folder.

use std::fs;
use std::path::Path;

use fp8flow_kernels::Serial;
use fp8flow_model::{
    Finding, ModelConfig, ModelError, NamedTensor, ParameterSpec, StoredType, TensorData, Weights,
    parameter_specs, write_safetensors,
};
use serde_json::json;

use crate::{bits, config_with, numbered};

/// Tensors to be written: name, shape, elements.
type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

fn tensors(config: &ModelConfig) -> Tensors {
    let tensor = |spec: &ParameterSpec, data: &[f32]| (spec.name.clone(), spec.shape.clone(), data.to_vec());
    numbered(config).iter().map(|(spec, data)| tensor(spec, data.f32())).collect()
}

fn write(path: &Path, tensors: &Tensors, dtype: StoredType) {
    let tensors = tensors.iter().map(|(name, shape, data)| NamedTensor {
        name: name.clone(),
        dtype,
        shape: shape.clone(),
        data: TensorData::F32(data),
    });
    write_safetensors(path, tensors, &[]).unwrap();
}

fn write_index(folder: &Path, places: &[(&str, &str)]) {
    let map: serde_json::Map<_, _> =
        places.iter().map(|(name, file)| ((*name).to_owned(), json!(file))).collect();
    fs::write(folder.join("model.safetensors.index.json"), json!({ "weight_map": map }).to_string()).unwrap();
}

fn findings(folder: &Path, config: &ModelConfig) -> Vec<Finding> {
    match Weights::open(folder, config) {
        Err(ModelError::Weights { findings, .. }) => findings,
        other => panic!("findings were expected, not {other:?}"),
    }
}

#[test]
fn missing_unexpected_and_misshapen_tensors_are_found_at_once() {
    let config = config_with(&json!({}));
    let folder = tempfile::tempdir().unwrap();
    let mut stored = tensors(&config);
    stored.retain(|(name, ..)| name != "model.norm.weight");
    stored.push(("model.layers.2.mlp.up_proj.weight".into(), vec![1], vec![0.0]));
    stored[0].1 = vec![8, 24];
    write(&folder.path().join("model.safetensors"), &stored, StoredType::F32);
    let expected = [
        Finding::Missing { name: "model.norm.weight".into() },
        Finding::Shape {
            name: "model.embed_tokens.weight".into(),
            found: vec![8, 24],
            expected: vec![24, 8],
        },
        Finding::Unexpected {
            name: "model.layers.2.mlp.up_proj.weight".into(),
            file: "model.safetensors".into(),
        },
    ];
    assert_eq!(findings(folder.path(), &config), expected);
    assert_eq!(
        Weights::open(folder.path(), &config).unwrap_err().to_string(),
        format!(
            "{}: the weights do not fit config.json:\n  \
             `model.norm.weight` is missing\n  \
             `model.embed_tokens.weight` has shape [8, 24], expected [24, 8]\n  \
             `model.layers.2.mlp.up_proj.weight` in model.safetensors is no parameter of this configuration",
            folder.path().display()
        )
    );
}

#[test]
fn a_long_list_of_findings_is_cut() {
    let config = config_with(&json!({}));
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("model.safetensors"), &Vec::new(), StoredType::F32);
    let error = Weights::open(folder.path(), &config).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1 + 8 + 1);
    assert!(error.ends_with(&format!("and {} more", parameter_specs(&config).len() - 8)), "{error}");
}

#[test]
fn a_tensor_of_a_type_that_is_not_read_is_found() {
    let config = config_with(&json!({}));
    let folder = tempfile::tempdir().unwrap();
    let stored = tensors(&config);
    let bytes = vec![0; 24 * 8];
    let named = stored.iter().map(|(name, shape, data)| {
        let fp8 = name == "lm_head.weight";
        NamedTensor {
            name: name.clone(),
            dtype: if fp8 { StoredType::F8_E4M3 } else { StoredType::F32 },
            shape: shape.clone(),
            data: if fp8 { TensorData::Bytes(&bytes) } else { TensorData::F32(data) },
        }
    });
    write_safetensors(&folder.path().join("model.safetensors"), named, &[]).unwrap();
    let expected = Finding::Type { name: "lm_head.weight".into(), found: StoredType::F8_E4M3 };
    assert_eq!(expected.to_string(), "`lm_head.weight` is stored as F8_E4M3; F32, BF16 and F16 are read");
    assert_eq!(findings(folder.path(), &config), [expected]);
}

#[test]
fn rotary_frequencies_of_old_checkpoints_are_passed_over() {
    let config = config_with(&json!({}));
    let folder = tempfile::tempdir().unwrap();
    let mut stored = tensors(&config);
    stored.push(("model.layers.0.self_attn.rotary_emb.inv_freq".into(), vec![2], vec![1.0, 0.01]));
    write(&folder.path().join("model.safetensors"), &stored, StoredType::F32);
    let masters = Weights::open(folder.path(), &config).unwrap().load(&Serial).unwrap();
    assert!(bits(&masters) == bits(&numbered(&config)));
}

#[test]
fn a_tied_head_may_be_stored_if_it_is_the_embedding() {
    let config = config_with(&json!({ "tie_word_embeddings": true }));
    for (change, same) in [(0.0, true), (1e-6, false)] {
        let folder = tempfile::tempdir().unwrap();
        let mut stored = tensors(&config);
        let mut head = stored[0].clone();
        head.0 = "lm_head.weight".into();
        head.2[100] += change;
        stored.push(head);
        write(&folder.path().join("model.safetensors"), &stored, StoredType::F32);
        let loaded = Weights::open(folder.path(), &config).unwrap().load(&Serial);
        match loaded {
            Ok(masters) => assert!(same && bits(&masters) == bits(&numbered(&config))),
            Err(ModelError::Weights { findings, .. }) => {
                assert!(!same);
                assert_eq!(findings, [Finding::HeadDiffers]);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn an_index_and_its_files_must_agree() {
    let config = config_with(&json!({}));
    let folder = tempfile::tempdir().unwrap();
    let stored = tensors(&config);
    let (first, mut second) = (stored[..10].to_vec(), stored[9..].to_vec());
    // `stored[9]` is in both files, the last tensor in none, `stored[2]` not where the index says.
    let lost = second.pop().unwrap().0;
    write(&folder.path().join("a.safetensors"), &first, StoredType::F32);
    write(&folder.path().join("b.safetensors"), &second, StoredType::F32);
    let mut places: Vec<_> = first.iter().map(|(name, ..)| (name.as_str(), "a.safetensors")).collect();
    places.extend(second[1..].iter().map(|(name, ..)| (name.as_str(), "b.safetensors")));
    places.push((&lost, "b.safetensors"));
    places[2].1 = "b.safetensors";
    let unlisted = places.remove(4).0.to_owned();
    write_index(folder.path(), &places);
    let expected = [
        Finding::Duplicate {
            name: stored[9].0.clone(),
            files: ["a.safetensors".into(), "b.safetensors".into()],
        },
        Finding::Misplaced { name: lost.clone(), indexed: Some("b.safetensors".into()), found: None },
        Finding::Misplaced {
            name: stored[2].0.clone(),
            indexed: Some("b.safetensors".into()),
            found: Some("a.safetensors".into()),
        },
        Finding::Misplaced { name: unlisted, indexed: None, found: Some("a.safetensors".into()) },
    ];
    assert_eq!(findings(folder.path(), &config), expected);
    assert_eq!(
        expected[1].to_string(),
        format!("`{lost}` is in b.safetensors by the index, but in none of the files")
    );
}

#[test]
fn names_in_an_index_stay_in_the_folder() {
    let config = config_with(&json!({}));
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("model");
    fs::create_dir(&inside).unwrap();
    write(&folder.path().join("outside.safetensors"), &tensors(&config), StoredType::F32);
    let absolute = folder.path().join("outside.safetensors");
    for escape in [
        "../outside.safetensors",
        "./x",
        "..",
        ".",
        "",
        "a/b",
        "a\\b",
        "x\0y",
        "/",
        absolute.to_str().unwrap(),
    ] {
        write_index(&inside, &[("lm_head.weight", escape)]);
        let error = Weights::open(&inside, &config).unwrap_err().to_string();
        assert!(error.contains("which is no name of a file in this folder"), "{escape:?}: {error}");
    }
}

#[test]
fn a_folder_without_weights_says_what_was_looked_for() {
    let config = config_with(&json!({}));
    let folder = tempfile::tempdir().unwrap();
    let open = || Weights::open(folder.path(), &config).unwrap_err().to_string();
    assert!(
        open()
            .ends_with("there is neither model.safetensors nor model.safetensors.index.json in this folder")
    );
    fs::write(folder.path().join("pytorch_model.bin"), "").unwrap();
    assert!(open().contains("pickled weights are not read"));
    write_index(folder.path(), &[("lm_head.weight", "model-00001-of-00002.safetensors")]);
    let error = open();
    assert!(error.contains("model-00001-of-00002.safetensors: cannot open: "), "{error}");
    let missing = Weights::open(folder.path().join("nowhere"), &config).unwrap_err();
    assert!(matches!(missing, ModelError::Io { .. }), "{missing}");
}

#[test]
fn a_weight_that_is_no_number_is_named_when_it_is_read() {
    let config = config_with(&json!({}));
    let folder = tempfile::tempdir().unwrap();
    let (path, name) = (folder.path().join("model.safetensors"), "model.layers.0.mlp.up_proj.weight");
    for (dtype, value, words) in [
        (StoredType::F32, f32::NAN, "NaN at [1, 2]"),
        (StoredType::F32, f32::NEG_INFINITY, "-inf at [1, 2]"),
        (StoredType::BF16, f32::INFINITY, "inf at [1, 2]"),
        (StoredType::F16, f32::NAN, "NaN at [1, 2]"),
    ] {
        let mut stored = tensors(&config);
        let (_, shape, data) = stored.iter_mut().find(|(found, ..)| found == name).unwrap();
        data[shape[1] + 2] = value;
        let _ = fs::remove_file(&path);
        write(&path, &stored, dtype);
        let error = Weights::open(folder.path(), &config).unwrap().load(&Serial).unwrap_err().to_string();
        let expected = format!("`{name}` holds {words}: the weights of a model are finite numbers");
        assert!(error.ends_with(&expected), "{error}");
    }
}
