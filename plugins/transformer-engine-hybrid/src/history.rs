//! The history of a tensor's absolute maxima, and the scale made from it: Transformer Engine's fused update
//! (`delayed_scaling.cu`), which is what runs for `max` and `most_recent`.

/// How the maximum is taken from the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmaxAlgorithm {
    /// The largest of the window.
    Max,
    /// The newest.
    MostRecent,
}

impl AmaxAlgorithm {
    /// Transformer Engine's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Max => "max",
            Self::MostRecent => "most_recent",
        }
    }
}

/// How a scale is made: what is the same for all slots of a format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleUpdate {
    /// What the scaled maximum becomes: the format's largest number times `2^-margin`.
    pub target: f32,
    /// How the maximum is taken.
    pub algorithm: AmaxAlgorithm,
}

impl ScaleUpdate {
    /// `target / amax`: one f32 division, at most `f32::MAX`; none from 0, infinity or NaN.
    pub fn scale(self, amax: f32) -> Option<f32> {
        (amax > 0.0 && amax.is_finite()).then(|| (self.target / amax).min(f32::MAX))
    }
}

/// One update: `history[0]` is the maximum noted since the last one, then come the others, oldest first.
///
/// Without a maximum nothing happens at all. With one, the window is the whole history including it and the entry it
/// pushes out; then the history moves up by one, and `scale` becomes [`ScaleUpdate::scale`] of the maximum. An infinite
/// one leaves the scale as it is for as long as it is in the window. NaN is passed over, as by CUDA's `fmaxf`. Returns
/// whether the scale was made anew.
pub fn update(history: &mut [f32], scale: &mut f32, rule: ScaleUpdate) -> bool {
    let newest = history[0];
    let mut amax = 0.0_f32;
    // Equal to 0 also where the cast saw zeros only: Transformer Engine cannot tell, and neither do we.
    if newest != 0.0 {
        history.rotate_left(1);
        // `f32::max` returns the other operand for NaN.
        amax = history.iter().fold(amax, |amax, &entry| amax.max(entry));
        // The newest has moved to the end; the oldest makes room for the next.
        history[0] = 0.0;
    }
    if rule.algorithm == AmaxAlgorithm::MostRecent {
        amax = newest;
    }
    rule.scale(amax).is_some_and(|made| {
        *scale = made;
        true
    })
}

/// `history` as one of `length` entries: the newest are kept, older ones that never were are 0.
pub fn resized(history: &[f32], length: usize) -> Vec<f32> {
    let mut resized = vec![0.0; length];
    let kept = length.min(history.len()).saturating_sub(1);
    resized[length - kept..].copy_from_slice(&history[history.len() - kept..]);
    if let (Some(to), Some(from)) = (resized.first_mut(), history.first()) {
        *to = *from;
    }
    resized
}

#[cfg(test)]
mod tests {
    use super::*;

    const E4M3: ScaleUpdate = ScaleUpdate { target: 448.0, algorithm: AmaxAlgorithm::Max };

    /// Notes `amax` and updates; as the cast does, a maximum is combined with what was noted before.
    fn note(history: &mut [f32], scale: &mut f32, amax: f32, rule: ScaleUpdate) -> bool {
        history[0] = history[0].max(amax);
        update(history, scale, rule)
    }

    #[test]
    fn the_golden_table_of_the_specification() {
        let inf = f32::INFINITY;
        #[rustfmt::skip]
        let table = [
            (2.0, 1.0, 224.0, [0.0, 0.0, 0.0, 2.0]),
            (4.0, 224.0, 112.0, [0.0, 0.0, 2.0, 4.0]),
            (8.0, 112.0, 56.0, [0.0, 2.0, 4.0, 8.0]),
            (1.0, 56.0, 56.0, [0.0, 4.0, 8.0, 1.0]),
            (1.0, 56.0, 56.0, [0.0, 8.0, 1.0, 1.0]),
            (1.0, 56.0, 56.0, [0.0, 1.0, 1.0, 1.0]),
            (1.0, 56.0, 448.0, [0.0, 1.0, 1.0, 1.0]),
            (0.0, 448.0, 448.0, [0.0, 1.0, 1.0, 1.0]),
            (0.5, 448.0, 448.0, [0.0, 1.0, 1.0, 0.5]),
            (inf, 448.0, 448.0, [0.0, 1.0, 0.5, inf]),
            (0.5, 448.0, 448.0, [0.0, 0.5, inf, 0.5]),
            (0.5, 448.0, 448.0, [0.0, inf, 0.5, 0.5]),
            (0.5, 448.0, 448.0, [0.0, 0.5, 0.5, 0.5]),
            (0.5, 448.0, 896.0, [0.0, 0.5, 0.5, 0.5]),
            (1e-38, 896.0, 896.0, [0.0, 0.5, 0.5, 1e-38]),
            (1e-38, 896.0, 896.0, [0.0, 0.5, 1e-38, 1e-38]),
            (1e-38, 896.0, 896.0, [0.0, 1e-38, 1e-38, 1e-38]),
            (1e-38, 896.0, f32::MAX, [0.0, 1e-38, 1e-38, 1e-38]),
        ];
        let (mut history, mut scale) = ([0.0; 4], 1.0);
        for (i, (amax, used, after, expected)) in table.into_iter().enumerate() {
            assert_eq!(scale, used, "scale used in line {i}");
            note(&mut history, &mut scale, amax, E4M3);
            assert_eq!((scale, history), (after, expected), "line {i}");
        }
    }

