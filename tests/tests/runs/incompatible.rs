//! What does not go together is found before anything runs, and the table of what does is true.

use std::collections::BTreeSet;
use std::sync::Arc;

use fp8flow_host::{Pool, Search, Services, check_options};
use fp8flow_kernels::{Isa, Serial};
use fp8flow_model::{
    ModelConfig, NamedTensor, ParameterKind, StoredType, TensorData, Weights, write_safetensors,
};
use fp8flow_sdk::{LayerFacts, Precision};
use fp8flow_stages::support::{DeviceClass, MATRIX};
use serde_json::{Value, json};

use crate::invalid::invalid;
use crate::program::{Bench, quickstart};

/// The workflow with a base in the folder `base`, whose configuration says `quantization`.
fn quantised(bench: Bench, quantization: Value) -> Bench {
    let text = std::fs::read_to_string(quickstart().join("model/config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["quantization_config"] = quantization;
    bench.write("base/config.json", config.to_string());
    let data = quickstart();
    let init = format!("uses = \"model.init\"\nconfig = \"{}/model/config.json\"", data.display());
    bench.with(&init, "uses = \"model.load\"\npath = \"base\"")
}

fn in_blocks() -> Value {
    json!({ "quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128] })
}

#[test]
fn fp8_on_a_quantised_base_is_one_clear_error_with_file_and_key() {
    for method in ["bitsandbytes", "gptq", "awq", "hqq", "eetq", "compressed-tensors", "of-tomorrow"] {
        let bench = quantised(Bench::new(), json!({ "quant_method": method, "bits": 4 }));
        let key = format!("base/config.json: quantization_config.quant_method = \"{method}\"");
        let words = "FP8 training is not compatible with quantization. Please disable one of them.";
        invalid(&bench, &[&key, words, "Load the model that these weights were made from", "1 error;"]);
    }
    let bench = quantised(Bench::new(), in_blocks());
    invalid(&bench, &["is not compatible with quantization", "Set `dequantize = true`"]);
}

#[test]
fn without_fp8_a_quantised_base_cannot_be_trained_either() {
    let none = "plugin = \"none\"";
    let bench = Bench::new().with("plugin = \"torchao-rowwise\"\nrecipe = \"rowwise\"", none);
    let bench = quantised(bench, json!({ "quant_method": "awq" }));
    invalid(&bench, &["quant_method = \"awq\"", "quantised weights cannot be trained", "1 error;"]);
}

#[test]
fn only_fp8_in_blocks_is_dequantised() {
    let bench = quantised(Bench::new(), json!({ "quant_method": "fp8" }));
    let bench = bench.with("path = \"base\"", "path = \"base\"\ndequantize = true");
    invalid(&bench, &["cannot be dequantised", "weight_block_size"]);
}

#[test]
fn a_base_in_fp8_blocks_is_trained_and_exported_as_an_ordinary_model() {
    // A model of our own, its matrices as codes with one scale for each 128 × 128.
    let bench = Bench::new();
    assert_eq!(bench.run(&["--set", "stages.train.steps=1"]).code, Some(0));
    let config = ModelConfig::open(bench.path("out")).unwrap();
    let masters = Weights::open(bench.path("out"), &config).unwrap().load(&Serial).unwrap();
    let bench = quantised(Bench::new(), in_blocks());
    let mut stored: Vec<(String, StoredType, Vec<usize>, Vec<u8>)> = Vec::new();
    for (spec, tensor) in masters.iter() {
        let bytes = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        if spec.kind != ParameterKind::Matrix {
            stored.push((spec.name.clone(), StoredType::F32, spec.shape.clone(), bytes(tensor.f32())));
            continue;
        }
        let codes = tensor.f32().iter().map(|x| fp8flow_kernels::Fp8::E4m3.encode(x * 1024.0)).collect();
        let grid = [spec.shape[0].div_ceil(128), spec.shape[1].div_ceil(128)];
        let scales = vec![1.0 / 1024.0; grid[0] * grid[1]];
        stored.push((spec.name.clone(), StoredType::F8_E4M3, spec.shape.clone(), codes));
        stored.push((format!("{}_scale_inv", spec.name), StoredType::F32, grid.to_vec(), bytes(&scales)));
    }
    let tensors = stored.iter().map(|(name, dtype, shape, bytes)| NamedTensor {
        name: name.clone(),
        dtype: *dtype,
        shape: shape.clone(),
        data: TensorData::Bytes(bytes),
    });
    write_safetensors(&bench.path("base/model.safetensors"), tensors, &[]).unwrap();
    let bench = bench.with("path = \"base\"", "path = \"base\"\ndequantize = true");

    let plan = bench.fp8flow(&["plan", "workflow.toml"]);
    assert!(plan.out.contains("FP8 in blocks of 128 × 128, multiplied out to f32"), "{}", plan.all());
    let ended = bench.run(&[]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    for file in ["out/config.json", "runs/latest/checkpoints/step-00000004/config.json"] {
        let text = std::fs::read_to_string(bench.path(file)).unwrap();
        assert!(!text.contains("quantization_config"), "{file}: {text}");
    }
    assert!(ModelConfig::open(bench.path("out")).is_ok());
}

#[test]
fn all_gather_is_refused_with_the_reason_that_fits() {
    let asked = |recipe: &str| format!("recipe = \"{recipe}\"\nfloat8_all_gather = true");
    let backend = "plugin = \"torchao-rowwise\"\nrecipe = \"rowwise\"";
    let none = Bench::new().with(backend, "plugin = \"none\"\nfloat8_all_gather = true");
    invalid(&none, &["workflow.toml:7:21", "FP8 all-gather needs FP8", "name an FP8 plugin", "1 error;"]);
    let rowwise = Bench::new().with("recipe = \"rowwise\"", &asked("rowwise"));
    invalid(&rowwise, &["recipe `rowwise`: FP8 all-gather needs one scale a tensor", "`tensorwise`"]);
    let tensorwise = Bench::new().with("recipe = \"rowwise\"", &asked("tensorwise"));
    invalid(&tensorwise, &["trains in one process", "Remove `float8_all_gather`", "1 error;"]);
}

#[test]
fn kinds_of_training_from_elsewhere_say_what_there_is() {
    for kind in ["dpo", "rm", "ppo", "kto"] {
        let bench = Bench::new().with("uses = \"train.sft\"", &format!("uses = \"train.{kind}\""));
        let unknown = format!("unknown kind of stage `train.{kind}`");
        invalid(&bench, &[&unknown, "FP8 training is there for train.sft and train.pt"]);
    }
}

#[test]
fn the_page_is_what_the_table_says() {
    let ended = Bench::new().fp8flow(&["schema", "--format", "support"]);
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/reference/support.md");
    let help = "write it again: fp8flow schema --format support > docs/src/reference/support.md";
    assert!(std::fs::read_to_string(page).unwrap() == ended.out, "{help}");
}

/// Every plugin that is built beside these tests and has rows: those rows are its recipes, and each takes the multiples
/// of its row and nothing less.
#[test]
fn the_table_is_true_of_the_plugins_that_come_with_fp8flow() {
    let pool = Arc::new(Pool::new(1).unwrap());
    let host = Services::new(Isa::best(), pool, Arc::default()).host();
    let rows = || MATRIX.iter().filter(|row| row.device == DeviceClass::Cpu);
    let mut looked_at = BTreeSet::new();
    for listed in Search::new(&[], &[]).list().plugins {
        let name = listed.found.name().to_owned();
        if listed.shadowed_by.is_some() || rows().all(|row| row.plugin != name) {
            continue;
        }
        let plugin = listed.found.open(&host).unwrap();
        let has: BTreeSet<_> = plugin.recipes().iter().map(|recipe| recipe.name.as_str()).collect();
        let said: BTreeSet<_> = rows().filter(|row| row.plugin == name).map(|row| row.recipe).collect();
        assert_eq!(has, said, "{name}");
        for row in rows().filter(|row| row.plugin == name) {
            let info = plugin.recipe_info(row.recipe).unwrap();
            let options = check_options(info, &serde_json::Map::new()).unwrap();
            let recipe = plugin.recipe(row.recipe, &options).unwrap();
            for (features, precision) in
                [(row.dimensions, Precision::Fp8), (row.dimensions + row.dimensions / 2, Precision::High)]
            {
                let facts = LayerFacts {
                    device: None,
                    name: "model.layers.0.mlp.up_proj".into(),
                    in_features: features,
                    out_features: 2 * row.dimensions,
                    tokens: Some(7),
                    block: Some(0),
                    group: vec!["model.layers.0.mlp.up_proj".into()],
                };
                let decided = recipe.decide(&facts);
                assert_eq!(decided.precision, precision, "{} {features}: {}", row.recipe, decided.reason);
            }
        }
        looked_at.insert(name);
    }
    assert!(looked_at.contains("torchao-rowwise"), "{looked_at:?}");
}
