//! `90s`, `1h30m`: how long, as a person writes it.

use std::fmt::Write as _;
use std::time::Duration;

/// Units from the longest to the shortest, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Whole numbers, each with its unit, the longest unit first and none twice; more than nothing.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (_, each) = units.find(|(name, _)| *name == &rest[..unit])?;
        total = total.checked_add(number.checked_mul(*each)?)?;
        rest = &rest[unit..];
    }
    (total > 0).then(|| Duration::from_millis(total))
}

/// The same in the fewest words: `1h30m`.
pub(super) fn words(duration: Duration) -> String {
    let mut rest = duration.as_millis() as u64;
    let mut words = String::new();
    for (name, each) in UNITS {
        if rest >= each {
            let _ = write!(words, "{}{name}", rest / each);
            rest %= each;
        }
    }
    if words.is_empty() { "0s".into() } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, milliseconds) in [
            ("90s", 90_000),
            ("2h", 7_200_000),
            ("1h30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("250ms", 250),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(milliseconds)), "{text}");
            assert_eq!(parse(&words(Duration::from_millis(milliseconds))), parse(text), "{text}");
        }
        for text in [
            "",
            "0s",
            "10",
            "s",
            "-1s",
            "1.5h",
            "1m1h",
            "1s1s",
            "2 h",
            "1x",
            "99999999999999999999s",
            "600000000000000d",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(words(Duration::from_secs(90)), "1m30s");
    }
}
