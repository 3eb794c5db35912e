//! Where numbers go when they are cast: seen through a product with the identity, which leaves them as they are.
//!
//! Every row, every column and every sixteen neighbours have 1 as their largest magnitude, so that any rule gives one
//! scale, whatever shares it.

use fp8flow_sdk::Event;
use fp8flow_sdk::kernels::philox::Philox;

use super::{Found, ensure};
use crate::driver::Layers;
use crate::elsewhere::ORDER;
use crate::failure::Failure;
use crate::reference::snr_db;
use crate::step::Step;
use crate::subject::{Subject, here, input, output_gradients};
use crate::values::Activations::{Bf16, F32};
use crate::values::Values;

/// M, N and K.
const SIDE: usize = 128;
/// What shares a maximum at least.
const NEIGHBOURS: usize = 16;
const WARM_UP: usize = 2;
/// In dB: e4m3 lies above, e5m2 below.
const BETWEEN_FORMATS: f64 = 28.5;
/// Below, numbers are subnormal or zero in some format.
const ORDINARY: f32 = 1.0 / 256.0;

/// A square matrix, row by row.
type Square = Vec<f32>;

/// Numbers of many magnitudes: half of them from 2⁻⁸ to 1, the others down to 2⁻³⁶, where e5m2 has nothing left.
fn numbers(seed: u64) -> Square {
    let random = Philox::new(seed, "rounding");
    with_maxima((0..(SIDE * SIDE) as u64).map(|i| {
        let [exponent, mantissa, sign, deep] = random.words(0, i);
        let exponent = if deep % 2 == 0 { 1 + exponent % 8 } else { 9 + exponent % 28 };
        let magnitude = (1.0 + f64::from(mantissa) / 4_294_967_296.0) * 0.5_f64.powi(exponent as i32);
        (if sign % 2 == 0 { magnitude } else { -magnitude }) as f32
    }))
}

/// These numbers, 1 where a maximum is due.
fn with_maxima(numbers: impl Iterator<Item = f32>) -> Square {
    let is_maximum = |i: usize| (i / SIDE) % NEIGHBOURS == i % NEIGHBOURS;
    numbers.enumerate().map(|(i, x)| if is_maximum(i) { 1.0_f32.copysign(x) } else { x }).collect()
}

fn identity() -> Square {
    (0..SIDE * SIDE).map(|i| f32::from(u8::from(i / SIDE == i % SIDE))).collect()
}

fn transposed(x: &[f32]) -> Square {
    (0..SIDE * SIDE).map(|i| x[i % SIDE * SIDE + i / SIDE]).collect()
}

/// y, dx and dW of a step.
fn products(layers: &mut Layers, x: &[f32], weight: &[f32], dy: &[f32]) -> Result<[Square; 3], Failure> {
    layers.weight_mut(0).copy_from_slice(weight);
    layers.on(Event::WeightsChanged)?;
    let step = layers.step(&Values::new(F32, SIDE, SIDE, x), &[Values::new(F32, SIDE, SIDE, dy)])?;
    let dx = step.gradients[0].dx.as_ref().map(Values::to_f32).unwrap_or_default();
    Ok([step.outputs[0].to_f32(), dx, step.gradients[0].dw.clone()])
}

/// What the ones of the identity become as x, W and dy: mostly 1, but a recipe may leave room above its maxima.
///
/// Each product shows the two of its operands. With a GEMM in high precision there are too few to tell, and 1 it is.
fn gains(layers: &mut Layers) -> Result<[f64; 3], Failure> {
    let one = identity();
    let shown = products(layers, &one, &one, &one)?;
    if layers.decision(0).fp8_gemms.contains(&0) {
        return Ok([1.0; 3]);
    }
    let [y, dx, dw] = shown.map(|product| f64::from(product[0]));
    Ok([(y * dw / dx).sqrt(), (y * dx / dw).sqrt(), (dx * dw / y).sqrt()])
}

/// One cast: its name, which product shows it, and whether transposed.
struct View {
    name: &'static str,
    product: usize,
    turned: bool,
}

