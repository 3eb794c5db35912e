//! What must hold of every trainable parameter, or it is silently not trained: it is in the optimizer exactly once, it
//! receives a gradient, and it moves as soon as an update is large enough for its f32 master to show it.
//!
//! Checked anew in every process, and until each parameter has moved once. It costs one look at every gradient.

use std::fmt;

use fp8flow_model::{ModelConfig, ParameterKind, ParameterSpec, Parameters, parameter_specs};
use fp8flow_tensor::inspect::{count_bits, elements_at, largest_of_stretches};
use fp8flow_tensor::{AdamW, CardError, DType, Device, Tensor};

use crate::TrainError;
use crate::error::few;

/// How a parameter is not trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untrained {
    /// It is not among what the optimizer steps, more than once, or with another shape.
    NotOnce,
    /// No operation has written, or added to, its gradient.
    NoGradient,
    /// The optimizer left it as it was.
    NotMoved,
    /// The optimizer moved it, but not by what AdamW prescribes.
    MovedElsewhere,
}

impl fmt::Display for Untrained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOnce => "must be in the optimizer exactly once, with the model's shape; this is a bug",
            Self::NoGradient => {
                "no gradient was written, so nothing would train it; the backend or the device left it out"
            }
            Self::NotMoved => {
                "did not move although its update is above the resolution of f32; this is a bug"
            }
            Self::MovedElsewhere => {
                "did not move by what AdamW prescribes, as if it were in the optimizer twice; this is a bug"
            }
        })
    }
}

/// Fails unless `sets` (the masters, their moments) hold every parameter of `config` exactly once, in one order.
pub(crate) fn all_there_once(config: &ModelConfig, sets: [&Parameters; 3]) -> Result<(), TrainError> {
    let specs = parameter_specs(config);
    let of_kind = |kind| specs.iter().filter(move |spec| spec.kind == kind);
    // Tied weights are one parameter; the head of others is one of its own.
    let heads = usize::from(!config.tied);
    let head =
        of_kind(ParameterKind::Head).count() == heads && of_kind(ParameterKind::Embedding).count() == 1;
    let mut wrong: Vec<String> = specs
        .iter()
        .enumerate()
        .filter(|(i, spec)| !sets.iter().all(|set| is_once(set, *i, spec)))
        .map(|(_, spec)| spec.name.clone())
        .collect();
    let foreign = sets.iter().flat_map(|set| set.specs().iter().skip(specs.len()));
    wrong.extend(foreign.map(|spec| spec.name.clone()));
    if !head {
        wrong.extend(of_kind(ParameterKind::Head).map(|spec| spec.name.clone()));
    }
    wrong.dedup();
    untrained(1, wrong, Untrained::NotOnce)
}

fn is_once(set: &Parameters, i: usize, spec: &ParameterSpec) -> bool {
    let named = set.specs().iter().filter(|other| other.name == spec.name).count();
    let tensor = set.tensors().get(i);
    named == 1
        && set.specs().get(i) == Some(spec)
        && tensor.is_some_and(|x| x.dtype() == DType::F32 && x.rows() * x.cols() == spec.len())
}

fn untrained(step: u64, parameters: Vec<String>, why: Untrained) -> Result<(), TrainError> {
    if parameters.is_empty() { Ok(()) } else { Err(TrainError::Untrained { step, parameters, why }) }
}

/// A NaN that no operation makes: it stands where nothing was written.
const POISON: u32 = 0x7fc0_f8f8;

/// Fills what a micro-batch must overwrite, so that what it leaves out shows. (What only gains is cleared to −0 by the
/// decoder, which does the same.)
pub(crate) fn poison(device: &dyn Device, gradients: &mut Parameters) {
    for i in 0..gradients.specs().len() {
        if gradients.specs()[i].kind == ParameterKind::Matrix {
            device.fill(&mut gradients.tensors_mut()[i], f32::from_bits(POISON));
        }
    }
}

/// Fails if a micro-batch with targets has left a gradient, or a part of a weight's, as it was.
pub(crate) fn all_received(step: u64, gradients: &Parameters) -> Result<(), TrainError> {
    let mut left_out = Vec::new();
    for (spec, gradient) in gradients.iter() {
        let left = if spec.kind == ParameterKind::Matrix {
            count_bits(gradient, POISON)? > 0
        } else {
            // Rows of tokens that do not occur stay as they were; somewhere something was added.
            !spec.is_empty() && count_bits(gradient, (-0.0_f32).to_bits())? == spec.len()
        };
        if left {
            left_out.push(spec.name.clone());
        }
    }
    untrained(step, left_out, Untrained::NoGradient)
}

/// Watches each parameter until it has moved.
#[derive(Debug)]
pub(crate) struct Movement {
    waiting: Vec<Waiting>,
    stuck: Vec<usize>,
    elsewhere: Vec<usize>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    moved: bool,
    /// Whether any of its gradients was other than zero.
    pulled: bool,
}

/// An element before a step, and where AdamW takes it.
#[derive(Debug)]
pub(crate) struct Probe {
    index: usize,
    before: f32,
    update: f64,
}

