//! HTML as it is written: markup is known when this is compiled, and whatever comes from elsewhere is text.

use std::fmt::{self, Display, Write as _};

/// A page in the making.
#[derive(Debug, Default)]
pub(crate) struct Html(String);

impl Html {
    /// Markup of this program.
    pub(crate) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text of anybody, within an element or a quoted attribute.
    pub(crate) fn text(&mut self, text: impl Display) -> &mut Self {
        // Writing into a string does not fail.
        let _ = write!(Escape(&mut self.0), "{text}");
        self
    }

    /// A sentence of anybody, in which names stand between backticks.
    pub(crate) fn prose(&mut self, text: &str) -> &mut Self {
        let parts: Vec<&str> = text.split('`').collect();
        if parts.len().is_multiple_of(2) {
            return self.text(text);
        }
        for (index, part) in parts.into_iter().enumerate() {
            if index.is_multiple_of(2) {
                self.text(part)
            } else {
                self.element("code", "", part)
            };
        }
        self
    }

    /// The element `tag` with `text` in it.
    pub(crate) fn element(
        &mut self,
        tag: &'static str,
        class: &'static str,
        text: impl Display,
    ) -> &mut Self {
        self.raw("<").raw(tag);
        if !class.is_empty() {
            self.raw(" class=\"").raw(class).raw("\"");
        }
        self.raw(">").text(text).raw("</").raw(tag).raw(">")
    }

    /// What another of these has written.
    pub(crate) fn append(&mut self, other: &Self) -> &mut Self {
        self.0.push_str(&other.0);
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The page.
    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// `text` as it stands in XML.
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    let _ = Escape(&mut out).write_str(text);
    out
}

/// Escapes what it passes on.
struct Escape<'a>(&'a mut String);

impl fmt::Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(c),
                c if c.is_control() || turns_text_around(c) => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

/// Whether `c` would show what follows it in another order than it is written in.
fn turns_text_around(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// At most `most` characters of `text`, with a mark where there are more.
pub(crate) fn clipped(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_can_be_markup(text in any::<String>()) {
            let escaped = escaped(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            prop_assert!(!escaped.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
            // Every ampersand begins one of the five.
            for (at, _) in escaped.match_indices('&') {
                let known = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
                prop_assert!(known.iter().any(|entity| escaped[at..].starts_with(entity)));
            }
            let back = escaped.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
            let back = back.replace("&#39;", "'").replace("&amp;", "&");
            prop_assert_eq!(back.chars().count(), text.chars().count());
        }
    }

    #[test]
    fn elements_hold_text() {
        let mut html = Html::default();
        html.element("td", "name", "<b>\u{202e}").element("p", "", 1.5);
        assert_eq!(html.finish(), "<td class=\"name\">&lt;b&gt;\u{fffd}</td><p>1.5</p>");
        let mut html = Html::default();
        html.prose("its name contains `<lm_head>`; ").prose("a ` alone");
        assert_eq!(html.finish(), "its name contains <code>&lt;lm_head&gt;</code>; a ` alone");
        assert_eq!((clipped("über", 2), clipped("über", 4)), ("üb…".into(), "über".into()));
    }
}
