//! What a recipe gives away to be kept, and what it is given back.

use fp8flow_sdk::{DType, Error, ErrorKind, StateDict, StateTensor};

use super::Found;
use super::protocol::step;
use crate::driver::Layers;
use crate::failure::Failure;
use crate::subject::{Subject, here};

fn state(layers: &Layers) -> Result<StateDict, Failure> {
    layers.recipe().state().map_err(|error| Failure::Call { call: "Recipe::state", error })
}

fn failed(error: Error) -> Failure {
    Failure::Call { call: "Recipe::restore", error }
}

/// A fresh recipe that takes over the state, by way of a file, goes on with the same bits.
pub(crate) fn state_carries_over_a_restart(subject: &Subject<'_>) -> Found {
    let mut first = subject.group()?;
    for i in 0..2 {
        step(&mut first, i)?;
    }
    let given = state(&first)?;
    let written = given.to_safetensors().map_err(|error| Failure::Call { call: "Recipe::state", error })?;
    let read = StateDict::from_safetensors(&written)
        .map_err(|error| Failure::Call { call: "StateDict::from_safetensors", error })?;
    let mut second = subject.group_on(&here())?;
    second.recipe_mut().restore(&read).map_err(failed)?;
    if state(&second)? != given {
        return Err(Failure::Wrong(
            "a recipe that was restored gives away another state than it was given: take back every tensor"
                .into(),
        ));
    }
    let mut twin = subject.group()?;
    for i in 0..2 {
        step(&mut twin, i)?;
    }
    if state(&twin)? != given {
        return Err(Failure::Wrong(
            "two recipes that did the same give away other states: keep no addresses, times or counts of calls there"
                .into(),
        ));
    }
    let expected = [step(&mut first, 2)?, step(&mut first, 3)?];
    // Whatever the state still leads to is gone.
    drop((first, twin));
    for (i, expected) in (2..).zip(&expected) {
        let found = step(&mut second, i)?;
        if let Some(what) = expected.difference(&found) {
            return Err(Failure::Wrong(format!(
                "step {i}: restored, {what} is another: whatever a later step depends on belongs to Recipe::state"
            )));
        }
    }
    Ok(format!("{} tensors of state", given.0.len()))
}

/// State of another run, or none at all, is refused or does no harm.
pub(crate) fn foreign_state_does_no_harm(subject: &Subject<'_>) -> Found {
    let mut used = subject.group()?;
    step(&mut used, 0)?;
    let given = state(&used)?;
    let stranger = StateTensor {
        dtype: DType::F32,
        shape: vec![2],
        bytes: [1.0_f32, 2.0].map(f32::to_le_bytes).concat(),
    };
    let with = |name: &str, tensor: StateTensor| {
        let mut changed = given.clone();
        changed.0.insert(name.to_owned(), tensor);
        changed
    };
    let mut foreign = vec![
        ("nothing at all".to_owned(), StateDict::default()),
        ("a tensor too many".to_owned(), with("a tensor of nobody", stranger)),
    ];
    for (name, tensor) in &given.0 {
        let mut missing = given.clone();
        missing.0.remove(name);
        foreign.push((format!("`{name}` missing"), missing));
        let empty = StateTensor { dtype: tensor.dtype, shape: vec![0], bytes: Vec::new() };
        foreign.push((format!("`{name}` without elements"), with(name, empty)));
        let longer = StateTensor {
            dtype: tensor.dtype,
            shape: [&[2], tensor.shape.as_slice()].concat(),
            bytes: tensor.bytes.repeat(2),
        };
        foreign.push((format!("`{name}` in another shape"), with(name, longer)));
        if tensor.dtype == DType::F32 {
            let half = StateTensor {
                dtype: DType::BF16,
                shape: tensor.shape.clone(),
                bytes: tensor.bytes[..tensor.bytes.len() / 2].to_vec(),
            };
            foreign.push((format!("`{name}` as bf16"), with(name, half)));
            for (what, number) in [("NaN", f32::NAN), ("infinity", f32::INFINITY), ("-1", -1.0)] {
                let bytes = number.to_le_bytes().repeat(tensor.bytes.len() / 4);
                let full = StateTensor { bytes, ..tensor.clone() };
                foreign.push((format!("`{name}` full of {what}"), with(name, full)));
            }
        }
    }
    let mut refused = 0;
    for (what, foreign_state) in &foreign {
        let mut layers = subject.group()?;
        match layers.recipe_mut().restore(foreign_state) {
            Ok(()) => {}
            Err(error) if error.kind != ErrorKind::Panicked => refused += 1,
            Err(error) => return Err(Failure::Wrong(format!("state with {what}: {error}"))),
        }
        // Whether or not it was taken.
        step(&mut layers, 1).map_err(|failure| {
            Failure::Wrong(format!("after state with {what}, a step fails: {failure}; refuse such state"))
        })?;
        state(&layers)?;
    }
    Ok(format!("{refused} of {} refused", foreign.len()))
}