/// Elements of a parameter that are looked at.
const PROBES: usize = 64;

impl Movement {
    /// Nothing of `parameters` has moved.
    pub(crate) fn new(parameters: usize) -> Self {
        Self { waiting: vec![Waiting::default(); parameters], stuck: Vec::new(), elsewhere: Vec::new() }
    }

    /// Elements of parameter `i` to look at again after `step`: in each stretch of it, that of the largest gradient.
    /// `tensors` are weight, gradient and both moments.
    pub(crate) fn before(
        &mut self,
        i: usize,
        step: &AdamW,
        tensors: [&Tensor; 4],
    ) -> Result<Vec<Probe>, CardError> {
        if self.waiting[i].moved {
            return Ok(Vec::new());
        }
        let [weight, gradient, m, v] = tensors;
        let stretch = (gradient.rows() * gradient.cols()).div_ceil(PROBES).max(1);
        let places = largest_of_stretches(gradient, stretch)?;
        let [weight, gradient, m, v] = [weight, gradient, m, v].map(|tensor| elements_at(tensor, &places));
        let (weight, gradient, m, v) = (weight?, gradient?, m?, v?);
        self.waiting[i].pulled |= gradient.iter().any(|x| *x != 0.0);
        let probe = |(at, &index): (usize, &usize)| {
            let update = update(step, weight[at], gradient[at], m[at], v[at]);
            Probe { index, before: weight[at], update }
        };
        Ok(places.iter().enumerate().map(probe).collect())
    }

    /// Looks at parameter `i` again.
    pub(crate) fn after(&mut self, i: usize, probes: &[Probe], weight: &Tensor) -> Result<(), CardError> {
        if probes.is_empty() {
            return Ok(());
        }
        let places: Vec<usize> = probes.iter().map(|probe| probe.index).collect();
        let found = elements_at(weight, &places)?;
        let seen = || probes.iter().zip(&found);
        let could = || seen().filter(|(probe, _)| probe.must_move());
        if seen().any(|(probe, now)| now.to_bits() != probe.before.to_bits()) {
            self.waiting[i].moved = true;
            if could().any(|(probe, now)| !probe.arrived(*now)) {
                self.elsewhere.push(i);
            }
        } else if could().next().is_some() {
            self.stuck.push(i);
        }
        Ok(())
    }

    /// Fails if a parameter was found not to move as it should.
    pub(crate) fn verdict(&self, step: u64, specs: &[ParameterSpec]) -> Result<(), TrainError> {
        let names = |which: &[usize]| which.iter().map(|&i| specs[i].name.clone()).collect();
        untrained(step, names(&self.stuck), Untrained::NotMoved)?;
        untrained(step, names(&self.elsewhere), Untrained::MovedElsewhere)
    }

    /// Which parameters have not moved, for each reason that there is.
    pub(crate) fn unmoved(&self, specs: &[ParameterSpec]) -> Vec<String> {
        let reasons = [
            (false, "every gradient was zero"),
            (true, "every update was below the resolution of f32; raise the learning rate"),
        ];
        let said = reasons.into_iter().filter_map(|(pulled, why)| {
            let still = |waiting: &Waiting| !waiting.moved && waiting.pulled == pulled;
            let unmoved = specs.iter().zip(&self.waiting).filter(|(_, waiting)| still(waiting));
            let names: Vec<String> = unmoved.map(|(spec, _)| format!("`{}`", spec.name)).collect();
            (!names.is_empty()).then(|| format!("{}: {why}", few(names.into_iter(), ", ")))
        });
        said.collect()
    }
}

impl Probe {
    /// Whether the step is large enough to show: more than one unit in the last place, twice what rounding needs, so
    /// that the rounding of the update itself cannot hide it.
    fn must_move(&self) -> bool {
        let (update, there) = (self.update.abs(), f64::from(self.before) + self.update);
        // What overflows is a divergence, which is found and named as one.
        let lands = there.abs() < f64::from(f32::MAX);
        lands && update > unit(self.before) && update > f64::from(f32::MIN_POSITIVE)
    }

    fn arrived(&self, now: f32) -> bool {
        let off = f64::from(now) - f64::from(self.before) - self.update;
        off.abs() <= 0.1 * self.update.abs() + 2.0 * unit(self.before.abs().max(now.abs()))
    }
}

/// The distance to the next larger magnitude.
fn unit(x: f32) -> f64 {
    f64::from(x.abs().next_up()) - f64::from(x.abs())
}

/// What AdamW adds to a weight: the arithmetic of the device's, up to the last addition.
fn update(step: &AdamW, weight: f32, gradient: f32, m: f32, v: f32) -> f64 {
    let gradient = gradient * step.grad_scale;
    let m = m + (1.0 - step.beta1) * (gradient - m);
    let v = v * step.beta2 + (1.0 - step.beta2) * (gradient * gradient);
    let denominator = v.sqrt() / step.bias_correction2.sqrt() + step.eps;
    let pull = step.lr / step.bias_correction1 * (m / denominator);
    let keep = 1.0 - step.lr * step.weight_decay;
    f64::from(weight) * (f64::from(keep) - 1.0) - f64::from(pull)
}
