//! Telemetry against what can be seen from outside: through the identity, what was cut off or became zero shows.

use fp8flow_sdk::{Counters, Pass};

use super::{Found, ensure};
use crate::driver::Layers;
use crate::subject::{Subject, here};
use crate::values::Activations::F32;
use crate::values::Values;

/// M, N and K.
const SIDE: usize = 128;

/// An evaluation casts its input once: what it counts of it is what became of it.
pub(crate) fn telemetry_is_what_shows(subject: &Subject<'_>) -> Found {
    let identity: Vec<_> = (0..SIDE * SIDE).map(|i| f32::from(u8::from(i / SIDE == i % SIDE))).collect();
    let mut layers = Layers::new(subject.recipe(&here())?, SIDE, vec![identity])?;
    layers.telemetry = true;
    let ones = Values::new(F32, SIDE, SIDE, &vec![1.0; SIDE * SIDE]);
    for _ in 0..2 {
        layers.step(&ones, std::slice::from_ref(&ones))?;
    }
    // Ordinary numbers; in every row one that is too large for scales of the past, and some too small for any.
    let numbers: Vec<f32> = (0..SIDE * SIDE)
        .map(|i| match (i / SIDE + i) % SIDE {
            0 => 4096.0,
            1..20 => 2.0_f32.powi(-60),
            20..30 => 0.0,
            _ => 1.0,
        })
        .collect();
    let x = Values::new(F32, SIDE, SIDE, &numbers);
    let before = layers.counters(0);
    let (outputs, _) = layers.forward(Pass::Eval, &x)?;
    let after = layers.counters(0);
    let counted = |of: fn(&Counters) -> u64| of(&after) - of(&before);
    let y = outputs[0].to_f32();
    let shown = |became: fn(f32, f32) -> bool| {
        numbers.iter().zip(&y).filter(|(x, y)| became(**x, **y)).count() as u64
    };

    let lost = y.iter().filter(|y| !y.is_finite()).count();
    ensure!(
        lost == 0,
        "{lost} numbers of y are NaN or infinite although those of x are finite: what lies beyond the largest number \
         of the format becomes that number"
    );
    let (elements, cast) = (numbers.len() as u64, counted(|c| c.cast[0]));
    ensure!(
        cast == elements,
        "an evaluation of {elements} numbers added {cast} to Counters::cast[0]: count every element that is cast, once"
    );
    let (zeros, underflowed) = (shown(|x, y| x != 0.0 && y == 0.0), counted(|c| c.underflowed[0]));
    ensure!(
        zeros == underflowed,
        "{zeros} numbers of x became zero, but Counters::underflowed[0] rose by {underflowed}: count what is cast to \
         zero and was not"
    );
    let (cut, saturated) = (shown(|x, y| y != 0.0 && y.abs() < x.abs() / 2.0), counted(|c| c.saturated[0]));
    ensure!(
        cut == saturated,
        "{cut} numbers of x were cut off, but Counters::saturated[0] rose by {saturated}: count what lies beyond the \
         largest number of the format"
    );
    let amax = after.amax[0];
    ensure!(
        amax == 4096.0,
        "the largest magnitude of x was 4096, but Counters::amax[0] is {amax}: note that of the tensor last cast"
    );
    Ok(format!("{zeros} to zero, {cut} cut off"))
}
