//! Numeric evidence that a recipe computes in FP8: counters can lie, rounding errors cannot.
//!
//! A small layer is run with operands of which one at a time holds numbers that FP8 must round, while the other is ±1,
//! which every format and every scale rule holds exactly. The deviation of the product from the exact one is then the
//! rounding of that operand alone: about 31 dB for e4m3, 25 dB for e5m2. An operand that was multiplied in bf16 or f32
//! shows as 55 dB and more, a broken product as few or none.
//!
//! All operands have 1 as their largest magnitude in every step, so that scales which are made from the past fit.

use std::fmt;

use fp8flow_sdk::{Counters, Decision, Event, Precision, Recipe};

use crate::driver::{Layers, facts};
use crate::failure::Failure;
use crate::reference::{Reference, snr_db};
use crate::values::Activations::Bf16;
use crate::values::{Values, normal};

/// Signal-to-noise in dB of a product that has one operand in FP8. Below, something is wrong; above, it was not FP8.
pub const FP8_DB: (f64, f64) = (14.0, 45.0);

/// Rows of the input.
const TOKENS: usize = 64;
/// K and N of the layer: the first that the recipe takes in FP8.
pub const SHAPES: [[usize; 2]; 4] = [[128, 64], [128, 128], [256, 256], [1024, 1024]];
/// Steps before anything is measured: they fill whatever history scales are made from.
const WARM_UP: u64 = 2;
/// The products of a layer, each with its two operands.
const PRODUCTS: [(&str, [Operand; 2]); 3] = [
    ("y", [Operand::X, Operand::Weight]),
    ("dx", [Operand::Dy, Operand::Weight]),
    ("dW", [Operand::Dy, Operand::X]),
];

/// An operand of a layer's products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The input.
    X,
    /// The weight.
    Weight,
    /// The gradient of the output.
    Dy,
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X => "x",
            Self::Weight => "W",
            Self::Dy => "dy",
        })
    }
}

/// What a challenge has found.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// K and N of the layer.
    pub shape: [usize; 2],
    /// What the recipe decided for it.
    pub decision: Decision,
    /// What the layer counted.
    pub counters: Counters,
    /// Micro-batches it ran, each one forward and one backward.
    pub micro_batches: u64,
    /// Signal-to-noise in dB of `y = x·Wᵀ`, `dx = dy·W` and `dW = dyᵀ·x`, with the first and the second operand
    /// holding what FP8 must round.
    pub db: [[f64; 2]; 3],
}

/// Why the evidence speaks against a recipe.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Objection {
    /// It counted other FP8 GEMMs than it had decided to run.
    #[error(
        "{planned:?} FP8 GEMMs (fprop, dgrad, wgrad) were due in {micro_batches} micro-batches of a layer that it decides as FP8, it counted {counted:?}"
    )]
    Counted {
        /// By its own decision.
        planned: [u64; 3],
        /// By its counters.
        counted: [u64; 3],
        /// How many ran.
        micro_batches: u64,
    },
    /// A product that was to be in FP8 is more exact than FP8 can be.
    #[error(
        "{product} has a signal-to-noise ratio of {db:.0} dB although FP8 cannot hold {operand} ({} to {} dB): it is computed in high precision, not in FP8",
        FP8_DB.0, FP8_DB.1
    )]
    HighPrecision {
        /// `y`, `dx` or `dW`.
        product: &'static str,
        /// The operand that was not cast.
        operand: Operand,
        /// What was measured.
        db: f64,
    },
    /// A product is less exact than its precision allows.
    #[error(
        "{product} is wrong: its signal-to-noise ratio is {db:.0} dB with {operand} rounded, at least {least} are due"
    )]
    Wrong {
        /// `y`, `dx` or `dW`.
        product: &'static str,
        /// The operand it was measured with.
        operand: Operand,
        /// What was measured.
        db: f64,
        /// The least that its precision gives.
        least: f64,
    },
}

