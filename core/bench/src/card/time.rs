//! Seconds of a call on a card: by events in its stream, around batches of calls.
//!
//! An event costs microseconds, and asking for a launch does too. So a batch is as many calls as take ten milliseconds;
//! they are asked for while the card works on those before. The first call compiles and warms up, the second tells how
//! long a batch is to be, a first batch brings clocks and caches to where they stay. None of these count.

use fp8flow_cuda::{Card, Error, Event, Result};

use crate::sample::{Repeats, median};

/// Milliseconds of a batch, unless one call takes longer.
const BATCH_MS: f64 = 10.0;
/// Most calls of a batch: a stream takes only so many before asking waits.
const MOST: f64 = 500.0;

/// Seconds of a call, by the median of batches; `call` is told how many were before it.
pub(super) fn time(card: &Card, repeats: Repeats, mut call: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    let (start, end) = (Event::new(card)?, Event::new(card)?);
    let mut called = 0;
    let mut batch = |calls: usize| {
        start.record()?;
        for _ in 0..calls {
            call(called)?;
            called += 1;
        }
        end.record()?;
        let ms = f64::from(end.since_ms(&start)?);
        Ok::<_, Error>(ms / 1e3)
    };
    batch(1)?;
    let calls = calls(1e3 * batch(1)?);
    if repeats == Repeats::Enough {
        batch(calls)?;
    }
    let (mut seconds, mut spent) = (Vec::new(), 0.0);
    while !repeats.done(seconds.len(), spent) {
        let took = batch(calls)?;
        spent += took;
        seconds.push(took / calls as f64);
    }
    Ok(median(seconds))
}

/// How many calls make a batch, if one takes so many milliseconds.
fn calls(ms: f64) -> usize {
    (BATCH_MS / ms.max(1e-6)).clamp(1.0, MOST) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_takes_ten_milliseconds_or_one_call() {
        assert_eq!([30.0, 10.0, 2.5, 0.001, 0.0].map(calls), [1, 1, 4, 500, 500]);
    }
}
