//! Whether one can learn with it: two layers and a ReLU between them, taught by another such network.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fp8flow_sdk::kernels::{Cpu, Elements, ElementsMut, Epilogue, Isa, Matrix, Operand, Serial, Store, gemm};
use fp8flow_sdk::{
    Counters, Decision, Event, LayerFacts, Linear, Pass, Recipe, Result as SdkResult, StateDict,
};

use super::{Found, ensure};
use crate::driver::Layers;
use crate::failure::Failure;
use crate::step::{Gradients, Saved};
use crate::subject::{Subject, here};
use crate::values::Activations::F32;
use crate::values::{Values, normal};

/// Width of all layers: a multiple of every block size in use.
const WIDTH: usize = 128;
const TOKENS: usize = 32;
const STEPS: u64 = 100;
/// The share of its first loss that remains may be larger than that of exact arithmetic by this factor.
const FACTOR: f64 = 1.5;

/// Loss falls about as far as with exact products of the same numbers.
pub(crate) fn a_small_network_learns(subject: &Subject<'_>) -> Found {
    let exact = learn(&mut Exact)?;
    let mut fp8 = Fp8::new(subject)?;
    let found = learn(&mut fp8)?;
    ensure!(
        found.is_finite() && found <= exact * FACTOR,
        "after {STEPS} steps of a small network {:.1} % of the loss are left, with exact products {:.1} %, at most \
         {FACTOR} times as much is due: if the other checks pass, look at what changes after dozens of steps",
        100.0 * found,
        100.0 * exact
    );
    for layers in &fp8.layers {
        let Counters { fprop, dgrad, wgrad, .. } = layers.counters(0);
        let due = layers.decision(0).fp8_gemms.map(|gemms| u64::from(gemms) * STEPS);
        let counted = [fprop, dgrad, wgrad];
        ensure!(
            counted == due,
            "{counted:?} FP8 GEMMs were counted in {STEPS} steps, {due:?} should have run"
        );
    }
    Ok(format!("{:.2} % of the loss left, exactly {:.2} %", 100.0 * found, 100.0 * exact))
}

/// Two layers' products.
trait Products {
    /// `x·Wᵀ` of layer `i`.
    fn forward(&mut self, i: usize, weight: &[f32], x: &[f32]) -> Result<Vec<f32>, Failure>;
    /// `dx` and `dW` of layer `i`, which has just run forward over `x`.
    fn backward(&mut self, i: usize, weight: &[f32], x: &[f32], dy: &[f32])
    -> Result<[Vec<f32>; 2], Failure>;
    /// A point of the protocol.
    fn on(&mut self, event: Event) -> Result<(), Failure>;
}

/// The share of the first loss that is left.
fn learn(products: &mut dyn Products) -> Result<f64, Failure> {
    let deviation = (2.0 / WIDTH as f32).sqrt();
    let weights = |seed| [seed, seed + 1].map(|seed| normal(WIDTH * WIDTH, deviation, seed));
    let (teacher, mut student) = (weights(400), weights(410));
    let mut moments = [0; 2].map(|_| vec![[0.0_f64; 2]; WIDTH * WIDTH]);
    let (mut first, mut last) = (f64::NAN, f64::NAN);
    for step in 0..STEPS {
        let x = normal(TOKENS * WIDTH, 1.0, 500 + step % 8);
        let relu = |x: &[f32]| x.iter().map(|x| x.max(0.0)).collect::<Vec<_>>();
        let target = matmul(&relu(&matmul(&x, &teacher[0])), &teacher[1]);

        let hidden = products.forward(0, &student[0], &x)?;
        let active = relu(&hidden);
        let y = products.forward(1, &student[1], &active)?;
        products.on(Event::ForwardDone)?;
        let errors: Vec<_> = y.iter().zip(&target).map(|(y, target)| y - target).collect();
        last = errors.iter().map(|e| f64::from(e * e)).sum();
        first = if step == 0 { last } else { first };

        let dy: Vec<_> = errors.iter().map(|e| e / errors.len() as f32).collect();
        let [mut d_hidden, dw_1] = products.backward(1, &student[1], &active, &dy)?;
        d_hidden.iter_mut().zip(&hidden).for_each(|(d, h)| *d = if *h > 0.0 { *d } else { 0.0 });
        let [_, dw_0] = products.backward(0, &student[0], &x, &d_hidden)?;
        products.on(Event::BackwardDone)?;
        for ((weight, moments), dw) in student.iter_mut().zip(&mut moments).zip([dw_0, dw_1]) {
            adam(weight, moments, &dw, step);
        }
        products.on(Event::WeightsChanged)?;
    }
    Ok(last / first)
}

