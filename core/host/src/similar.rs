//! "Did you mean".

/// The candidate that `word` is most likely a misspelling of, if any is close.
pub(crate) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = |candidate: &&str| {
        let distance = strsim::damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase());
        (distance <= 1 + word.chars().count() / 4).then_some(distance)
    };
    let scored = candidates.into_iter().filter_map(|candidate| Some((near(&candidate)?, candidate)));
    // The first of equals, in the candidates' own order.
    scored.min_by_key(|&(distance, _)| distance).map(|(_, candidate)| candidate)
}

/// `; did you mean …?`, or nothing.
pub(crate) fn suggestion(similar: Option<&str>) -> String {
    similar.map(|similar| format!("; did you mean `{similar}`?")).unwrap_or_default()
}

/// `a`, `b`, `c`.
pub(crate) fn quoted<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["rowwise", "tensorwise", "rowwise_with_gw_hp"];
        assert_eq!(closest("rowise", known), Some("rowwise"));
        assert_eq!(closest("Tensorwise", known), Some("tensorwise"));
        assert_eq!(closest("rwowise", known), Some("rowwise"));
        assert_eq!(closest("blockwise", known), None);
        assert_eq!(closest("", known), None);
    }
}
