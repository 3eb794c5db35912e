//! Telemetry against what can be seen from outside: through the identity, what was cut off or became zero shows.

use fp8flow_sdk::{Counters, Event, Pass};

use super::{Found, ensure};
use crate::driver::Layers;
use crate::failure::Failure;
use crate::step::Gradients;
use crate::subject::{Subject, here};
use crate::values::Activations::F32;
use crate::values::Values;

/// M, N and K.
const SIDE: usize = 128;
const LARGEST: f32 = 4096.0;
const TENSORS: [&str; 3] = ["x", "W", "dy"];

/// What one cast of x, of W and of dy adds to the counters is what became of it.
pub(crate) fn telemetry_is_what_shows(subject: &Subject<'_>) -> Found {
    let numbers = numbers();
    let x = matrix(&numbers);
    let mut found = Vec::new();

    // An evaluation casts its input once.
    let mut layers = warmed_up(subject)?;
    let [fprop, dgrad, wgrad] = layers.decision(0).fp8_gemms.map(|gemms| gemms == 1);
    if fprop {
        let before = layers.counters(0);
        let (y, _) = layers.forward(Pass::Eval, &x)?;
        found.push(compare(0, &numbers, &y[0].to_f32(), &before, &layers.counters(0))?);

        let mut layers = warmed_up(subject)?;
        layers.weight_mut(0).copy_from_slice(&numbers);
        layers.on(Event::WeightsChanged)?;
        let before = layers.counters(0);
        let (y, _) = layers.forward(Pass::Eval, &matrix(&identity()))?;
        found.push(compare(1, &numbers, &transposed(&y[0].to_f32()), &before, &layers.counters(0))?);
    }
    if dgrad || wgrad {
        let mut layers = warmed_up(subject)?;
        let input = matrix(&identity());
        let (_, saved) = layers.forward(Pass::Train, &input)?;
        let before = layers.counters(0);
        // The weight and the input are the identity; one product shows what the gradient became.
        let mut gradients = Gradients {
            dx: (!wgrad).then(|| Values::unwritten(F32, SIDE, SIDE)),
            dw: vec![f32::NAN; SIDE * SIDE],
            accumulate_dx: false,
            accumulate_dw: false,
        };
        layers.backward(0, &saved, &input, &x, &mut gradients)?;
        let shown = gradients.dx.map_or_else(|| transposed(&gradients.dw), |dx| dx.to_f32());
        found.push(compare(2, &numbers, &shown, &before, &layers.counters(0))?);
    }
    Ok(found.join("; "))
}

/// Layers whose scales, where they come from the past, were made from ones.
fn warmed_up(subject: &Subject<'_>) -> Result<Layers, Failure> {
    let mut layers = Layers::new(subject.recipe(&here())?, SIDE, vec![identity()])?;
    layers.telemetry = true;
    let ones = matrix(&vec![1.0; SIDE * SIDE]);
    for _ in 0..2 {
        layers.step(&ones, std::slice::from_ref(&ones))?;
    }
    Ok(layers)
}

/// Ordinary numbers; in every row and column one that is too large for scales of the past, and some too small for any.
fn numbers() -> Vec<f32> {
    let number = |i: usize| match (i / SIDE + i) % SIDE {
        0 => LARGEST,
        1..20 => 2.0_f32.powi(-60),
        20..30 => 0.0,
        _ => 1.0,
    };
    (0..SIDE * SIDE).map(number).collect()
}

fn matrix(numbers: &[f32]) -> Values {
    Values::new(F32, SIDE, SIDE, numbers)
}

fn identity() -> Vec<f32> {
    (0..SIDE * SIDE).map(|i| f32::from(u8::from(i / SIDE == i % SIDE))).collect()
}

fn transposed(x: &[f32]) -> Vec<f32> {
    (0..SIDE * SIDE).map(|i| x[i % SIDE * SIDE + i / SIDE]).collect()
}

/// What `numbers` became in tensor `i`, against what was counted in between.
fn compare(i: usize, numbers: &[f32], shown: &[f32], before: &Counters, after: &Counters) -> Found {
    let tensor = TENSORS[i];
    let counted = |of: fn(&Counters) -> [u64; 3]| of(after)[i].wrapping_sub(of(before)[i]);
    let count = |became: fn(f32, f32) -> bool| {
        numbers.iter().zip(shown).filter(|(x, y)| became(**x, **y)).count() as u64
    };

    let lost = shown.iter().filter(|y| !y.is_finite()).count();
    ensure!(
        lost == 0,
        "{lost} numbers are NaN or infinite although those of {tensor} are finite: what lies beyond the largest number \
         of the format becomes that number"
    );
    let (elements, cast) = (numbers.len() as u64, counted(|c| c.cast));
    // A weight or a gradient may be cast by row and by column.
    let times = if i > 0 && cast == 2 * elements { 2 } else { 1 };
    ensure!(
        cast == times * elements,
        "a cast of the {elements} numbers of {tensor} added {cast} to Counters::cast[{i}]: count every element that is \
         cast, once"
    );
    let (zeros, underflowed) = (count(|x, y| x != 0.0 && y == 0.0), counted(|c| c.underflowed));
    ensure!(
        times * zeros == underflowed,
        "{zeros} numbers of {tensor} became zero, but Counters::underflowed[{i}] rose by {underflowed}: count what is \
         cast to zero and was not"
    );
    let (cut, saturated) = (count(|x, y| y != 0.0 && y.abs() < x.abs() / 2.0), counted(|c| c.saturated));
    ensure!(
        times * cut == saturated,
        "{cut} numbers of {tensor} were cut off, but Counters::saturated[{i}] rose by {saturated}: count what lies \
         beyond the largest number of the format"
    );
    let amax = after.amax[i];
    ensure!(
        amax == f64::from(LARGEST),
        "the largest magnitude of {tensor} was {LARGEST}, but Counters::amax[{i}] is {amax}: note that of the tensor \
         last cast"
    );
    Ok(format!("{tensor}: {zeros} to zero, {cut} cut off"))
}
