//! Repeats of a case and their median, with samples of the limit between them.
//!
//! A case is measured in rounds: a sample of the limit, then repeats for about 30 ms (or one repeat, if that takes longer),
//! and so on, with one more sample at the end. A sample lasts as long as a repeat, so that both are kept waiting alike by
//! whoever else uses the machine. Both sides are medians over the same seconds, and the share of a case is the one divided
//! by the other.

use std::time::Instant;

use crate::BenchError;
use crate::limits::Limit;
use crate::line::Rate;

/// How often a case is repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repeats {
    /// At least 7 times and for half a second, but not for more than 3 seconds once it was repeated at all.
    #[default]
    Enough,
    /// So many times.
    Exactly(usize),
}

impl Repeats {
    /// Whether `repeats` that took so many seconds will do.
    pub(crate) fn done(self, repeats: usize, seconds: f64) -> bool {
        match self {
            Self::Enough => repeats >= 7 && seconds >= 0.5 || repeats > 0 && seconds >= 3.0,
            Self::Exactly(wanted) => repeats >= wanted.max(1),
        }
    }
}

/// Seconds between two samples of the limit.
const ROUND: f64 = 0.03;

/// What a case has taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Seconds of a call.
    pub(crate) seconds: f64,
    /// The limit in the meantime.
    pub(crate) limit: f64,
}

impl Measured {
    /// The rate of calls that do `work` each, and its share of the limit.
    pub(crate) fn rate(self, work: f64, limit: &dyn Limit) -> (Rate, f64) {
        let rate = work / self.seconds / 1e9;
        (Rate(rate, limit.unit()), share(rate, self.limit))
    }
}

/// Which part of `limit` is `rate`; both in the same unit.
pub fn share(rate: f64, limit: f64) -> f64 {
    rate / limit
}

/// Seconds of a sample of the limit beside something that takes so many.
pub(crate) fn beside(seconds: f64) -> f64 {
    seconds.clamp(5e-3, 0.25)
}

/// Measures `call`, which is warmed up by a call that does not count.
pub(crate) fn measure(
    repeats: Repeats,
    limit: &mut dyn Limit,
    mut call: impl FnMut() -> Result<(), BenchError>,
) -> Result<Measured, BenchError> {
    let mut timed = || {
        let began = Instant::now();
        call()?;
        Ok::<_, BenchError>(began.elapsed().as_secs_f64())
    };
    let mut latest = timed()?;
    let (mut seconds, mut limits) = (Vec::new(), vec![limit.sample(beside(latest)).0]);
    let mut spent = 0.0;
    while !repeats.done(seconds.len(), spent) {
        let mut round = 0.0;
        // The sample has left its own data in the caches; a call of a round's length fetches its own in no time.
        if latest < ROUND {
            timed()?;
        }
        while round < ROUND && !repeats.done(seconds.len(), spent) {
            latest = timed()?;
            seconds.push(latest);
            round += latest;
            spent += latest;
        }
        limits.push(limit.sample(beside(latest)).0);
    }
    Ok(Measured { seconds: median(seconds), limit: median(limits) })
}

/// The middle of `numbers`, or the mean of the two in the middle; 0 of none.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => 0.0,
        len if len % 2 == 1 => numbers[middle],
        _ => f64::midpoint(numbers[middle - 1], numbers[middle]),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::line::Unit;

    /// A limit of 1, 2, 3, …
    struct Rising(f64);

    impl Limit for Rising {
        fn name(&self) -> &'static str {
            "rising"
        }
        fn unit(&self) -> Unit {
            Unit::Gflops
        }
        fn sample(&mut self, _: f64) -> Rate {
            self.0 += 1.0;
            Rate(self.0, self.unit())
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        for (numbers, middle) in [
            (vec![], 0.0),
            (vec![3.0], 3.0),
            (vec![9.0, 1.0], 5.0),
            (vec![5.0, 1.0, 3.0], 3.0),
            (vec![4.0, 1.0, 100.0, 2.0], 3.0),
        ] {
            assert_eq!(median(numbers.clone()), middle, "{numbers:?}");
        }
    }

    #[test]
    fn a_share_is_of_the_limit_in_the_meantime() {
        let measured = Measured { seconds: 0.5, limit: 40.0 };
        let (rate, share) = measured.rate(10e9, &Rising(0.0));
        assert_eq!((rate, share), (Rate(20.0, Unit::Gflops), 0.5));
    }

    #[test]
    fn limits_are_sampled_before_between_and_after_the_repeats() {
        let (mut calls, mut limit) = (0, Rising(0.0));
        let measured = measure(Repeats::Exactly(3), &mut limit, || {
            calls += 1;
            std::thread::sleep(Duration::from_millis(31));
            Ok(())
        });
        let measured = measured.expect("nothing fails");
        assert_eq!((calls, limit.0), (4, 4.0), "one to warm up, three in a round each");
        assert!(measured.seconds >= 0.031 && measured.limit == 2.5, "{measured:?}");

        let (mut calls, mut limit) = (0, Rising(0.0));
        let quick = measure(Repeats::Exactly(5), &mut limit, || {
            calls += 1;
            Ok(())
        });
        quick.expect("nothing fails");
        assert_eq!((calls, limit.0), (7, 2.0), "one to warm up, one in the only round, five that count");
    }

    #[test]
    fn it_is_enough_after_seven_repeats_and_half_a_second_or_after_three_seconds() {
        let done = |repeats, seconds| Repeats::Enough.done(repeats, seconds);
        assert_eq!([done(6, 0.9), done(7, 0.4), done(7, 0.5)], [false, false, true]);
        assert_eq!([done(0, 9.0), done(1, 2.9), done(1, 3.0)], [false, false, true]);
        assert!(!Repeats::Exactly(0).done(0, 9.0) && Repeats::Exactly(2).done(2, 0.0));
    }
}
