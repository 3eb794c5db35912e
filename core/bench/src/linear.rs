//! Whole linear layers under recipes of several plugins, on the same shapes: what an author's recipe costs beside others.
//!
//! | case | does | GEMMs |
//! | --- | --- | --- |
//! | `forward` | the cast of the input, `y = x·Wᵀ`; the weight was cast before | 1 |
//! | `backward` | the casts of `dy`, `dx = dy·W`, `dW = dyᵀ·x` | 2 |
//! | `step` | the events of an optimizer step, so that the weight is cast again, forward and backward | 3 |
//!
//! Shapes are `m × k × n` of `x: [m, k]` and `W: [n, k]`; activations are bf16, memory is lent as the engine lends it. A
//! layer by itself has no producer that could cast for it: a recipe that takes ready-made codes is faster in a model.

use fp8flow_kernels::{Buffer, Elements, ElementsMut, bf16};
use fp8flow_sdk::{
    Backward, Event, Forward, Group, LayerFacts, Linear, Memory, Pass, Precision, Recipe, TensorMut,
    TensorRef,
};

use crate::limits::FmaPeak;
use crate::line::{Line, Shape};
use crate::numbers::{normal, normal_bf16};
use crate::{Bench, BenchError, Extent, Fp8, room};

/// `[m, k, n]` where nobody asks for another shape.
pub const SHAPES: [[usize; 3]; 4] = [[64, 256, 256], [512, 512, 512], [512, 1024, 1024], [1024, 1024, 2816]];

/// Measures every case for each of `shapes`, by each of `contenders` in turn, beside the FMA peak.
pub fn linear(
    bench: &Bench<'_>,
    shapes: &[[usize; 3]],
    contenders: &[Fp8],
    show: &mut dyn FnMut(Line),
) -> Result<(), BenchError> {
    let mut peak = FmaPeak::new(bench.cpu());
    bench.limit(&mut peak, show);
    for &[m, k, n] in shapes {
        // The layers of all contenders are there at once.
        room::check((contenders.len() * (8 * (m * k + m * n) + 12 * n * k)) as u64)?;
        let named = Shape { m, k, n: Some(n) };
        let flops = 2.0 * (m * k) as f64 * n as f64;
        let mut layers = Vec::new();
        for fp8 in contenders {
            match Layer::new(fp8, [m, k, n])? {
                Ok(layer) => layers.push((fp8, layer)),
                Err(why) => show(fp8.left_out("step", named, why)),
            }
        }
        for (what, gemms, run) in CASES {
            for (fp8, layer) in &mut layers {
                show(
                    bench.case(what, Extent::Matrix(named), Some(fp8), gemms * flops, &mut peak, || {
                        run(layer)
                    })?,
                );
            }
        }
    }
    Ok(())
}

/// Its name, how many GEMMs it is, and the work.
type Case = (&'static str, f64, fn(&mut Layer) -> Result<(), BenchError>);

const CASES: [Case; 3] =
    [("forward", 1.0, Layer::forward), ("backward", 2.0, Layer::backward), ("step", 3.0, Layer::step)];

/// A layer with all that is lent to it.
struct Layer {
    recipe: Box<dyn Recipe>,
    linear: Box<dyn Linear>,
    shape: [usize; 3],
    memory: Memory,
    x: Vec<bf16>,
    weight: Vec<f32>,
    y: Vec<bf16>,
    dy: Vec<bf16>,
    dx: Vec<bf16>,
    dw: Vec<f32>,
    shared_saved: Buffer,
    shared_forward: Buffer,
    saved: Buffer,
    scratch: Buffer,
}

/// Floats enough for so many bytes.
fn region(bytes: usize) -> Buffer {
    Buffer::take(bytes.div_ceil(4))
}

fn bytes(region: &mut Buffer, len: usize) -> &mut [u8] {
    &mut bytemuck::cast_slice_mut(region)[..len]
}

impl Layer {
    /// A layer after a first step; in words, why the recipe takes no such layer in FP8.
    fn new(fp8: &Fp8, [m, k, n]: [usize; 3]) -> Result<Result<Self, String>, BenchError> {
        let mut recipe = fp8.configured()?;
        let name = "bench".to_owned();
        let facts = LayerFacts {
            device: None,
            name: name.clone(),
            in_features: k,
            out_features: n,
            tokens: Some(m),
            block: Some(0),
            group: vec![name],
        };
        let decision = recipe.decide(&facts);
        recipe.healthy()?;
        if decision.precision == Precision::High {
            return Ok(Err(decision.reason));
        }
        let linear = recipe.linear(&facts)?;
        let memory = linear.memory(m);
        recipe.healthy()?;
        let mut layer = Self {
            recipe,
            linear,
            shape: [m, k, n],
            memory,
            x: normal_bf16(m * k, 0),
            weight: normal(n * k, 1),
            y: vec![bf16::ZERO; m * n],
            dy: normal_bf16(m * n, 2),
            dx: vec![bf16::ZERO; m * k],
            dw: vec![0.0; n * k],
            shared_saved: region(memory.shared_saved),
            shared_forward: region(memory.shared_forward),
            saved: region(memory.saved),
            scratch: region(memory.forward_scratch.max(memory.backward_scratch)),
        };
        layer.step()?;
        Ok(Ok(layer))
    }

    fn forward(&mut self) -> Result<(), BenchError> {
        let [m, k, n] = self.shape;
        self.linear.forward(Forward {
            pass: Pass::Train,
            x: TensorRef::new(Elements::Bf16(&self.x), &[m, k]).into(),
            weight: TensorRef::new(Elements::F32(&self.weight), &[n, k]),
            y: TensorMut::new(ElementsMut::Bf16(&mut self.y), &[m, n]),
            group: Group {
                ready: false,
                saved: bytes(&mut self.shared_saved, self.memory.shared_saved),
                forward: bytes(&mut self.shared_forward, self.memory.shared_forward),
            },
            saved: bytes(&mut self.saved, self.memory.saved),
            scratch: bytes(&mut self.scratch, self.memory.forward_scratch),
            telemetry: false,
        })?;
        Ok(())
    }

    fn backward(&mut self) -> Result<(), BenchError> {
        let [m, k, n] = self.shape;
        let keep_input = self.memory.keep_input;
        self.linear.backward(Backward {
            dy: TensorRef::new(Elements::Bf16(&self.dy), &[m, n]),
            weight: TensorRef::new(Elements::F32(&self.weight), &[n, k]),
            x: keep_input.then(|| TensorRef::new(Elements::Bf16(&self.x), &[m, k])),
            dx: Some(TensorMut::new(ElementsMut::Bf16(&mut self.dx), &[m, k])),
            accumulate_dx: false,
            dw: TensorMut::new(ElementsMut::F32(&mut self.dw), &[n, k]),
            accumulate_dw: false,
            group_saved: bytes(&mut self.shared_saved, self.memory.shared_saved),
            saved: bytes(&mut self.saved, self.memory.saved),
            scratch: bytes(&mut self.scratch, self.memory.backward_scratch),
            telemetry: false,
        })?;
        Ok(())
    }

    fn step(&mut self) -> Result<(), BenchError> {
        self.recipe.on(Event::WeightsChanged)?;
        self.forward()?;
        self.recipe.on(Event::ForwardDone)?;
        self.backward()?;
        self.recipe.on(Event::BackwardDone)?;
        Ok(())
    }
}