impl Evidence {
    /// Whether decision, counters and arithmetic agree.
    pub fn verdict(&self) -> Result<(), Objection> {
        let Counters { fprop, dgrad, wgrad, .. } = self.counters;
        let (micro_batches, counted) = (self.micro_batches, [fprop, dgrad, wgrad]);
        let planned = self.decision.fp8_gemms.map(|gemms| u64::from(gemms) * micro_batches);
        if planned != counted || planned == [0; 3] {
            return Err(Objection::Counted { planned, counted, micro_batches });
        }
        let (low, high) = FP8_DB;
        for (i, (product, operands)) in PRODUCTS.into_iter().enumerate() {
            let fp8 = self.decision.fp8_gemms[i] != 0;
            let least = if fp8 { low } else { high };
            for (operand, db) in operands.into_iter().zip(self.db[i]) {
                // Written so that a NaN is wrong.
                if db.is_nan() || db < least {
                    return Err(Objection::Wrong { product, operand, db, least });
                }
                if fp8 && db > high {
                    return Err(Objection::HighPrecision { product, operand, db });
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (product, _)) in PRODUCTS.into_iter().enumerate() {
            let [a, b] = self.db[i];
            write!(f, "{}{product} {:.1} dB", if i == 0 { "" } else { ", " }, a.min(b))?;
        }
        Ok(())
    }
}

/// Runs a small layer under `recipe`, which must be fresh, and measures what it computes. Takes milliseconds.
///
/// An error if a call fails or writes out of bounds, or if the recipe takes no layer in FP8.
pub fn challenge(recipe: Box<dyn Recipe>) -> Result<Evidence, Failure> {
    challenge_with(recipe, &SHAPES)
}

/// [`challenge()`] with a layer of the first of `shapes`, K and N, that the recipe takes in FP8.
pub fn challenge_with(recipe: Box<dyn Recipe>, shapes: &[[usize; 2]]) -> Result<Evidence, Failure> {
    let [k, n] = shape(&*recipe, shapes)?;
    let mut layers = Layers::new(recipe, k, vec![numbers(n * k, None)])?;
    for _ in 0..WARM_UP {
        step(&mut layers, [k, n], None)?;
    }
    let mut db = [[f64::NAN; 2]; 3];
    for rounded in [Operand::X, Operand::Weight, Operand::Dy] {
        let found = step(&mut layers, [k, n], Some(rounded))?;
        for ((db, found), (_, operands)) in db.iter_mut().zip(found).zip(PRODUCTS) {
            for (db, _) in db.iter_mut().zip(operands).filter(|(_, operand)| *operand == rounded) {
                *db = found;
            }
        }
    }
    let evidence = Evidence {
        shape: [k, n],
        decision: layers.decision(0).clone(),
        counters: layers.counters(0),
        micro_batches: WARM_UP + 3,
        db,
    };
    // Counters and decisions have no error in their signature; a plugin that failed to tell them says so here.
    layers.recipe().healthy().map_err(|error| Failure::Call { call: "Recipe::healthy", error })?;
    Ok(evidence)
}

/// K and N of the first layer that the recipe takes in FP8.
fn shape(recipe: &dyn Recipe, shapes: &[[usize; 2]]) -> Result<[usize; 2], Failure> {
    let mut reason = String::new();
    for &[k, n] in shapes {
        let decision = recipe.decide(&facts(0, 1, k, n));
        if decision.precision == Precision::Fp8 {
            return Ok([k, n]);
        }
        reason = decision.reason;
    }
    recipe.healthy().map_err(|error| Failure::Call { call: "Recipe::decide", error })?;
    Err(Failure::Wrong(format!("it takes no layer of {shapes:?} inputs and outputs in FP8: {reason}")))
}

/// One step with `rounded` holding numbers that FP8 must round; the signal-to-noise of y, dx and dW.
fn step(layers: &mut Layers, [k, n]: [usize; 2], rounded: Option<Operand>) -> Result<[f64; 3], Failure> {
    let numbers = |operand: Operand, len| numbers(len, (rounded == Some(operand)).then_some(operand));
    let x = Values::new(Bf16, TOKENS, k, &numbers(Operand::X, TOKENS * k));
    let dy = Values::new(Bf16, TOKENS, n, &numbers(Operand::Dy, TOKENS * n));
    layers.weight_mut(0).copy_from_slice(&numbers(Operand::Weight, n * k));
    layers.on(Event::WeightsChanged)?;
    let step = layers.step(&x, std::slice::from_ref(&dy))?;
    let exact = Reference::new(&x.to_f32(), layers.weight(0), &dy.to_f32(), k);
    let (y, gradients) = (&step.outputs[0], &step.gradients[0]);
    let dx = gradients.dx.as_ref().map(Values::to_f32).unwrap_or_default();
    Ok([snr_db(&exact.y, &y.to_f32()), snr_db(&exact.dx, &dx), snr_db(&exact.dw, &gradients.dw)])
}

/// Signs, which FP8 holds exactly; or numbers within ±1, which it must round. 1 is among them either way.
fn numbers(len: usize, rounded: Option<Operand>) -> Vec<f32> {
    let mut numbers = normal(len, 0.25, rounded.map_or(700, |operand| 701 + operand as u64));
    for x in &mut numbers {
        *x = if rounded.is_some() { x.clamp(-1.0, 1.0) } else { 1.0_f32.copysign(*x) };
    }
    if let Some(first) = numbers.first_mut() {
        *first = 1.0;
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(fp8_gemms: [u8; 3], db: [[f64; 2]; 3]) -> Evidence {
        let decision = Decision { precision: Precision::Fp8, reason: String::new(), fp8_gemms };
        let [fprop, dgrad, wgrad] = fp8_gemms.map(|gemms| 5 * u64::from(gemms));
        let counters = Counters { fprop, dgrad, wgrad, ..Counters::default() };
        Evidence { shape: [128, 64], decision, counters, micro_batches: 5, db }
    }

    const FP8: [f64; 2] = [31.0, 25.0];
    const HIGH: [f64; 2] = [58.0, f64::INFINITY];

    #[test]
    fn each_product_must_lie_in_the_band_of_its_precision() {
        assert_eq!(evidence([1, 1, 1], [FP8; 3]).verdict(), Ok(()));
        assert_eq!(evidence([1, 1, 0], [FP8, FP8, HIGH]).verdict(), Ok(()));
        let lies = evidence([1, 1, 1], [FP8, [31.0, 58.0], FP8]).verdict().unwrap_err().to_string();
        assert!(
            lies.contains("dx has") && lies.contains("58 dB") && lies.contains("cannot hold W"),
            "{lies}"
        );
        for broken in [[3.0, 31.0], [f64::NAN, 31.0], [-2.0, 31.0]] {
            let error = evidence([1, 1, 1], [broken, FP8, FP8]).verdict().unwrap_err();
            assert!(matches!(error, Objection::Wrong { product: "y", operand: Operand::X, .. }), "{error}");
        }
        let error = evidence([1, 1, 0], [FP8; 3]).verdict().unwrap_err();
        assert!(matches!(error, Objection::Wrong { product: "dW", .. }), "{error}");
    }

    #[test]
    fn counters_must_be_those_of_the_decision() {
        let mut silent = evidence([1, 1, 1], [FP8; 3]);
        silent.counters = Counters::default();
        let error = silent.verdict().unwrap_err().to_string();
        assert!(error.contains("[5, 5, 5]") && error.contains("counted [0, 0, 0]"), "{error}");
        assert!(evidence([0, 0, 0], [HIGH; 3]).verdict().is_err(), "an FP8 layer without an FP8 GEMM");
    }

    #[test]
    fn operands_have_one_as_their_largest_magnitude() {
        for rounded in [None, Some(Operand::X), Some(Operand::Weight), Some(Operand::Dy)] {
            let numbers = numbers(8192, rounded);
            assert_eq!(numbers.iter().fold(0.0, |most: f32, x| most.max(x.abs())), 1.0);
            assert_eq!(numbers.iter().all(|x| x.abs() == 1.0), rounded.is_none());
        }
    }
}