    #[test]
    fn an_infinity_freezes_the_scale_for_exactly_the_length_of_the_history() {
        for length in [1, 2, 4, 16, 31] {
            let (mut history, mut scale) = (vec![0.0; length], 1.0);
            note(&mut history, &mut scale, 2.0, E4M3);
            assert!(!note(&mut history, &mut scale, f32::INFINITY, E4M3));
            let frozen = (1..100).take_while(|_| !note(&mut history, &mut scale, 1.0, E4M3)).count() + 1;
            assert_eq!(frozen, length);
            assert_eq!(scale, 448.0);
        }
    }

    #[test]
    fn without_a_maximum_nothing_moves() {
        let (mut history, mut scale) = ([0.0, 1.0, 2.0, 3.0], 7.0);
        for algorithm in [AmaxAlgorithm::Max, AmaxAlgorithm::MostRecent] {
            assert!(!update(&mut history, &mut scale, ScaleUpdate { algorithm, ..E4M3 }));
            assert_eq!((history, scale), ([0.0, 1.0, 2.0, 3.0], 7.0));
        }
    }

    #[test]
    fn nan_in_a_history_is_passed_over() {
        let (mut history, mut scale) = ([f32::NAN, 0.0, f32::NAN, 2.0], 1.0);
        assert!(update(&mut history, &mut scale, E4M3));
        assert_eq!(scale, 224.0);
        assert_eq!(history[2], 2.0);
        assert!(history[3].is_nan());
    }

    #[test]
    fn the_most_recent_maximum_is_taken_alone() {
        let rule = ScaleUpdate { algorithm: AmaxAlgorithm::MostRecent, ..E4M3 };
        let (mut history, mut scale) = ([0.0; 4], 1.0);
        for (amax, expected) in
            [(8.0, 56.0), (1.0, 448.0), (0.0, 448.0), (f32::INFINITY, 448.0), (2.0, 224.0)]
        {
            note(&mut history, &mut scale, amax, rule);
            assert_eq!(scale, expected, "after {amax}");
        }
    }

    #[test]
    fn a_history_of_one_is_the_most_recent_maximum() {
        let (mut history, mut scale) = ([0.0], 1.0);
        for (amax, expected) in [(8.0, 56.0), (1.0, 448.0)] {
            assert!(note(&mut history, &mut scale, amax, E4M3));
            assert_eq!((scale, history), (expected, [0.0]));
        }
    }

    /// The division is IEEE's: not `fp8_max · (1 / amax)`.
    #[test]
    fn the_scale_is_one_correctly_rounded_division() {
        let mut random = 1_u32;
        for _ in 0..10_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let amax = f32::from_bits((random >> 1) % 0x7f80_0000);
            if amax == 0.0 {
                continue;
            }
            let (mut history, mut scale) = ([amax, 0.0], 1.0);
            update(&mut history, &mut scale, E4M3);
            // Rounding a quotient of f64 to f32 is the correctly rounded f32 quotient: 53 ≥ 2·24 + 2.
            let exact = ((448.0_f64 / f64::from(amax)) as f32).min(f32::MAX);
            assert_eq!(scale, exact, "amax {amax:e}");
        }
    }

    #[test]
    fn another_length_keeps_the_newest_entries() {
        let history = [0.0, 1.0, 2.0, 3.0];
        assert_eq!(resized(&history, 4), history);
        assert_eq!(resized(&history, 3), [0.0, 2.0, 3.0]);
        assert_eq!(resized(&history, 1), [0.0]);
        assert_eq!(resized(&history, 6), [0.0, 0.0, 0.0, 1.0, 2.0, 3.0]);
        assert_eq!(resized(&[5.0, 1.0], 3), [5.0, 0.0, 1.0], "what was noted since the last update stays");
        assert_eq!(resized(&[0.0], 2), [0.0, 0.0]);
    }
}
