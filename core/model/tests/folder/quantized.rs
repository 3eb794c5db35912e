//! Quantised bases: refused with file and key, or FP8 in blocks multiplied out as a reference in f64 does it.

use std::fs;
use std::path::Path;

use fp8flow_kernels::{Parallel, Serial};
use fp8flow_model::{
    BlockScales, ExportOptions, ExportType, Finding, ModelConfig, ModelError, NamedTensor, ParameterKind,
    Parameters, StoredType, TensorData, Weights, export, parameter_specs, write_safetensors,
};
use serde_json::{Value, json};

use crate::init::Backwards;
use crate::{bits, config_with};

/// A tensor to be written.
#[derive(Clone)]
struct Tensor {
    name: String,
    dtype: StoredType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// A folder in the making: its tensors, and the masters they stand for, from arithmetic of the test's own.
struct Base {
    config: ModelConfig,
    blocks: BlockScales,
    tensors: Vec<Tensor>,
    masters: Vec<(String, Vec<u32>)>,
}

/// E4M3 by its definition, in f64.
fn decode(code: u8) -> f64 {
    let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(code >> 3 & 0xf), f64::from(code & 7));
    match exponent {
        0 => sign * mantissa / 8.0 * 2.0_f64.powi(-6),
        _ => sign * (1.0 + mantissa / 8.0) * 2.0_f64.powi(exponent - 7),
    }
}

/// Bytes without a pattern, the same every time.
struct Bytes(u64);

impl Bytes {
    fn next(&mut self) -> u8 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 56) as u8
    }

    /// Any code but the two NaNs.
    fn code(&mut self) -> u8 {
        Some(self.next()).filter(|code| code & 0x7f != 0x7f).unwrap_or(0)
    }

    /// A scale between 2⁻¹⁰ and 2⁻², exact in bf16.
    fn scale(&mut self) -> f32 {
        let exponent = 117 + u32::from(self.next()) % 8;
        f32::from_bits(exponent << 23 | u32::from(self.next() & 0x7f) << 16)
    }
}

impl Base {
    /// Matrices of blocks as codes with scales in `scales`, everything else in bf16.
    fn new(changes: &Value, blocks: BlockScales, scales: StoredType) -> Self {
        let config = config_with(changes);
        let mut random = Bytes(7);
        let (mut tensors, mut masters) = (Vec::new(), Vec::new());
        for spec in parameter_specs(&config) {
            let mut push = |name: &str, dtype, shape: &[usize], bytes| {
                tensors.push(Tensor { name: name.into(), dtype, shape: shape.to_vec(), bytes });
            };
            let numbers: Vec<f32> = if spec.kind == ParameterKind::Matrix {
                let [n, k] = spec.shape[..] else { unreachable!("a matrix") };
                let codes: Vec<u8> = (0..n * k).map(|_| random.code()).collect();
                let columns = k.div_ceil(blocks.cols);
                let grid: Vec<f32> = (0..n.div_ceil(blocks.rows) * columns).map(|_| random.scale()).collect();
                let product = |i: usize| {
                    let scale = grid[i / k / blocks.rows * columns + i % k / blocks.cols];
                    (decode(codes[i]) * f64::from(scale)) as f32
                };
                let numbers = (0..n * k).map(product).collect();
                push(&spec.name, StoredType::F8_E4M3, &spec.shape, codes);
                let stored = |x: &f32| match scales {
                    StoredType::BF16 => x.to_le_bytes()[2..].to_vec(),
                    _ => x.to_le_bytes().to_vec(),
                };
                let shape = [n.div_ceil(blocks.rows), columns];
                push(
                    &format!("{}_scale_inv", spec.name),
                    scales,
                    &shape,
                    grid.iter().flat_map(stored).collect(),
                );
                numbers
            } else {
                let numbers: Vec<f32> = (0..spec.len()).map(|_| random.scale()).collect();
                let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()[2..].to_vec()).collect();
                push(&spec.name, StoredType::BF16, &spec.shape, bytes);
                numbers
            };
            masters.push((spec.name, numbers.iter().map(|x| x.to_bits()).collect()));
        }
        Self { config, blocks, tensors, masters }
    }

    /// Blocks of five by three, which divide no dimension.
    fn small() -> Self {
        Self::new(&json!({}), BlockScales { rows: 5, cols: 3 }, StoredType::F32)
    }

    fn write(&self, folder: &Path) {
        let mut raw = self.config.raw.clone();
        raw.insert(
            "quantization_config".into(),
            json!({ "quant_method": "fp8", "activation_scheme": "dynamic",
                    "weight_block_size": [self.blocks.rows, self.blocks.cols] }),
        );
        fs::write(folder.join("config.json"), Value::Object(raw).to_string()).unwrap();
        write(&folder.join("model.safetensors"), &self.tensors);
    }

    /// What is read from the folder, on the threads of `pool`.
    fn load(&self, folder: &Path, pool: &dyn Parallel) -> Parameters {
        self.write(folder);
        let (config, blocks) = ModelConfig::open_dequantized(folder).unwrap();
        assert_eq!(blocks, Some(self.blocks));
        Weights::open_dequantized(folder, &config, blocks).unwrap().load(pool).unwrap()
    }

    /// What is wrong with the folder after `change` to its tensor `name`.
    fn findings(mut self, name: &str, change: impl FnOnce(&mut Tensor)) -> Vec<Finding> {
        let folder = tempfile::tempdir().unwrap();
        change(self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap());
        self.write(folder.path());
        let (config, blocks) = ModelConfig::open_dequantized(folder.path()).unwrap();
        match Weights::open_dequantized(folder.path(), &config, blocks) {
            Err(ModelError::Weights { findings, .. }) => findings,
            other => panic!("findings were expected, not {other:?}"),
        }
    }
}

