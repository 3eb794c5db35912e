//! "Did you mean …?"

/// A question that names the candidates nearest to `found`, where any is near.
///
/// Near means one slip of the fingers for each three letters, and at least one. Equally near ones are all named, up
/// to three.
pub(crate) fn did_you_mean<S: AsRef<str>>(found: &str, known: impl IntoIterator<Item = S>) -> Option<String> {
    let nearest = nearest(found, known);
    let (last, rest) = nearest.split_last()?;
    let rest: Vec<String> = rest.iter().map(|word| format!("`{word}`")).collect();
    let words =
        if rest.is_empty() { format!("`{last}`") } else { format!("{} or `{last}`", rest.join(", ")) };
    Some(format!("did you mean {words}?"))
}

/// The candidates nearest to `found`, if any is near: the best ones only, up to three.
pub(crate) fn nearest<S: AsRef<str>>(found: &str, known: impl IntoIterator<Item = S>) -> Vec<String> {
    // Distances are quadratic in length: nobody misspells a page.
    if found.len() > 100 {
        return Vec::new();
    }
    let far = 1 + found.chars().count() / 3;
    let mut near: Vec<(usize, String)> = known
        .into_iter()
        .map(|word| {
            let word = word.as_ref();
            (strsim::damerau_levenshtein(&found.to_lowercase(), &word.to_lowercase()), word.to_owned())
        })
        .filter(|(distance, _)| *distance <= far)
        .collect();
    near.sort_by_key(|(distance, _)| *distance);
    let best = near.first().map_or(0, |(distance, _)| *distance);
    near.into_iter().take_while(|(distance, _)| *distance == best).map(|(_, word)| word).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 4] = ["steps", "optimizer", "lr", "eps"];

    #[test]
    fn a_slip_finds_its_key() {
        assert_eq!(did_you_mean("setps", KEYS).as_deref(), Some("did you mean `steps`?"));
        assert_eq!(did_you_mean("optimiser", KEYS).as_deref(), Some("did you mean `optimizer`?"));
        assert_eq!(did_you_mean("Lr", KEYS).as_deref(), Some("did you mean `lr`?"));
    }

    #[test]
    fn equally_near_keys_are_all_named() {
        assert_eq!(did_you_mean("ab", ["aa", "bb", "xyz"]).as_deref(), Some("did you mean `aa` or `bb`?"));
    }

    #[test]
    fn what_resembles_nothing_is_left_alone() {
        assert_eq!(did_you_mean("recompute", KEYS), None);
        assert_eq!(did_you_mean(&"s".repeat(1000), KEYS), None);
    }
}
