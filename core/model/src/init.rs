//! Fresh weights from a seed.

use std::sync::atomic::{AtomicBool, Ordering};

use fp8flow_kernels::philox::Philox;
use fp8flow_kernels::{Cpu, Isa, Parallel};
use fp8flow_tensor::{CardError, Device};

use crate::tasks::for_each;
use crate::{ModelConfig, ModelError, ParameterKind, ParameterSpec, Parameters, parameter_specs};

/// Elements that one task draws; even, since normal numbers come in pairs.
const ELEMENTS_PER_TASK: usize = 1 << 15;

/// Weights as transformers initialises a Llama: matrices, embedding and head normal with standard deviation
/// `initializer_range`, norms one, biases zero.
///
/// An element is a function of the seed, its parameter's name and its place, whatever the number of threads and
/// whatever other parameters there are. (A padding token's row is drawn like any other: no padding enters a batch.)
pub fn initialise(config: &ModelConfig, seed: u64, pool: &dyn Parallel) -> Parameters {
    all(config, seed, pool, &AtomicBool::new(false))
}

/// The same; soon after `stop` is set it ends with [`ModelError::Stopped`].
pub fn initialise_until(
    config: &ModelConfig,
    seed: u64,
    pool: &dyn Parallel,
    stop: &AtomicBool,
) -> Result<Parameters, ModelError> {
    let parameters = all(config, seed, pool, stop);
    if stop.load(Ordering::Relaxed) { Err(ModelError::Stopped) } else { Ok(parameters) }
}

/// The same in the memory of `device`. For a card, numbers are drawn where it copies them from, a few million at a time:
/// no memory of the CPU is taken, and drawing goes on while the card copies.
pub fn initialise_on(config: &ModelConfig, seed: u64, device: &dyn Device) -> Result<Parameters, CardError> {
    let specs = parameter_specs(config);
    let mut parameters = Parameters::zeros_on(device, &specs)?;
    for (spec, tensor) in specs.iter().zip(parameters.tensors_mut()) {
        tensor.set_f32_with(|first, elements| {
            draw(config, seed, device.cpu(), &AtomicBool::new(false), parts(spec, first, elements));
        })?;
    }
    Ok(parameters)
}

/// All of them, or, once `stop` is set, some.
fn all(config: &ModelConfig, seed: u64, pool: &dyn Parallel, stop: &AtomicBool) -> Parameters {
    let mut parameters = Parameters::zeros(&parameter_specs(config));
    let specs = parameters.specs().to_vec();
    let tensors = specs.iter().zip(parameters.tensors_mut());
    let parts = tensors.flat_map(|(spec, tensor)| parts(spec, 0, tensor.f32_mut())).collect();
    draw(config, seed, Cpu::new(Isa::best(), pool), stop, parts);
    parameters
}

/// Elements that are drawn: the parameter's stream, the pair of numbers in it that they start with, and their places.
type Part<'a> = (u64, u64, &'a mut [f32]);

/// What is to be drawn of the elements of a parameter from `first` on, an even number; those that are not are set.
fn parts<'a>(spec: &ParameterSpec, first: usize, elements: &'a mut [f32]) -> Vec<Part<'a>> {
    match spec.kind {
        ParameterKind::Norm => elements.fill(1.0),
        ParameterKind::Bias => elements.fill(0.0),
        ParameterKind::Embedding | ParameterKind::Head | ParameterKind::Matrix => {
            let stream = stream(&spec.name);
            let firsts = (first..).step_by(ELEMENTS_PER_TASK).map(|first| first as u64 / 2);
            let slices = firsts.zip(elements.chunks_mut(ELEMENTS_PER_TASK));
            return slices.map(|(pair, slice)| (stream, pair, slice)).collect();
        }
    }
    Vec::new()
}

fn draw(config: &ModelConfig, seed: u64, cpu: Cpu<'_>, stop: &AtomicBool, parts: Vec<Part<'_>>) {
    let philox = Philox::new(seed, "init");
    let deviation = config.initializer_range as f32;
    for_each(cpu.pool, parts, |(stream, pair, slice)| {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        philox.normals(cpu.isa, stream, pair, slice);
        for element in slice {
            *element *= deviation;
        }
    });
}

/// The stream of random numbers that belongs to a name.
fn stream(name: &str) -> u64 {
    let digest = blake3::hash(name.as_bytes());
    u64::from_le_bytes(std::array::from_fn(|i| digest.as_bytes()[i]))
}
