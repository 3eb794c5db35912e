//! torchao-rowwise from its file against the crate that is linked into this test.

use fp8flow_host::Plugin;
use fp8flow_kernels::Isa;
use fp8flow_sdk::{Backend, Event, Host, Kernels, Options, Pass, Recipe, RecipeInfo};
use fp8flow_testkit::{Activations, Layers, Values, normal};
use serde_json::json;
use torchao_rowwise::TorchaoRowwise;

use crate::common::{found, host, plugin, recipe};

const NAME: &str = "torchao-rowwise";
const N: usize = 48;
const K: usize = 80;

#[test]
fn a_loaded_recipe_gives_the_bits_of_the_linked_one() {
    let loaded = plugin(NAME);
    let (linked_host, linked) = (host(), TorchaoRowwise);
    for info in loaded.recipes() {
        for power_of_two in [true, false] {
            let option = ("round_scales_to_power_of_2", json!(power_of_two));
            let options = Options([(option.0.to_owned(), option.1.clone())].into_iter().collect());
            let run = |recipe: Box<dyn Recipe>| {
                let weights = vec![normal(N * K, 0.02, 1), normal(2 * N * K, 0.02, 2)];
                let mut layers = Layers::new(recipe, K, weights).unwrap();
                layers.telemetry = true;
                let description = layers.recipe().describe().to_string();
                let mut bits = Vec::new();
                for step in 0..2 {
                    let dtype = if step == 0 { Activations::Bf16 } else { Activations::F32 };
                    let x = Values::normal(dtype, 37, K, 1.0, 10 + step);
                    let dys = [N, 2 * N].map(|n| Values::normal(dtype, 37, n, 1e-3, 20 + step));
                    bits.extend(layers.step(&x, &dys).unwrap().bits());
                    let (outputs, _) = layers.forward(Pass::Eval, &x).unwrap();
                    bits.extend(outputs.iter().flat_map(|y| y.bytes().to_vec()));
                }
                let facts: Vec<_> = (0..2)
                    .map(|i| {
                        let layer = layers.layer(i);
                        let memory = [0, 1, 37].map(|tokens| layer.memory(tokens));
                        (layers.decision(i).clone(), memory, layer.input_formats(), layer.counters())
                    })
                    .collect();
                layers.recipe().healthy().unwrap();
                (description, facts, layers.recipe().state().unwrap(), bits)
            };
            let expected = run(linked.recipe(&linked_host, &info.name, &options).unwrap());
            let found = run(recipe(&loaded, &info.name, &[option]));
            assert_eq!(found, expected, "{} with {power_of_two}", info.name);
            assert!(found.1[0].3.fprop >= 4 && found.1[0].3.cast[0] > 0, "counters came back");
        }
    }
}

/// The loaded plugin as if it were linked, for the suite.
struct Loaded(Plugin);

impl Backend for Loaded {
    fn start(host: &Host) -> fp8flow_sdk::Result<Self> {
        Ok(Self(found(NAME).open(host).unwrap()))
    }

    fn recipes() -> Vec<RecipeInfo> {
        plugin(NAME).recipes().to_vec()
    }

    fn recipe(&self, host: &Host, name: &str, options: &Options) -> fp8flow_sdk::Result<Box<dyn Recipe>> {
        self.0.any_recipe(host, name, options)
    }

    fn kernels(&self, _: &Host) -> Option<Box<dyn Kernels>> {
        self.0.kernels().unwrap()
    }
}

#[test]
fn the_loaded_plugin_conforms() {
    let report = fp8flow_testkit::run::<Loaded>();
    assert!(report.passed(), "{report}");
}

#[test]
fn what_the_manifest_says_is_what_the_plugin_has() {
    let loaded = plugin(NAME);
    assert_eq!(loaded.recipes(), TorchaoRowwise::recipes());
    let manifest = loaded.manifest();
    assert_eq!((manifest.name.as_str(), manifest.version.as_str()), (NAME, env!("CARGO_PKG_VERSION")));
    assert_eq!(manifest.recipes, ["rowwise", "tensorwise", "rowwise_with_gw_hp"]);
    assert_eq!(manifest.devices, ["cpu", "cuda"]);
    assert_eq!(manifest.panic, "unwind");
}

#[test]
fn threads_and_instruction_sets_of_the_host_are_the_plugins() {
    let bits = |isa, threads| {
        let pool = std::sync::Arc::new(fp8flow_host::Pool::new(threads).unwrap());
        let host = fp8flow_host::Services::new(isa, pool, std::sync::Arc::default()).host();
        let plugin = found(NAME).open(&host).unwrap();
        let mut layers =
            Layers::new(recipe(&plugin, "rowwise", &[]), K, vec![normal(N * K, 0.02, 1)]).unwrap();
        let (x, dy) = (
            Values::normal(Activations::Bf16, 67, K, 1.0, 3),
            Values::normal(Activations::Bf16, 67, N, 1e-3, 4),
        );
        layers.on(Event::WeightsChanged).unwrap();
        layers.step(&x, &[dy]).unwrap().bits()
    };
    let expected = bits(Isa::Scalar, 1);
    for isa in Isa::available() {
        for threads in 1..=3 {
            assert_eq!(bits(isa, threads), expected, "{isa:?}, {threads} threads");
        }
    }
}
