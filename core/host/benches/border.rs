//! What it costs to cross the border, and to open it. `cargo bench -p fp8flow-host`

// As in tests: what fails here is seen by whoever runs it.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;

use divan::{Bencher, black_box};
use fp8flow_host::{Origin, Place, Plugin, Pool, Search, Services, check_options};
use fp8flow_kernels::{Elements, ElementsMut, Isa, Parallel as _};
use fp8flow_sdk::{Forward, Group, Host, LayerFacts, Linear, Pass, Recipe, TensorMut, TensorRef};

fn main() {
    divan::main();
}

fn host(threads: usize) -> Host {
    Services::new(Isa::best(), Arc::new(Pool::new(threads).unwrap()), Arc::default()).host()
}

fn search() -> Search {
    let path = PathBuf::from(std::env::current_exe().unwrap().parent().unwrap());
    Search::in_places(vec![Place { origin: Origin::Executable, path }])
}

fn plugin(name: &str) -> Plugin {
    search().find(name).unwrap().open(&host(2)).unwrap()
}

fn recipe(plugin: &Plugin, name: &str) -> Box<dyn Recipe> {
    let options = check_options(plugin.recipe_info(name).unwrap(), &serde_json::Map::new()).unwrap();
    plugin.recipe(name, &options).unwrap()
}

fn facts() -> LayerFacts {
    LayerFacts {
        device: None,
        name: "model.layers.0.mlp.up_proj".into(),
        in_features: 64,
        out_features: 64,
        tokens: Some(64),
        block: Some(0),
        group: Vec::new(),
    }
}

fn layer() -> Box<dyn Linear> {
    recipe(&plugin("torchao-rowwise"), "rowwise").linear(&facts()).unwrap()
}

/// A call with tensors and regions, in which the plugin has nothing to do.
#[divan::bench]
fn forward_of_no_tokens(bencher: Bencher) {
    let mut layer = layer();
    let weight = vec![0.0_f32; 64 * 64];
    bencher.bench_local(|| {
        layer
            .forward(Forward {
                pass: Pass::Eval,
                x: TensorRef::new(Elements::F32(&[]), &[0, 64]).into(),
                weight: TensorRef::new(Elements::F32(&weight), &[64, 64]),
                y: TensorMut::new(ElementsMut::F32(&mut []), &[0, 64]),
                group: Group { ready: false, saved: &mut [], forward: &mut [] },
                saved: &mut [],
                scratch: &mut [],
                telemetry: false,
            })
            .unwrap();
    });
}

/// A call that answers in JSON.
#[divan::bench]
fn memory(bencher: Bencher) {
    let layer = layer();
    bencher.bench_local(|| black_box(layer.memory(black_box(64))));
}

#[divan::bench]
fn counters(bencher: Bencher) {
    let layer = layer();
    bencher.bench_local(|| black_box(layer.counters()));
}

#[divan::bench]
fn decide(bencher: Bencher) {
    let recipe = recipe(&plugin("torchao-rowwise"), "rowwise");
    bencher.bench_local(|| black_box(recipe.decide(&facts())));
}

/// A loop of eight empty tasks on the engine's pool.
#[divan::bench(args = [1, 2, 4])]
fn pool_of_threads(bencher: Bencher, threads: usize) {
    let pool = Pool::new(threads).unwrap();
    bencher.bench_local(|| pool.run(8, &|task| drop(black_box(Box::new(task)))));
}

/// Looking a plugin up beside the executable, its digest included.
#[divan::bench]
fn find(bencher: Bencher) {
    let search = search();
    bencher.bench_local(|| search.find("torchao-rowwise").unwrap());
}

/// Starting a plugin that is open.
#[divan::bench]
fn start(bencher: Bencher) {
    let found = search().find("torchao-rowwise").unwrap();
    let host = host(2);
    bencher.bench_local(|| found.open(&host).unwrap());
}
