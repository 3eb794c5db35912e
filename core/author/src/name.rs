//! The name of a plugin, which is that of its crate too.

use std::fmt;
use std::str::FromStr;

use fp8flow_host::SHIPPED;

use crate::AuthorError;
use crate::lock;

/// Longer ones make long lines.
const LONGEST: usize = 40;

/// What a workflow can say in place of a plugin's name.
const WORDS_OF_WORKFLOWS: [&str; 2] = ["auto", "none"];

/// What Rust or Cargo keep for themselves.
const TAKEN: [&str; 50] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "use",
    "while",
];

/// A name that a plugin and its crate can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// As Cargo and workflows write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As Rust and file names of libraries write it.
    pub fn identifier(&self) -> String {
        self.0.replace('-', "_")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = AuthorError;

    fn from_str(name: &str) -> Result<Self, AuthorError> {
        // Cargo sees no difference between `-` and `_` where a library's file is concerned.
        let like = |other: &str| name.replace('_', "-") == other.replace('_', "-");
        let any = |names: &[&str]| names.iter().any(|other| like(other));
        let why = if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            "it starts with a letter a-z"
        } else if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c)) {
            "it is made of a-z, 0-9, `-` and `_`"
        } else if name.len() > LONGEST {
            "it has 40 characters at most"
        } else if any(&SHIPPED) {
            "a plugin of this name comes with fp8flow"
        } else if any(&WORDS_OF_WORKFLOWS) {
            "the word has a meaning of its own in a workflow"
        } else if any(&TAKEN) {
            "Rust or Cargo would not take it for a crate"
        } else if lock::packages().any(like) || like("fp8flow") {
            "a crate that every plugin is built from has this name"
        } else {
            return Ok(Self(name.to_owned()));
        };
        Err(AuthorError::Name { name: name.to_owned(), why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_word_that_cargo_takes_and_nobody_has() {
        for name in ["mine", "mx-like", "my_fp8", "a", "fp8-2"] {
            assert_eq!(name.parse::<Name>().unwrap().as_str(), name);
        }
        for (name, why) in [
            ("", "starts with a letter"),
            ("8bit", "starts with a letter"),
            ("Mine", "starts with a letter"),
            ("my.fp8", "made of"),
            ("../mine", "starts with a letter"),
            ("mine/yours", "made of"),
            ("müsli", "made of"),
            ("torchao-rowwise", "comes with fp8flow"),
            ("torchao_rowwise", "comes with fp8flow"),
            ("auto", "meaning of its own"),
            ("none", "meaning of its own"),
            ("impl", "Rust or Cargo"),
            ("serde-json", "built from"),
            ("fp8flow-sdk", "built from"),
            ("fp8flow", "built from"),
        ] {
            let error = name.parse::<Name>().unwrap_err().to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
        assert!("x".repeat(41).parse::<Name>().is_err());
    }

    #[test]
    fn an_identifier_has_no_dash() {
        assert_eq!("mx-like".parse::<Name>().unwrap().identifier(), "mx_like");
    }
}
