//! What the tests of this backend share: recipes by name, and the reference's numbers.

use fp8flow_sdk::kernels::{ElementsMut, Fp8, Isa, bf16};
use fp8flow_sdk::{Backend, Host, Options, Quantize, Recipe, ScaleAxis, TensorMut, TensorRef};
use fp8flow_testkit::{Activations, Layers, Values, host};
use serde_json::Value;
use torchao_rowwise::TorchaoRowwise;

pub(crate) const RECIPES: [&str; 3] = ["rowwise", "tensorwise", "rowwise_with_gw_hp"];

pub(crate) fn here() -> Host {
    host(Isa::best(), 2)
}

/// Recipe `name` with its default options, or with scales rounded as `power_of_two` says.
pub(crate) fn recipe_on(host: &Host, name: &str, power_of_two: Option<bool>) -> Box<dyn Recipe> {
    let info = TorchaoRowwise::recipes().into_iter().find(|recipe| recipe.name == name).unwrap();
    let mut options = Options::default();
    for option in info.options {
        options.0.insert(option.name, option.default);
    }
    if let Some(power_of_two) = power_of_two {
        options.0.insert("round_scales_to_power_of_2".into(), power_of_two.into());
    }
    TorchaoRowwise::start(host).unwrap().recipe(host, name, &options).unwrap()
}

pub(crate) fn recipe(name: &str) -> Box<dyn Recipe> {
    recipe_on(&here(), name, None)
}

/// One layer with weights from N(0, 0.02²).
pub(crate) fn layer(name: &str, n: usize, k: usize) -> Layers {
    Layers::new(recipe(name), k, vec![fp8flow_testkit::normal(n * k, 0.02, 7)]).unwrap()
}

pub(crate) fn bits(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

pub(crate) fn bf16s(value: &Value) -> Vec<f32> {
    bits(value).into_iter().map(|bits| bf16::from_bits(bits as u16).to_f32()).collect()
}

/// The inputs of the golden, and the file itself.
pub(crate) struct Golden {
    pub(crate) file: Value,
    pub(crate) x: Values,
    pub(crate) w: Vec<f32>,
    pub(crate) dy: Values,
}

pub(crate) fn golden() -> Golden {
    let file: Value = serde_json::from_str(include_str!("data/torchao-float8.json")).unwrap();
    let size = |name: &str| file[name].as_u64().unwrap() as usize;
    let (m, k, n) = (size("M"), size("K"), size("N"));
    let x = Values::new(Activations::Bf16, m, k, &bf16s(&file["x"]));
    let dy = Values::new(Activations::Bf16, m, n, &bf16s(&file["go"]));
    let w = bf16s(&file["w"]);
    Golden { file, x, w, dy }
}

pub(crate) fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|j| (0..rows).map(move |i| x[i * cols + j])).collect()
}

/// Codes and the bits of the scales, through the backend's primitives.
pub(crate) fn quantize(
    x: TensorRef<'_>,
    format: Fp8,
    axis: ScaleAxis,
    power_of_two: bool,
) -> (Vec<u32>, Vec<u32>) {
    let [rows, cols] = x.shape().try_into().unwrap();
    let (rows, cols) = (rows as usize, cols as usize);
    let scales = match axis {
        ScaleAxis::Row => rows,
        ScaleAxis::Col => cols,
        ScaleAxis::Tensor => 1,
    };
    let mut codes = vec![0xff; rows * cols];
    let mut scales = vec![f32::NAN; scales];
    let host = here();
    let kernels = TorchaoRowwise::start(&host).unwrap().kernels(&host).unwrap();
    let n = scales.len();
    kernels
        .quantize(Quantize {
            x,
            format,
            axis,
            power_of_two,
            codes: TensorMut::codes(&mut codes, format, &[rows, cols]),
            scales: TensorMut::new(ElementsMut::F32(&mut scales), &[n]),
        })
        .unwrap();
    (codes.into_iter().map(u32::from).collect(), scales.into_iter().map(f32::to_bits).collect())
}
