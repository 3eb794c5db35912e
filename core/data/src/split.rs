//! The held-out part of a dataset.

use fp8flow_kernels::philox::Philox;

use crate::DataError;

/// How much of a dataset is held out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum HeldOut {
    /// Nothing.
    #[default]
    None,
    /// So many examples.
    Count(usize),
    /// A share of the examples, from 0 to below 1; one at least unless it is 0.
    Fraction(f64),
}

impl HeldOut {
    /// Which of `examples` are held out: a function of the seed alone.
    ///
    /// An error if none would be left.
    pub fn choose(self, examples: usize, seed: u64) -> Result<Vec<bool>, DataError> {
        let held_out = match self {
            Self::None => 0,
            Self::Count(count) => count,
            Self::Fraction(fraction) if (0.0..1.0).contains(&fraction) => {
                let share = (fraction * examples as f64).round() as usize;
                if fraction > 0.0 { share.max(1) } else { 0 }
            }
            Self::Fraction(fraction) => return Err(DataError::HeldOutFraction { fraction }),
        };
        if held_out > 0 && held_out >= examples {
            return Err(DataError::HeldOutTakesAll { held_out, examples });
        }
        let mut chosen = vec![false; examples];
        if held_out > 0 {
            for index in &Philox::new(seed, "held-out").permutation(0, examples)[..held_out] {
                chosen[*index] = true;
            }
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(held_out: HeldOut, examples: usize) -> usize {
        held_out.choose(examples, 42).unwrap().into_iter().filter(|&chosen| chosen).count()
    }

    #[test]
    fn a_count_or_a_share_is_held_out() {
        assert_eq!(count(HeldOut::None, 10), 0);
        assert_eq!(count(HeldOut::Count(0), 0), 0);
        assert_eq!(count(HeldOut::Count(200), 3000), 200);
        assert_eq!(count(HeldOut::Fraction(0.0), 10), 0);
        assert_eq!(count(HeldOut::Fraction(0.02), 999), 20);
        assert_eq!(count(HeldOut::Fraction(0.001), 10), 1);
    }

    #[test]
    fn the_choice_depends_on_the_seed_alone() {
        let choose = |seed| HeldOut::Count(20).choose(100, seed).unwrap();
        assert_eq!(choose(1), choose(1));
        assert_ne!(choose(1), choose(2));
    }

    #[test]
    fn nothing_left_to_train_on_is_an_error() {
        for (held_out, examples) in
            [(HeldOut::Count(3), 3), (HeldOut::Fraction(0.9), 2), (HeldOut::Fraction(0.1), 1)]
        {
            let error = held_out.choose(examples, 1).unwrap_err();
            assert!(matches!(error, DataError::HeldOutTakesAll { .. }), "{error}");
        }
        for fraction in [-0.1, 1.0, f64::NAN] {
            assert!(matches!(
                HeldOut::Fraction(fraction).choose(9, 1),
                Err(DataError::HeldOutFraction { .. })
            ));
        }
    }
}
