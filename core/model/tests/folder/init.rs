//! Fresh weights.

use fp8flow_kernels::{Parallel, Serial};
use fp8flow_model::{ParameterKind, initialise};
use serde_json::json;

use crate::{bits, config_with};

/// A pool that runs the last task first, on several threads.
pub(crate) struct Backwards(pub(crate) rayon::ThreadPool);

impl Parallel for Backwards {
    fn threads(&self) -> usize {
        self.0.current_num_threads()
    }

    fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        use rayon::prelude::*;
        self.0.install(|| (0..tasks).into_par_iter().rev().for_each(body));
    }
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let config = config_with(&json!({ "vocab_size": 20_000, "hidden_size": 32 }));
    let one = bits(&initialise(&config, 7, &Serial));
    for threads in [2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(bits(&initialise(&config, 7, &Backwards(pool))) == one, "{threads} threads");
    }
}

#[test]
fn matrices_are_normal_norms_one_and_biases_zero() {
    let config = config_with(&json!({
        "vocab_size": 500, "hidden_size": 64, "num_attention_heads": 4, "attention_bias": true, "initializer_range": 0.05,
    }));
    let parameters = initialise(&config, 1, &Serial);
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
    for (spec, tensor) in parameters.iter() {
        match spec.kind {
            ParameterKind::Norm => assert!(tensor.f32().iter().all(|&x| x == 1.0), "{}", spec.name),
            ParameterKind::Bias => assert!(tensor.f32().iter().all(|&x| x == 0.0), "{}", spec.name),
            ParameterKind::Embedding | ParameterKind::Head | ParameterKind::Matrix => {
                for &x in tensor.f32() {
                    sum += f64::from(x);
                    squares += f64::from(x) * f64::from(x);
                    count += 1.0;
                }
            }
        }
    }
    let mean: f64 = sum / count;
    let deviation: f64 = (squares / count).sqrt();
    assert!(mean.abs() < 0.05 * 4.0 / f64::sqrt(count), "mean {mean}");
    assert!((deviation / 0.05 - 1.0).abs() < 0.01, "deviation {deviation}");
}

#[test]
fn a_parameter_depends_on_the_seed_and_its_name_alone() {
    let by_name = |config: &_, seed| {
        bits(&initialise(config, seed, &Serial)).into_iter().collect::<std::collections::BTreeMap<_, _>>()
    };
    let plain = by_name(&config_with(&json!({})), 3);
    let other = by_name(
        &config_with(&json!({ "tie_word_embeddings": true, "mlp_bias": true, "num_hidden_layers": 1 })),
        3,
    );
    for (name, values) in other.iter().filter(|(name, _)| !name.ends_with("bias")) {
        assert!(plain[name] == *values, "{name}");
    }
    let q = "model.layers.0.self_attn.q_proj.weight";
    assert!(plain[q] != plain["model.layers.1.self_attn.q_proj.weight"]);
    assert!(plain[q] != by_name(&config_with(&json!({})), 4)[q]);
}