fn write(path: &Path, tensors: &[Tensor]) {
    let named = tensors.iter().map(|tensor| NamedTensor {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.clone(),
        data: TensorData::Bytes(&tensor.bytes),
    });
    // What is there is never written over.
    let _ = fs::remove_file(path);
    write_safetensors(path, named, &[]).unwrap();
}

fn refused(config: &Value) -> String {
    let mut json = json!({ "model_type": "llama", "hidden_size": 8, "num_attention_heads": 2 });
    for (key, value) in config.as_object().unwrap() {
        json[key] = value.clone();
    }
    ModelConfig::from_json(&json.to_string(), Path::new("model/config.json")).unwrap_err().to_string()
}

const METHODS: [&str; 10] = [
    "bitsandbytes",
    "gptq",
    "awq",
    "hqq",
    "eetq",
    "fp8",
    "compressed-tensors",
    "fbgemm_fp8",
    "quanto",
    "of-tomorrow",
];

#[test]
fn every_quantised_base_is_refused_with_file_and_key() {
    for method in METHODS {
        assert_eq!(
            refused(&json!({ "quantization_config": { "quant_method": method, "bits": 4 } })),
            format!(
                "model/config.json: quantization_config.quant_method = \"{method}\": quantised weights cannot be trained; \
                 take the model that they were made from"
            )
        );
    }
    let older = refused(&json!({ "compression_config": { "quant_method": "compressed-tensors" } }));
    assert!(older.starts_with("model/config.json: compression_config.quant_method = "), "{older}");
    for nameless in [json!({ "bits": 4 }), json!({}), json!(true), json!("gptq")] {
        let message = refused(&json!({ "quantization_config": nameless }));
        let named = format!("model/config.json: quantization_config = {nameless}: quantised weights");
        assert!(message.starts_with(&named), "{message}");
    }
    let in_blocks = json!({ "quant_method": "fp8", "weight_block_size": [128, 128] });
    let message = refused(&json!({ "quantization_config": in_blocks }));
    assert!(message.ends_with("unless they are multiplied out to f32 first"), "{message}");
}

