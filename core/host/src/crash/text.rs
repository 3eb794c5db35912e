//! What is said of a crash, put together without an allocation.

use super::Subject;

/// A call that has crashed the process.
pub(super) struct Crash<'a> {
    pub(super) plugin: &'a Subject,
    /// Empty where the call is about no layer.
    pub(super) layer: &'a str,
    pub(super) call: &'a str,
    pub(super) signal: &'a str,
}

/// Text that is cut where there is no room.
pub(super) struct Text {
    bytes: [u8; 2048],
    length: usize,
    cut: bool,
}

impl Text {
    pub(super) const fn empty() -> Self {
        Self { bytes: [0; 2048], length: 0, cut: false }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Becomes the message for people; `more` is a line or nothing.
    pub(super) fn message(&mut self, crash: &Crash<'_>, more: &str) {
        let Crash { plugin, layer, call, signal } = crash;
        self.clear();
        // The cursor may be in the middle of a line.
        self.push(&["\nerror: plugin `", &plugin.name, "` has crashed the process with ", signal]);
        self.push(&[" in `", call, "`"]);
        if !layer.is_empty() {
            self.push(&[" of layer `", layer, "`"]);
        }
        self.push(&["\n"]);
        if !more.is_empty() {
            self.push(&["  ", more, "\n"]);
        }
        self.push(&["help: `fp8flow plugin test ", &plugin.library]);
        self.push(&["` tries its calls; report the crash to whoever made it\n"]);
    }

    /// Becomes the note for programs, a JSON object; says whether it is whole.
    pub(super) fn note(&mut self, crash: &Crash<'_>) -> bool {
        let Crash { plugin, layer, call, signal } = crash;
        self.clear();
        let fields = [
            ("{\"plugin\"", &*plugin.name),
            (",\"layer\"", layer),
            (",\"call\"", call),
            (",\"signal\"", signal),
        ];
        for (key, value) in fields {
            self.push(&[key, ":\""]);
            for byte in value.bytes() {
                match byte {
                    b'"' | b'\\' => self.put(&[b'\\', byte]),
                    0..0x20 => self.put(b" "),
                    _ => self.put(&[byte]),
                }
            }
            self.push(&["\""]);
        }
        self.push(&["}\n"]);
        !self.cut
    }

    fn clear(&mut self) {
        (self.length, self.cut) = (0, false);
    }

    fn push(&mut self, texts: &[&str]) {
        for text in texts {
            // No name and no path is honestly longer.
            self.put(&text.as_bytes()[..text.len().min(512)]);
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        let free = &mut self.bytes[self.length..];
        let length = bytes.len().min(free.len());
        free[..length].copy_from_slice(&bytes[..length]);
        self.length += length;
        self.cut |= length < bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;

    fn crash<'a>(plugin: &'a Subject, layer: &'a str) -> Crash<'a> {
        Crash { plugin, layer, call: "forward", signal: "SIGFPE (arithmetic error)" }
    }

    #[test]
    fn a_message_fits_its_room() {
        let said = |crash: &Crash<'_>| {
            let mut text = Text::empty();
            text.message(crash, "more");
            String::from_utf8_lossy(text.bytes()).into_owned()
        };
        let plugin = Subject::new("p", Path::new("/my plugins/libp.so"));
        let expected = "\nerror: plugin `p` has crashed the process with SIGFPE (arithmetic error) in `forward` of layer \
                        `model.layers.0.mlp.up_proj`\n  more\nhelp: `fp8flow plugin test '/my plugins/libp.so'` tries its \
                        calls; report the crash to whoever made it\n";
        assert_eq!(said(&crash(&plugin, "model.layers.0.mlp.up_proj")), expected);
        assert!(!said(&crash(&plugin, "")).contains("layer"));
        let long = "l".repeat(10_000);
        let plugin = Subject::new(&long, Path::new(&long));
        assert_eq!(said(&Crash { call: &long, signal: &long, ..crash(&plugin, &long) }).len(), 2048);
    }

    #[test]
    fn a_note_is_json_or_not_whole() {
        let plugin = Subject::new("p", Path::new("libp.so"));
        let mut text = Text::empty();
        text.message(&crash(&plugin, "x"), "what stood there before");
        assert!(text.note(&crash(&plugin, "a\"b\\c\nd\u{e9}")));
        let expected = json!({ "plugin": "p", "layer": "a\"b\\c d\u{e9}", "call": "forward", "signal": "SIGFPE (arithmetic error)" });
        assert_eq!(serde_json::from_slice::<Value>(text.bytes()).unwrap(), expected);
        assert!(!text.note(&crash(&plugin, &"l".repeat(2048))));
    }
}
