//! What may stand in a sidecar: words that can be printed, typed and made a file's name of.

use fp8flow_sdk::manifest::{WORD, is_word};

/// Most bytes of an address or of a sentence.
pub(super) const LONGEST_LINE: usize = 1024;

/// Why `text` is no word, if it is none: what the embedded manifest may hold, too.
pub(super) fn word(text: &str) -> Result<(), String> {
    if is_word(text) { Ok(()) } else { Err(format!("{} is not {WORD}", shown(text))) }
}

/// Why a folder or a file cannot be called `text`, if it cannot: a word that leads nowhere else and is not hidden.
pub(super) fn name(text: &str) -> Result<(), String> {
    word(text)?;
    if text.starts_with(['.', '-']) {
        return Err(format!(
            "{} cannot be the name of a folder: it begins with a dot or a dash",
            shown(text)
        ));
    }
    Ok(())
}

/// Why a plugin's folder cannot be called `text`, if it cannot: one that ends like a library would be taken for one.
pub(super) fn folder(text: &str) -> Result<(), String> {
    name(text)?;
    if text.strip_suffix(".so").is_some() {
        return Err(format!("{} cannot be the name of a folder: it ends in `.so`", shown(text)));
    }
    Ok(())
}

/// Why a package's library cannot be called `text`, if it cannot.
pub(super) fn library(text: &str) -> Result<(), String> {
    name(text)?;
    if text.strip_suffix(".so").is_some_and(|stem| !stem.is_empty()) {
        return Ok(());
    }
    Err(format!("{} is not the name of a library: it does not end in `.so`", shown(text)))
}

/// Why `text` is no line to be printed, if it is none.
pub(super) fn line(text: &str) -> Result<(), String> {
    if text.len() > LONGEST_LINE {
        return Err(format!("a text of {} bytes is longer than {LONGEST_LINE}", text.len()));
    }
    if text.contains(char::is_control) {
        return Err(format!("{} has control characters", shown(text)));
    }
    Ok(())
}

/// Why `text` is no address of a page, and so no `homepage`, if it is none.
pub fn address(text: &str) -> Result<(), String> {
    line(text)?;
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    if host.is_some_and(|host| !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic())) {
        return Ok(());
    }
    Err(format!("{} is not the address of a page: it does not begin with `https://`", shown(text)))
}

/// `text` in quotes, its beginning only, and nothing in it that a terminal obeys.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(40).collect();
    format!("{start:?}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_folder_is_not_called_like_a_library() {
        assert!(super::folder("rows.so").is_err() && super::folder(".rows").is_err());
        assert_eq!(super::folder("rows.sound"), Ok(()));
    }
}
