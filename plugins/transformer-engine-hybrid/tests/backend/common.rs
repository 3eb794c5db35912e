//! What the tests share: recipes by name, layers, an exact cast and product to compare with, a look into the state.

use fp8flow_sdk::kernels::{Fp8, Isa};
use fp8flow_sdk::{Backend, Host, Options, Recipe, StateDict};
use fp8flow_testkit::{Activations, Layers, Values, host};
use serde_json::Value;
use transformer_engine_hybrid::TransformerEngineHybrid;

pub(crate) fn here() -> Host {
    host(Isa::best(), 2)
}

/// Recipe `name` with its default options, but for `options`.
pub(crate) fn recipe_on(host: &Host, name: &str, options: &Value) -> Box<dyn Recipe> {
    let info = TransformerEngineHybrid::recipes().into_iter().find(|recipe| recipe.name == name).unwrap();
    let mut all = Options::default();
    for option in info.options {
        all.0.insert(option.name, option.default);
    }
    for (name, value) in options.as_object().unwrap() {
        assert!(all.0.insert(name.clone(), value.clone()).is_some(), "no option {name}");
    }
    TransformerEngineHybrid::start(host).unwrap().recipe(host, name, &all).unwrap()
}

/// Layers of one group, with the given weights.
pub(crate) fn layers(name: &str, options: &Value, in_features: usize, weights: Vec<Vec<f32>>) -> Layers {
    Layers::new(recipe_on(&here(), name, options), in_features, weights).unwrap()
}

/// The identity, so that a layer's output is what its input was cast to.
pub(crate) fn identity(n: usize) -> Vec<f32> {
    (0..n * n).map(|i| f32::from(u8::from(i / n == i % n))).collect()
}

/// `numbers` as f32 activations of `cols` columns.
pub(crate) fn f32s(cols: usize, numbers: &[f32]) -> Values {
    Values::new(Activations::F32, numbers.len() / cols, cols, numbers)
}

/// Every finite number of a format, ascending, with its code.
fn numbers(format: Fp8) -> Vec<(f64, u8)> {
    let mut all: Vec<(f64, u8)> = (0..=255_u8)
        .map(|code| (f64::from(format.decode(code)), code))
        .filter(|&(x, code)| x.is_finite() && code != 0x80)
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all
}

/// The number of `format` nearest to `x`, ties to the even code, beyond the ends the largest: by looking at them all.
pub(crate) fn nearest(format: Fp8, x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let all = numbers(format);
    let x = x.clamp(all[0].0, all[all.len() - 1].0);
    let above = all.partition_point(|&(number, _)| number < x);
    let upper = all[above];
    let lower = if above == 0 { upper } else { all[above - 1] };
    let (to_lower, to_upper) = (x - lower.0, upper.0 - x);
    if to_lower < to_upper || (to_lower == to_upper && lower.1.is_multiple_of(2)) { lower.0 } else { upper.0 }
}

/// What `x` is worth after a cast with `scale`: nearest number of its f32 product, divided by the scale.
pub(crate) fn cast(format: Fp8, x: f32, scale: f32) -> f64 {
    nearest(format, f64::from(x * scale)) / f64::from(scale)
}

/// The largest absolute value.
pub(crate) fn amax(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |amax, x| amax.max(x.abs()))
}

/// Fails where `found` is further from the exact sum of products than their f32 summation allows.
pub(crate) fn assert_product(
    found: &[f32],
    a: &[f64],
    b: &[f64],
    [rows, cols, depth]: [usize; 3],
    what: &str,
) {
    for i in 0..rows {
        for j in 0..cols {
            let terms = (0..depth).map(|k| a[i * depth + k] * b[j * depth + k]);
            let (exact, size) = terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
            let bound = (depth as f64 + 4.0) * size * f64::from(f32::EPSILON);
            let found = f64::from(found[i * cols + j]);
            assert!((found - exact).abs() <= bound, "{what}[{i}, {j}]: {found}, exactly {exact}");
        }
    }
}

pub(crate) fn transposed(x: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    (0..cols).flat_map(|j| (0..rows).map(move |i| x[i * cols + j])).collect()
}

/// A state tensor's numbers.
pub(crate) fn numbers_of(state: &StateDict, name: &str) -> Vec<f32> {
    let tensor = state.0.get(name).unwrap_or_else(|| panic!("no state `{name}` among {:?}", state.0.keys()));
    tensor.bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Scale and history of layer `i`'s tensor `role` (0 input, 1 weight, 2 gradient).
pub(crate) fn slot(layers: &Layers, i: usize, role: usize) -> (f32, Vec<f32>) {
    let state = layers.recipe().state().unwrap();
    let scale = numbers_of(&state, &format!("block.proj_{i}.scale"))[role];
    let history = numbers_of(&state, &format!("block.proj_{i}.amax_history"));
    (scale, history.into_iter().skip(role).step_by(3).collect())
}