#[test]
fn only_fp8_in_blocks_can_be_dequantised() {
    let folder = tempfile::tempdir().unwrap();
    let sizes =
        [json!([128]), json!([128, 0]), json!([1.5, 2]), json!([128, 128, 1]), json!(128), Value::Null];
    let wrong_sizes = sizes.map(|size| json!({ "quant_method": "fp8", "weight_block_size": size }));
    let others = METHODS.map(|method| json!({ "quant_method": method }));
    for quantization in wrong_sizes.into_iter().chain(others) {
        let config = json!({ "model_type": "llama", "quantization_config": quantization });
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let error = ModelConfig::open_dequantized(folder.path()).unwrap_err();
        assert!(
            matches!(error, ModelError::Quantized { asked: true, in_blocks: false, .. }),
            "{quantization}"
        );
        assert!(
            error.to_string().contains("cannot be dequantised: only `quant_method` = \"fp8\""),
            "{error}"
        );
    }
    fs::write(folder.path().join("config.json"), r#"{"model_type": "llama", "quantization_config": null}"#)
        .unwrap();
    assert_eq!(ModelConfig::open_dequantized(folder.path()).unwrap().1, None);
    assert!(ModelConfig::open(folder.path()).is_ok());
}

#[test]
fn codes_times_scales_are_those_of_the_reference_with_partial_blocks_at_the_edges() {
    for scales in [StoredType::F32, StoredType::BF16] {
        for (rows, cols) in [(5, 3), (1, 1), (4, 4), (128, 128), (7, 1), (1, 7)] {
            let base = Base::new(&json!({}), BlockScales { rows, cols }, scales);
            let folder = tempfile::tempdir().unwrap();
            assert!(bits(&base.load(folder.path(), &Serial)) == base.masters, "{scales} {rows}×{cols}");
        }
    }
}

#[test]
fn the_published_block_size_on_a_larger_model_is_the_same_for_any_number_of_threads() {
    let changes = json!({ "hidden_size": 520, "intermediate_size": 1100, "num_hidden_layers": 1 });
    let base = Base::new(&changes, BlockScales { rows: 128, cols: 128 }, StoredType::F32);
    let folder = tempfile::tempdir().unwrap();
    for threads in 1..=3 {
        let pool = Backwards(rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
        assert!(bits(&base.load(folder.path(), &pool)) == base.masters, "{threads} threads");
    }
}

#[test]
fn scales_may_lie_in_another_file_than_their_weights() {
    let base = Base::small();
    let folder = tempfile::tempdir().unwrap();
    base.write(folder.path());
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let (scales, weights): (Vec<_>, Vec<_>) =
        base.tensors.iter().cloned().partition(|tensor| tensor.name.ends_with("_scale_inv"));
    let mut places = serde_json::Map::new();
    for (file, tensors) in [("a.safetensors", &weights), ("b.safetensors", &scales)] {
        write(&folder.path().join(file), tensors);
        places.extend(tensors.iter().map(|tensor| (tensor.name.clone(), json!(file))));
    }
    let index = json!({ "weight_map": places });
    fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let (config, blocks) = ModelConfig::open_dequantized(folder.path()).unwrap();
    let weights = Weights::open_dequantized(folder.path(), &config, blocks).unwrap();
    assert!(bits(&weights.load(&Serial).unwrap()) == base.masters);
}

#[test]
fn a_tied_head_in_codes_of_its_own_must_be_the_embedding() {
    let mut base = Base::new(
        &json!({ "tie_word_embeddings": true }),
        BlockScales { rows: 128, cols: 128 },
        StoredType::F32,
    );
    // Both as codes with one scale, of which the head's may differ.
    let codes: Vec<u8> = (0..24 * 8).map(|i| i as u8 % 0x7f).collect();
    let scale = |name: &str, scale: f32| Tensor {
        name: format!("{name}.weight_scale_inv"),
        dtype: StoredType::F32,
        shape: vec![1, 1],
        bytes: scale.to_le_bytes().to_vec(),
    };
    let matrix = |name: &str| Tensor {
        name: format!("{name}.weight"),
        dtype: StoredType::F8_E4M3,
        shape: vec![24, 8],
        bytes: codes.clone(),
    };
    base.tensors[0] = matrix("model.embed_tokens");
    base.tensors.extend([scale("model.embed_tokens", 0.5), matrix("lm_head"), scale("lm_head", 0.5)]);
    let folder = tempfile::tempdir().unwrap();
    let embedding = base.load(folder.path(), &Serial).tensors()[0].f32()[9];
    assert_eq!(f64::from(embedding), decode(9) * 0.5);

    *base.tensors.last_mut().unwrap() = scale("lm_head", 0.25);
    base.write(folder.path());
    let (config, blocks) = ModelConfig::open_dequantized(folder.path()).unwrap();
    let error = Weights::open_dequantized(folder.path(), &config, blocks).unwrap().load(&Serial).unwrap_err();
    assert!(error.to_string().contains("`lm_head.weight` differs"), "{error}");
}

#[test]
fn missing_and_misshapen_scales_and_other_codes_are_named() {
    const NAME: &str = "model.layers.1.self_attn.q_proj.weight";
    const SCALES: &str = "model.layers.1.self_attn.q_proj.weight_scale_inv";
    let renamed = Base::small().findings(SCALES, |tensor| tensor.name.push_str(".old"));
    assert_eq!(renamed[0], Finding::ScalesMissing { name: NAME.into(), scales: SCALES.into() });
    assert_eq!(
        renamed[0].to_string(),
        format!("`{NAME}` is stored as F8_E4M3, but `{SCALES}` with the scales of its blocks is missing")
    );
    assert!(matches!(&renamed[1..], [Finding::Unexpected { name, .. }] if *name == format!("{SCALES}.old")));

    let misshapen = Base::small().findings(SCALES, |tensor| tensor.shape.swap(0, 1));
    assert_eq!(misshapen, [Finding::Shape { name: SCALES.into(), found: vec![3, 2], expected: vec![2, 3] }]);
    let ue8m0 = Base::small().findings(SCALES, |tensor| {
        (tensor.dtype, tensor.bytes) = (StoredType::F8_E8M0, vec![127; 6]);
    });
    assert_eq!(ue8m0, [Finding::Type { name: SCALES.into(), found: StoredType::F8_E8M0 }]);

    let e5m2 = Base::small().findings(NAME, |tensor| tensor.dtype = StoredType::F8_E5M2);
    let scales_of_nothing = Finding::Unexpected { name: SCALES.into(), file: "model.safetensors".into() };
    assert_eq!(
        e5m2,
        [Finding::Codes { name: NAME.into(), found: StoredType::F8_E5M2 }, scales_of_nothing.clone()]
    );
    assert_eq!(
        e5m2[0].to_string(),
        format!(
            "`{NAME}` is stored as F8_E5M2; F8_E4M3 with a scale for each block, F32, BF16 and F16 are read"
        )
    );
    // Plain numbers under the name of codes: the scales would be applied to nothing.
    let plain = Base::small().findings(NAME, |tensor| {
        (tensor.dtype, tensor.bytes) = (StoredType::BF16, vec![0; 2 * 8 * 8]);
    });
    assert_eq!(plain, [scales_of_nothing]);
    // A vector has no blocks.
    let norm = Base::small().findings("model.norm.weight", |tensor| {
        (tensor.dtype, tensor.bytes) = (StoredType::F8_E4M3, vec![0; 8]);
    });
    assert_eq!(norm, [Finding::Type { name: "model.norm.weight".into(), found: StoredType::F8_E4M3 }]);
}

#[test]
fn codes_are_no_weights_where_nobody_asked_for_them() {
    let base = Base::small();
    let folder = tempfile::tempdir().unwrap();
    base.write(folder.path());
    let error = Weights::open(folder.path(), &base.config).unwrap_err().to_string();
    assert!(error.contains("is stored as F8_E4M3; F32, BF16 and F16 are read"), "{error}");
}

#[test]
fn an_export_is_an_ordinary_model_that_says_nothing_of_quantisation() {
    let base = Base::small();
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("base"), folder.path().join("out"));
    fs::create_dir(&source).unwrap();
    let masters = base.load(&source, &Serial);
    let (config, _) = ModelConfig::open_dequantized(&source).unwrap();
    let options = ExportOptions { dtype: ExportType::F32, ..ExportOptions::default() };
    export(&target, &config, &masters, &options).unwrap();
    let exported = fs::read_to_string(target.join("config.json")).unwrap();
    assert!(!exported.contains("quantization_config") && exported.contains("\"float32\""), "{exported}");
    let config = ModelConfig::open(&target).unwrap();
    assert!(bits(&Weights::open(&target, &config).unwrap().load(&Serial).unwrap()) == base.masters);
}
