//! Writes a manifest while the plugin is compiled: JSON by constant functions.

use super::{LIMIT, MAGIC, SDK_VERSION};
use fp8flow_kernels::NUMERICS_REVISION;

/// What [`crate::export_backend!`] knows of the crate it stands in.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// `CARGO_PKG_NAME`, or what the author says.
    pub name: &'static str,
    /// `CARGO_PKG_VERSION`.
    pub version: &'static str,
    /// `CARGO_PKG_DESCRIPTION`.
    pub about: &'static str,
    /// `CARGO_PKG_LICENSE`.
    pub license: &'static str,
    /// `cfg!(panic = "unwind")`.
    pub unwinds: bool,
    /// What the author says.
    pub requires: &'static [&'static str],
    /// What the author says.
    pub recipes: &'static [&'static str],
    /// What the author says.
    pub devices: &'static [&'static str],
    /// `CARGO_CRATE_NAME`.
    pub crate_name: &'static str,
}

/// Architecture, operating system, C library.
pub(super) const TARGET: [&str; 3] = [
    std::env::consts::ARCH,
    std::env::consts::OS,
    if cfg!(target_env = "gnu") {
        "gnu"
    } else if cfg!(target_env = "musl") {
        "musl"
    } else {
        "other"
    },
];

/// The bytes that [`embed`] writes.
pub const fn embedded_len(facts: &Facts) -> usize {
    let mut count = Writer { out: &mut [], at: 0 };
    write(facts, &mut count);
    let json = count.at;
    assert!(json <= LIMIT, "the manifest is too long: shorten the description or the list of recipes");
    MAGIC.len() + 4 + json
}

/// The contents of the section; `N` is [`embedded_len`].
pub const fn embed<const N: usize>(facts: &Facts) -> [u8; N] {
    let mut out = [0; N];
    let mut writer = Writer { out: &mut out, at: 0 };
    let mut i = 0;
    while i < MAGIC.len() {
        writer.byte(MAGIC[i]);
        i += 1;
    }
    let length = ((N - MAGIC.len() - 4) as u32).to_le_bytes();
    let mut i = 0;
    while i < length.len() {
        writer.byte(length[i]);
        i += 1;
    }
    write(facts, &mut writer);
    out
}

const fn write(facts: &Facts, out: &mut Writer<'_>) {
    out.raw("{\"name\":");
    out.string(facts.name);
    out.raw(",\"version\":");
    out.string(facts.version);
    out.raw(",\"about\":");
    out.string(facts.about);
    out.raw(",\"license\":");
    out.string(facts.license);
    out.raw(",\"sdk\":");
    out.string(SDK_VERSION);
    out.raw(",\"numerics\":");
    out.number(NUMERICS_REVISION);
    out.raw(",\"target\":\"");
    out.raw(TARGET[0]);
    out.raw("-");
    out.raw(TARGET[1]);
    out.raw("-");
    out.raw(TARGET[2]);
    out.raw("\",\"panic\":");
    out.string(if facts.unwinds { "unwind" } else { "abort" });
    out.raw(",\"requires\":");
    out.strings(facts.requires);
    out.raw(",\"recipes\":");
    out.strings(facts.recipes);
    out.raw(",\"devices\":");
    out.strings(facts.devices);
    out.raw(",\"crate\":");
    out.string(facts.crate_name);
    out.raw("}");
}

/// Counts what it is given, and keeps what there is room for.
struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    const fn byte(&mut self, byte: u8) {
        if self.at < self.out.len() {
            self.out[self.at] = byte;
        }
        self.at += 1;
    }

    const fn raw(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut i = 0;
        while i < bytes.len() {
            self.byte(bytes[i]);
            i += 1;
        }
    }

    const fn string(&mut self, text: &str) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        self.byte(b'"');
        let bytes = text.as_bytes();
        let mut i = 0;
        while i < bytes.len() {
            match bytes[i] {
                byte @ (b'"' | b'\\') => {
                    self.byte(b'\\');
                    self.byte(byte);
                }
                byte @ 0..0x20 => {
                    self.raw("\\u00");
                    self.byte(HEX[(byte >> 4) as usize]);
                    self.byte(HEX[(byte & 15) as usize]);
                }
                byte => self.byte(byte),
            }
            i += 1;
        }
        self.byte(b'"');
    }

    const fn strings(&mut self, texts: &[&str]) {
        self.byte(b'[');
        let mut i = 0;
        while i < texts.len() {
            if i > 0 {
                self.byte(b',');
            }
            self.string(texts[i]);
            i += 1;
        }
        self.byte(b']');
    }

    const fn number(&mut self, number: u32) {
        if number >= 10 {
            self.number(number / 10);
        }
        self.byte(b'0' + (number % 10) as u8);
    }
}
