//! The name of a run: when it began, and two words that a person can say.

const FIRST: [&str; 32] = [
    "amber", "bold", "brisk", "calm", "clear", "cool", "crisp", "deep", "early", "fair", "fine", "fresh",
    "gentle", "glad", "green", "keen", "kind", "light", "lively", "mellow", "mild", "neat", "noble", "plain",
    "proud", "quick", "quiet", "ready", "sharp", "still", "sunny", "warm",
];
const SECOND: [&str; 32] = [
    "ash", "beech", "birch", "brook", "cedar", "cliff", "cloud", "crane", "dune", "elm", "fern", "finch",
    "fox", "grove", "hare", "hawk", "heath", "heron", "hill", "lake", "lark", "maple", "moor", "oak",
    "otter", "pine", "reed", "ridge", "river", "robin", "stone", "wren",
];

/// A name for a run that begins at `time`; another `salt` gives other words.
pub(crate) fn name(time: jiff::Timestamp, salt: u64) -> String {
    let mixed = blake3::hash(format!("{} {salt}", time.as_nanosecond()).as_bytes());
    let [a, b, ..] = *mixed.as_bytes();
    let word = |words: &[&'static str; 32], byte: u8| words[usize::from(byte) % words.len()];
    format!("{}-{}-{}", time.strftime("%Y%m%d-%H%M%S"), word(&FIRST, a), word(&SECOND, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_begins_with_the_time_and_its_words_vary() {
        let time = jiff::Timestamp::from_second(1_790_000_000).expect("in range");
        assert!(name(time, 0).starts_with("20260921-"), "{}", name(time, 0));
        let names: std::collections::HashSet<String> = (0..50).map(|salt| name(time, salt)).collect();
        assert!(names.len() > 40);
    }
}
