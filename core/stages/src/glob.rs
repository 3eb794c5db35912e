//! Patterns over the full names of layers: `model.layers.*.mlp.*`, `*.{q,k,v}_proj`, `model.layers.{0-3,7}.*`.
//!
//! | | matches |
//! | --- | --- |
//! | `*` | any run of characters, dots included, or none (`**` is the same) |
//! | `?` | one character |
//! | `{q,k,v}` | one of these; `*` and `?` may stand in them, braces may not |
//! | `{0-3,7}` | a whole number from 0 to 3, or 7 |
//! | anything else | itself |
//!
//! A pattern stands for whole names: `down_proj` matches nothing, `*.down_proj` every down projection. What `plan` prints
//! is a pattern for the layers it stands for.

use std::fmt;

/// A pattern over names.
#[derive(Clone, Debug, PartialEq)]
pub struct Glob {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    /// `?`.
    One,
    /// `*`.
    Any,
    /// `{…}`.
    OneOf(Vec<Alternative>),
}

#[derive(Clone, Debug, PartialEq)]
enum Alternative {
    Pieces(Vec<Piece>),
    Numbers(u64, u64),
}

impl Glob {
    /// Reads `text`, or says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the pattern is empty".into());
        }
        if text.contains(['[', ']']) {
            return Err("`[` and `]` mean nothing in a pattern: write `{0-3}` or `{q,k}`".into());
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            if rest[at..].starts_with('}') {
                return Err("`}` without a `{` before it".into());
            }
            plain(&rest[..at], &mut pieces);
            let inner = &rest[at + 1..];
            let end = inner.find('}').ok_or("`{` without a `}` after it")?;
            let inner = &inner[..end];
            if inner.contains('{') {
                return Err("braces within braces".into());
            }
            pieces.push(Piece::OneOf(inner.split(',').map(alternative).collect::<Result<_, _>>()?));
            rest = &rest[at + end + 2..];
        }
        plain(rest, &mut pieces);
        Ok(Self { text: text.into(), pieces })
    }

    /// Whether `name` as a whole is as the pattern says.
    pub fn matches(&self, name: &str) -> bool {
        let mut ends = Ends::new(name.len());
        ends.0[0] = true;
        ends.advance(&self.pieces, name).0[name.len()]
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The pieces of `text`, which holds no braces.
fn plain(text: &str, pieces: &mut Vec<Piece>) {
    for c in text.chars() {
        match (c, pieces.last_mut()) {
            ('*', Some(Piece::Any)) => {}
            ('*', _) => pieces.push(Piece::Any),
            ('?', _) => pieces.push(Piece::One),
            (c, Some(Piece::Text(text))) => text.push(c),
            (c, _) => pieces.push(Piece::Text(c.into())),
        }
    }
}

fn alternative(text: &str) -> Result<Alternative, String> {
    let text = text.trim();
    let number = |digits: &str| {
        let digit = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digit.then(|| digits.parse::<u64>().ok()).flatten()
    };
    if let Some((Some(low), Some(high))) = text.split_once('-').map(|(low, high)| (number(low), number(high)))
    {
        if low > high {
            return Err(format!("{{{text}}} is empty: the smaller number comes first"));
        }
        return Ok(Alternative::Numbers(low, high));
    }
    if let Some(exact) = number(text) {
        return Ok(Alternative::Numbers(exact, exact));
    }
    let mut pieces = Vec::new();
    plain(text, &mut pieces);
    Ok(Alternative::Pieces(pieces))
}

/// For each place in a name, whether what was read of the pattern can end there. One pass over the pattern, whatever
/// stands in it.
#[derive(Clone)]
struct Ends(Vec<bool>);

impl Ends {
    fn new(len: usize) -> Self {
        Self(vec![false; len + 1])
    }

    fn places(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().filter(|(_, end)| **end).map(|(at, _)| at)
    }

    fn advance(&self, pieces: &[Piece], name: &str) -> Self {
        pieces.iter().fold(self.clone(), |ends, piece| ends.after(piece, name))
    }

    fn after(&self, piece: &Piece, name: &str) -> Self {
        let mut ends = Self::new(name.len());
        match piece {
            Piece::Any => {
                if let Some(first) = self.places().next() {
                    ends.0[first..].fill(true);
                }
            }
            Piece::OneOf(alternatives) => {
                for alternative in alternatives {
                    match alternative {
                        Alternative::Pieces(pieces) => {
                            self.advance(pieces, name).places().for_each(|at| ends.0[at] = true);
                        }
                        Alternative::Numbers(low, high) => {
                            for at in self.places() {
                                let digits = number_at(name, at);
                                let value = name[at..at + digits].parse::<u64>();
                                if value.is_ok_and(|value| (*low..=*high).contains(&value)) {
                                    ends.0[at + digits] = true;
                                }
                            }
                        }
                    }
                }
            }
            Piece::One => {
                for at in self.places() {
                    if let Some(c) = name.get(at..).and_then(|rest| rest.chars().next()) {
                        ends.0[at + c.len_utf8()] = true;
                    }
                }
            }
            Piece::Text(text) => {
                for at in self.places() {
                    if name.get(at..).is_some_and(|rest| rest.starts_with(text.as_str())) {
                        ends.0[at + text.len()] = true;
                    }
                }
            }
        }
        ends
    }
}

/// How many digits there are at `at`; 0 in the middle of a number.
fn number_at(name: &str, at: usize) -> usize {
    let bytes = name.as_bytes();
    if at > 0 && bytes[at - 1].is_ascii_digit() {
        return 0;
    }
    bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching<'a>(pattern: &str, names: &[&'a str]) -> Vec<&'a str> {
        let glob = Glob::new(pattern).expect("a pattern");
        assert_eq!(glob.to_string(), pattern);
        names.iter().copied().filter(|name| glob.matches(name)).collect()
    }

    const NAMES: [&str; 6] = [
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.k_proj",
        "model.layers.1.mlp.down_proj",
        "model.layers.11.mlp.up_proj",
        "model.layers.12.mlp.gate_proj",
        "lm_head",
    ];

    #[test]
    fn a_star_crosses_dots_and_a_pattern_stands_for_the_whole_name() {
        assert_eq!(matching("*", &NAMES), NAMES);
        assert_eq!(matching("**", &NAMES), NAMES);
        assert_eq!(matching("model.layers.*.mlp.*", &NAMES), NAMES[2..5]);
        assert_eq!(matching("*.down_proj", &NAMES), NAMES[2..3]);
        assert_eq!(matching("down_proj", &NAMES), [""; 0]);
        assert_eq!(matching("lm_head", &NAMES), NAMES[5..]);
        assert_eq!(matching("LM_HEAD", &NAMES), [""; 0]);
        assert_eq!(matching("*q_proj*", &NAMES), NAMES[..1]);
    }

    #[test]
    fn a_question_mark_is_one_character() {
        assert_eq!(matching("model.layers.?.*", &NAMES), NAMES[..3]);
        assert_eq!(matching("model.layers.??.*", &NAMES), NAMES[3..5]);
        assert!(Glob::new("a?c").expect("a pattern").matches("a×c"));
        assert!(!Glob::new("a?").expect("a pattern").matches("a"));
    }

    #[test]
    fn braces_hold_words_and_numbers() {
        assert_eq!(matching("*.{q,k}_proj", &NAMES), NAMES[..2]);
        assert_eq!(matching("*.{mlp.*,self_attn.q*}", &NAMES), [NAMES[0], NAMES[2], NAMES[3], NAMES[4]]);
        assert_eq!(matching("model.layers.{0-1}.*", &NAMES), NAMES[..3]);
        assert_eq!(matching("model.layers.{0,2-11}.*", &NAMES), [NAMES[0], NAMES[3]]);
        assert_eq!(matching("model.layers.{1}.*", &NAMES), NAMES[1..3]);
        // A number is read to its end, and never from its middle.
        assert_eq!(matching("*{1}.mlp.*", &NAMES), NAMES[2..3]);
        assert_eq!(matching("model.layers.{1}*.up_proj", &NAMES), [""; 0]);
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        for (text, words) in [
            ("", "empty"),
            ("model.layers.[0-3].*", "write `{0-3}`"),
            ("a{b", "without a `}`"),
            ("a}b", "without a `{`"),
            ("{a{b}}", "within braces"),
            ("{3-1}", "the smaller number comes first"),
        ] {
            let said = Glob::new(text).expect_err(text);
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_takes_no_longer_than_its_length() {
        let glob = Glob::new(&"*a".repeat(2000)).expect("a pattern");
        assert!(!glob.matches(&"a".repeat(1999)));
        assert!(glob.matches(&"a".repeat(2000)));
        assert!(Glob::new(&format!("{{{}}}", "0-9,".repeat(1000))).expect("a pattern").matches("7"));
        assert!(Glob::new("{0-99999999999999999999}").expect("words").matches("0-99999999999999999999"));
    }
}
