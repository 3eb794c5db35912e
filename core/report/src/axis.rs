//! Axes: from values to places, with round numbers on the way.

/// Where values are logarithmic: from this ratio of the largest to the smallest.
const LOGARITHMIC: f64 = 100.0;

/// An axis.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    pub(crate) logarithmic: bool,
    /// Values with what is written at them.
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Of steps, from the first to the last, with about so many ticks.
    pub(crate) fn of_steps((first, last): (f64, f64), ticks: usize) -> Self {
        if first > last {
            return Self::of_steps((0.0, 1.0), ticks);
        }
        let high = last.max(first + 1.0);
        Self::linear(first, high, round_step((high - first) / ticks as f64).max(1.0))
    }

    /// Of values between `low` and `high`; `from_zero` where their size is what counts.
    pub(crate) fn of_values((low, high): (f64, f64), from_zero: bool) -> Self {
        if low > high {
            return Self::linear(0.0, 1.0, 0.5);
        }
        if !from_zero && low > 0.0 && high / low >= LOGARITHMIC {
            return Self::logarithmic(low, high);
        }
        let room = ((high - low) * 0.04).max(high.abs() * 1e-3).max(1e-9);
        // What comes near zero is seen to come near zero.
        let near = low >= 0.0 && (from_zero || low < 0.3 * high);
        let low = if near { 0.0 } else { low - room };
        let high = high + room;
        Self::linear(low, high, round_step((high - low) / 5.0))
    }

    fn linear(low: f64, high: f64, step: f64) -> Self {
        let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
        let ticks = (first..=last).map(|n| (n as f64 * step, number(n as f64 * step, step)));
        Self { low, high, logarithmic: false, ticks: ticks.collect() }
    }

    fn logarithmic(low: f64, high: f64) -> Self {
        let (low, high) = (low / 1.2, high * 1.2);
        let (first, last) = (low.log10().ceil() as i32, high.log10().floor() as i32);
        let every = (last - first) / 7 + 1;
        let powers = (first..=last).filter(|power| power.rem_euclid(every) == 0);
        let ticks = powers.map(|power| (10_f64.powi(power), number(10_f64.powi(power), 10_f64.powi(power))));
        Self { low, high, logarithmic: true, ticks: ticks.collect() }
    }

    /// Where `value` lies, from 0 to 1.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let place = if self.logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        place.clamp(0.0, 1.0)
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|n| n * power)
        .into_iter()
        .find(|round| *round >= step * 0.999)
        .unwrap_or(10.0 * power)
}

/// `value`, a multiple of `step`, in as few digits as tell it from its neighbours.
fn number(value: f64, step: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if value.abs() >= 1e7 || step < 0.9e-4 {
        let digits = (value.abs().log10().floor() - step.log10().floor()).max(0.0) as usize;
        let text = format!("{value:.digits$e}");
        let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
        let mantissa = if mantissa.contains('.') {
            mantissa.trim_end_matches('0').trim_end_matches('.')
        } else {
            mantissa
        };
        return format!("{mantissa}e{power}");
    }
    let decimals = (-(step * 1.001).log10().floor()).max(0.0) as usize;
    grouped(&format!("{value:.decimals$}"))
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: &str) -> String {
    let (sign, number) = number.strip_prefix('-').map_or(("", number), |rest| ("−", rest));
    let whole = number.find('.').unwrap_or(number.len());
    let mut text = sign.to_owned();
    for (at, digit) in number.char_indices() {
        if at > 0 && at < whole && (whole - at).is_multiple_of(3) && whole > 4 {
            text.push('\u{a0}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_and_lie_within() {
        assert_eq!(
            labels(&Axis::of_steps((1.0, 400.0), 8)),
            ["50", "100", "150", "200", "250", "300", "350", "400"]
        );
        assert_eq!(labels(&Axis::of_steps((1.0, 1e6), 4)), ["500\u{a0}000", "1\u{a0}000\u{a0}000"]);
        assert_eq!(labels(&Axis::of_steps((7.0, 7.0), 8)), ["7", "8"]);
        assert_eq!(labels(&Axis::of_values((1.7, 2.3), false)), ["1.8", "2.0", "2.2"]);
        assert_eq!(labels(&Axis::of_values((0.0, 5e-5), false)), ["0", "2e-5", "4e-5"]);
        assert_eq!(labels(&Axis::of_values((7e-4, 5.9), false)), ["0.001", "0.01", "0.1", "1"]);
        assert_eq!(
            labels(&Axis::of_values((20.0, 24_000.0), true)),
            ["0", "5000", "10\u{a0}000", "15\u{a0}000", "20\u{a0}000"]
        );
        assert_eq!(labels(&Axis::of_values((-3.0, -1.0), false)), ["−3.0", "−2.5", "−2.0", "−1.5", "−1.0"]);
    }

    #[test]
    fn places_run_from_0_to_1_and_stay_there() {
        for axis in [Axis::of_values((7e-4, 5.9), false), Axis::of_values((-1.0, 1.0), false)] {
            assert_eq!((axis.place(f64::NEG_INFINITY), axis.place(1e300)), (0.0, 1.0));
            assert!(axis.ticks.windows(2).all(|pair| axis.place(pair[0].0) < axis.place(pair[1].0)));
        }
        // Nothing, and one value alone, are axes too.
        assert!(Axis::of_values((f64::INFINITY, f64::NEG_INFINITY), false).place(0.5) == 0.5);
        assert!(!Axis::of_values((2.0, 2.0), false).ticks.is_empty());
        assert!(!Axis::of_values((0.0, 0.0), true).ticks.is_empty());
    }
}