/// Which operands hold numbers while the third is the identity, and where they show.
const VIEWS: [([bool; 3], [View; 2]); 3] = [
    (
        [true, false, true],
        [
            View { name: "x in fprop", product: 0, turned: false },
            View { name: "dy in dgrad", product: 1, turned: false },
        ],
    ),
    (
        [false, true, true],
        [
            View { name: "W in fprop", product: 0, turned: true },
            View { name: "dy in wgrad", product: 2, turned: true },
        ],
    ),
    (
        [true, true, false],
        [
            View { name: "W in dgrad", product: 1, turned: false },
            View { name: "x in wgrad", product: 2, turned: false },
        ],
    ),
];

/// Every number becomes the nearest of those that are seen at all, and of two equally near ones the even.
pub(crate) fn numbers_go_to_the_nearest(subject: &Subject<'_>) -> Found {
    let mut shown = Vec::new();
    for (full, views) in VIEWS {
        let mut layers = Layers::new(subject.recipe(&here())?, SIDE, vec![identity()])?;
        let fp8 = layers.decision(0).fp8_gemms;
        let operands = |data: &dyn Fn(usize) -> Square| {
            [0, 1, 2].map(|operand| if full[operand] { data(operand) } else { identity() })
        };
        // The same maxima each time, so that scales of the past fit.
        let random = operands(&|operand| numbers(operand as u64));
        let [x, weight, dy] = &random;
        for _ in 0..WARM_UP {
            products(&mut layers, x, weight, dy)?;
        }
        let gains = gains(&mut layers)?;
        // The third operand is the identity.
        let gain = full.iter().zip(gains).find(|(full, _)| !**full).map_or(1.0, |(_, gain)| gain);
        let found = products(&mut layers, x, weight, dy)?;
        for View { name, product, turned } in views {
            if fp8[product] == 0 {
                continue;
            }
            let exact = &random[operand(name)];
            let see = |product: &[f32]| -> Square {
                let product = if turned { transposed(product) } else { product.to_vec() };
                product.iter().map(|&x| (f64::from(x) / gain) as f32).collect()
            };
            let seen = see(&found[product]);
            let grid = grid(&seen);
            nearest(name, exact, &seen, &grid)?;
            let ties = ties(&grid);
            if !ties.is_empty() {
                let halves = with_maxima(ties.iter().copied().cycle().take(SIDE * SIDE));
                let again = operands(&|other| {
                    if other == operand(name) { halves.clone() } else { random[other].clone() }
                });
                let seen = see(&products(&mut layers, &again[0], &again[1], &again[2])?[product]);
                nearest(name, &halves, &seen, &grid)?;
                even(name, &halves, &seen, &ties)?;
            }
            let ordinary = exact.iter().zip(&seen).filter(|(x, _)| (ORDINARY..1.0).contains(&x.abs()));
            let (exact, seen): (Vec<_>, Vec<_>) = ordinary.map(|(&x, &y)| (f64::from(x), y)).unzip();
            let db = snr_db(&exact, &seen);
            let format = if db > BETWEEN_FORMATS { "e4m3" } else { "e5m2" };
            shown.push(format!("{name} {db:.1} dB as {format}"));
        }
    }
    ensure!(!shown.is_empty(), "no operand of any GEMM is cast to FP8");
    Ok(shown.join(", "))
}

/// The place among x, W and dy.
fn operand(name: &str) -> usize {
    match name.as_bytes()[0] {
        b'x' => 0,
        b'W' => 1,
        _ => 2,
    }
}

/// The magnitudes that were seen, in ascending order, 0 among them.
fn grid(seen: &[f32]) -> Vec<f32> {
    let mut grid: Vec<_> = seen.iter().map(|x| x.abs()).filter(|x| x.is_finite()).chain([0.0]).collect();
    grid.sort_unstable_by(f32::total_cmp);
    // A factor may have been rounded on its way.
    grid.dedup_by(|b, a| *b <= *a * (1.0 + 1e-6));
    grid
}

fn nearest(name: &str, exact: &[f32], seen: &[f32], grid: &[f32]) -> Result<(), Failure> {
    for (&x, &y) in exact.iter().zip(seen) {
        let above = grid.partition_point(|&g| g < x.abs());
        let near = grid[above.saturating_sub(1)..].iter().take(2);
        let best = near.map(|g| (x.abs() - g).abs()).fold(f32::INFINITY, f32::min);
        let off = (x - y).abs();
        ensure!(
            off <= best * (1.0 + 1e-5) + x.abs() * 1e-6,
            "{name}: {x:e} became {y:e} although a number only {best:e} away is one the format has: round to \
             nearest, once, from the exact product of number and scale"
        );
    }
    Ok(())
}