fn adam(weight: &mut [f32], moments: &mut [[f64; 2]], dw: &[f32], step: u64) {
    let correction = [0.9_f64, 0.99].map(|beta| 1.0 - beta.powi(step as i32 + 1));
    for ((w, [m, v]), &g) in weight.iter_mut().zip(moments).zip(dw) {
        let g = f64::from(g);
        *m += 0.1 * (g - *m);
        *v += 0.01 * (g * g - *v);
        *w -= (4e-3 * (*m / correction[0]) / ((*v / correction[1]).sqrt() + 1e-12)) as f32;
    }
}

fn matmul(x: &[f32], weight: &[f32]) -> Vec<f32> {
    multiply(Operand::rows(matrix(x)), Operand::rows(matrix(weight)), TOKENS)
}

/// A matrix of [`WIDTH`] columns.
fn matrix(x: &[f32]) -> Matrix<'_> {
    Matrix::new(Elements::F32(x), x.len() / WIDTH, WIDTH)
}

/// `a·bᵀ`, of so many rows.
fn multiply(a: Operand<'_>, b: Operand<'_>, rows: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows * WIDTH];
    let cpu = Cpu::new(Isa::best(), &Serial);
    gemm(&cpu, &a, Epilogue::One, &b, Epilogue::One, Store::Overwrite, ElementsMut::F32(&mut out));
    out
}

struct Exact;

impl Products for Exact {
    fn forward(&mut self, _: usize, weight: &[f32], x: &[f32]) -> Result<Vec<f32>, Failure> {
        Ok(matmul(x, weight))
    }

    fn backward(
        &mut self,
        _: usize,
        weight: &[f32],
        x: &[f32],
        dy: &[f32],
    ) -> Result<[Vec<f32>; 2], Failure> {
        let dx = multiply(Operand::rows(matrix(dy)), Operand::transposed(matrix(weight)), TOKENS);
        Ok([dx, multiply(Operand::transposed(matrix(dy)), Operand::transposed(matrix(x)), WIDTH)])
    }

    fn on(&mut self, _: Event) -> Result<(), Failure> {
        Ok(())
    }
}

/// The recipe, with each layer a group of its own.
struct Fp8 {
    layers: [Layers; 2],
    /// The input and what was saved, from forward to backward.
    kept: [Option<(Values, Saved)>; 2],
}

impl Fp8 {
    fn new(subject: &Subject<'_>) -> Result<Self, Failure> {
        let recipe = Shared(Arc::new(Mutex::new(subject.recipe(&here())?)));
        let layer = |name: &str| {
            let weight = vec![0.0; WIDTH * WIDTH];
            Layers::named(name, Box::new(recipe.clone()), WIDTH, vec![weight])
        };
        Ok(Self { layers: [layer("block.up")?, layer("block.down")?], kept: [None, None] })
    }
}

impl Products for Fp8 {
    fn forward(&mut self, i: usize, weight: &[f32], x: &[f32]) -> Result<Vec<f32>, Failure> {
        self.layers[i].weight_mut(0).copy_from_slice(weight);
        let x = Values::new(F32, TOKENS, WIDTH, x);
        let (outputs, saved) = self.layers[i].forward(Pass::Train, &x)?;
        self.kept[i] = Some((x, saved));
        Ok(outputs[0].to_f32())
    }

    fn backward(&mut self, i: usize, _: &[f32], _: &[f32], dy: &[f32]) -> Result<[Vec<f32>; 2], Failure> {
        let (x, saved) = self.kept[i].take().ok_or_else(|| Failure::Wrong("no forward".into()))?;
        let dy = Values::new(F32, TOKENS, WIDTH, dy);
        let Gradients { dx, dw, .. } = self.layers[i].gradients(0, &saved, &x, &dy)?;
        Ok([dx.as_ref().map(Values::to_f32).unwrap_or_default(), dw])
    }

    fn on(&mut self, event: Event) -> Result<(), Failure> {
        self.layers[0].on(event)
    }
}

/// One recipe in several hands.
#[derive(Clone)]
struct Shared(Arc<Mutex<Box<dyn Recipe>>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Box<dyn Recipe>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recipe for Shared {
    fn describe(&self) -> serde_json::Value {
        self.lock().describe()
    }

    fn decide(&self, layer: &LayerFacts) -> Decision {
        self.lock().decide(layer)
    }

    fn linear(&mut self, layer: &LayerFacts) -> SdkResult<Box<dyn Linear>> {
        self.lock().linear(layer)
    }

    fn on(&mut self, event: Event) -> SdkResult<()> {
        self.lock().on(event)
    }

    fn state(&self) -> SdkResult<StateDict> {
        self.lock().state()
    }

    fn restore(&mut self, state: &StateDict) -> SdkResult<()> {
        self.lock().restore(state)
    }

    fn healthy(&self) -> SdkResult<()> {
        self.lock().healthy()
    }
}