/// The numbers halfway between neighbours, where they can be had exactly: scales are powers of two.
fn ties(grid: &[f32]) -> Vec<f32> {
    let few_bits = |g: f32| g.to_bits().trailing_zeros() >= 16;
    // Further down, neighbours may be missing by chance.
    let upper: Vec<_> = grid.iter().copied().filter(|&g| g >= 1.0 / 32.0).collect();
    if !upper.iter().all(|&g| few_bits(g)) {
        return Vec::new();
    }
    upper.windows(2).map(|pair| f32::midpoint(pair[0], pair[1])).collect()
}

/// Of neighbouring ties one goes up and the other down: codes are even and odd in turn.
fn even(name: &str, halves: &[f32], seen: &[f32], ties: &[f32]) -> Result<(), Failure> {
    let went_up = |tie: f32| {
        let mut at = halves.iter().zip(seen).filter(|(half, _)| **half == tie);
        at.next().map(|(_, y)| *y > tie)
    };
    for pair in ties.windows(2) {
        if let (Some(lower), Some(upper)) = (went_up(pair[0]), went_up(pair[1])) {
            ensure!(
                lower != upper,
                "{name}: {:e} and {:e}, each halfway between two numbers of the format, both go {}: ties go to the \
                 number with the even code",
                pair[0],
                pair[1],
                if lower { "up" } else { "down" }
            );
        }
    }
    Ok(())
}

/// What a step gives in bf16 is what it gives in f32, rounded to nearest; and in f32 it has more digits.
pub(crate) fn results_are_rounded_once(subject: &Subject<'_>) -> Found {
    const TOKENS: usize = 24;
    let wide = |narrow: &Values| Values::new(F32, narrow.rows(), narrow.cols(), &narrow.to_f32());
    let (mut of_rounded, mut of_exact) = (subject.group()?, subject.group()?);
    let mut both = |seed| -> Result<_, Failure> {
        let (x, dys) = (input(Bf16, TOKENS, seed), output_gradients(Bf16, TOKENS, seed));
        let rounded = of_rounded.step(&x, &dys)?;
        Ok((rounded, of_exact.step(&wide(&x), &dys.iter().map(wide).collect::<Vec<_>>())?))
    };
    for i in 0..WARM_UP as u64 {
        both(i)?;
    }
    let (rounded, exact) = both(9)?;
    let of = |step: &Step, i: usize| {
        let dx = step.gradients[i].dx.as_ref().map(Values::to_f32).unwrap_or_default();
        [("y", step.outputs[i].to_f32()), ("dx", dx)]
    };
    // A little for sums in another order: on a card, one for a result in bf16 is another product.
    let order = if subject.on_card() { ORDER } else { 1e-5 };
    for i in 0..exact.outputs.len() {
        for ((product, exact), (_, rounded)) in of(&exact, i).into_iter().zip(of(&rounded, i)) {
            let largest = exact.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            let short = exact.iter().filter(|x| x.to_bits().trailing_zeros() >= 16).count();
            ensure!(
                2 * short <= exact.len(),
                "{product} of layer {i}: {short} of {} results in f32 have no more digits than bf16 has: round to the \
                 type of the result only",
                exact.len()
            );
            for (&exact, &found) in exact.iter().zip(&rounded) {
                // Half of what lies between neighbours in bf16.
                let half = f32::from_bits(exact.to_bits() & 0x7f80_0000) / 256.0;
                let off = (exact - found).abs();
                ensure!(
                    off <= half * 1.001 + largest * order,
                    "{product} of layer {i}: {exact:e} in f32 is {found:e} in bf16, {off:e} away: round the f32 sum once, \
                     to nearest"
                );
            }
        }
    }
    Ok(format!("{} layers", exact.outputs.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_columns_and_neighbours_share_their_maximum() {
        let numbers = numbers(1);
        let largest =
            |numbers: &mut dyn Iterator<Item = f32>| numbers.fold(0.0_f32, |most, x| most.max(x.abs()));
        for i in 0..SIDE {
            assert_eq!(largest(&mut (0..SIDE).map(|j| numbers[j * SIDE + i])), 1.0);
            for block in numbers[i * SIDE..][..SIDE].chunks(NEIGHBOURS) {
                assert_eq!(largest(&mut block.iter().copied()), 1.0);
            }
        }
    }
}
