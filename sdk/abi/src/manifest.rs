//! What a plugin says of itself before it is opened.
//!
//! [`crate::export_backend!`] writes a [`Manifest`] as JSON into a section of its own of the shared library, where it
//! is found without running a line of the library's code. It is the handshake too: the SDK version, the panic
//! strategy, the target and the features that the plugin asks for decide whether the library is opened at all.
//!
//! ```text
//! section .fp8flow:  MAGIC (16 bytes) · length of the JSON (u32, little-endian) · JSON
//! ```

mod embed;

use serde::{Deserialize, Serialize};

use crate::abi::c::contract::{C_ABI, ENTRY};

#[doc(hidden)]
pub use embed::{Facts, embed, embedded_len};

/// The name of the section.
pub const SECTION: &str = ".fp8flow";

/// What the section starts with.
pub const MAGIC: [u8; 16] = *b"fp8flow-manifest";

/// What the exported symbol starts with; the crate's name follows, so that several backends can be linked together.
const SYMBOL_PREFIX: &str = "fp8flow_backend_";

/// More bytes than any honest manifest has.
pub const LIMIT: usize = 64 * 1024;

/// The version of this SDK. Before 1.0 the minor number, later the major one, says what fits together.
pub const SDK_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a plugin may ask of the engine beyond the base protocol, by name.
pub const FEATURES: [&str; 3] = ["amax_reduction", "cancellation", "quantized_input"];

/// What [`is_word`] takes, in words.
pub const WORD: &str = "a word of 1 to 128 characters a-z, A-Z, 0-9, `_`, `-`, `.`, `:` and `+`";

/// Whether `text` can be printed, typed and looked up: what a name in a manifest, or in a package's sidecar, must be.
pub fn is_word(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '+');
    (1..=128).contains(&text.len()) && text.chars().all(allowed)
}

/// The facts in the section. Unknown fields are ignored, so that later SDKs can say more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The name in `[backend] plugin`.
    pub name: String,
    /// The plugin's own version.
    pub version: String,
    /// One sentence.
    #[serde(default)]
    pub about: String,
    /// Its licence, as SPDX names it.
    #[serde(default)]
    pub license: String,
    /// The SDK it was built with.
    pub sdk: String,
    /// The numerics revision of the kernels it was built with.
    pub numerics: u32,
    /// Architecture, system and C library: `x86_64-linux-gnu`.
    pub target: String,
    /// `unwind` or `abort`.
    pub panic: String,
    /// Features of the engine that it needs, of [`FEATURES`].
    #[serde(default)]
    pub requires: Vec<String>,
    /// The recipes it brings.
    pub recipes: Vec<String>,
    /// The devices it runs on.
    pub devices: Vec<String>,
    /// The crate whose name ends the exported symbol; see [`Manifest::symbol`].
    #[serde(rename = "crate")]
    pub crate_name: String,
    /// Of a plugin in C: the `FP8FLOW_C_ABI` of its header. Such a plugin depends on that, and on no SDK or panic strategy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub c_abi: Option<u32>,
}

/// Why a section holds no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Too short, or it starts with something else.
    #[error("the section {SECTION} does not start with a manifest's mark")]
    Mark,
    /// The length does not fit the section, or the limit.
    #[error("the manifest claims {claimed} bytes; there are {present}, and {LIMIT} are the limit")]
    Length {
        /// What its header says.
        claimed: usize,
        /// What the section has.
        present: usize,
    },
    /// Not the JSON expected.
    #[error("the manifest is malformed: {0}")]
    Json(String),
    /// A name that could not be printed, typed or looked up.
    #[error("the manifest's {what} {text:?} is not {WORD}")]
    Word {
        /// Which field.
        what: &'static str,
        /// What it holds, shortened.
        text: String,
    },
    /// A second manifest behind the first: one plugin was linked into another.
    #[error("the library holds two manifests; it links another plugin's crate")]
    Second,
}

/// Why a plugin and this SDK do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Built for another SDK.
    #[error("built with fp8flow-sdk {found}, but this fp8flow speaks {SDK_VERSION}; rebuild the plugin")]
    Sdk {
        /// The plugin's.
        found: String,
    },
    /// In C, by another contract.
    #[error(
        "built with a header of C ABI {found}, but this fp8flow speaks {C_ABI}; rebuild the plugin with its own fp8flow_plugin.h"
    )]
    CAbi {
        /// The plugin's.
        found: u32,
    },
    /// Built so that a panic ends the process.
    #[error(
        "built with panic = \"{found}\", so that any panic in it would end the run; rebuild it with panic = \"unwind\""
    )]
    Panic {
        /// The plugin's.
        found: String,
    },
    /// Built for another machine or system.
    #[error("built for {found}, but this fp8flow runs on {}; rebuild the plugin", target())]
    Target {
        /// The plugin's.
        found: String,
    },
    /// It needs what this engine does not offer.
    #[error("needs the feature `{0}`, which this fp8flow does not offer; use a newer fp8flow")]
    Feature(String),
}

/// What this crate was compiled for, in the words of [`Manifest::target`].
pub fn target() -> String {
    let [arch, os, env] = embed::TARGET;
    format!("{arch}-{os}-{env}")
}

impl Manifest {
    /// Reads the contents of the section [`SECTION`], which may come from anywhere.
    pub fn parse(section: &[u8]) -> Result<Self, ManifestError> {
        let rest = section.strip_prefix(&MAGIC).ok_or(ManifestError::Mark)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(ManifestError::Mark)?;
        let claimed = u32::from_le_bytes(*length) as usize;
        let length_error = ManifestError::Length { claimed, present: rest.len() };
        if claimed > LIMIT {
            return Err(length_error);
        }
        let (json, behind) = rest.split_at_checked(claimed).ok_or(length_error)?;
        if behind.windows(MAGIC.len()).any(|bytes| bytes == MAGIC) {
            return Err(ManifestError::Second);
        }
        let mut manifest: Self =
            serde_json::from_slice(json).map_err(|error| ManifestError::Json(error.to_string()))?;
        manifest.check_words()?;
        for text in [&mut manifest.about, &mut manifest.license] {
            // They are printed to a terminal.
            *text = text.replace(char::is_control, " ");
        }
        Ok(manifest)
    }

    /// The exported symbol behind which the library's functions are found.
    pub fn symbol(&self) -> String {
        match self.c_abi {
            None => format!("{SYMBOL_PREFIX}{}", self.crate_name),
            Some(_) => ENTRY.to_owned(),
        }
    }

    /// Whether this SDK and the plugin's fit together: the handshake.
    pub fn check(&self) -> Result<(), Mismatch> {
        if let Some(found) = self.c_abi {
            if found != C_ABI {
                return Err(Mismatch::CAbi { found });
            }
        } else if generation(&self.sdk).is_none() || generation(&self.sdk) != generation(SDK_VERSION) {
            return Err(Mismatch::Sdk { found: self.sdk.clone() });
        }
        if self.c_abi.is_none() && self.panic != "unwind" {
            return Err(Mismatch::Panic { found: self.panic.clone() });
        }
        if self.target != target() {
            return Err(Mismatch::Target { found: self.target.clone() });
        }
        match self.requires.iter().find(|feature| !FEATURES.contains(&feature.as_str())) {
            Some(feature) => Err(Mismatch::Feature(feature.clone())),
            None => Ok(()),
        }
    }

    fn check_words(&self) -> Result<(), ManifestError> {
        let single = [
            ("name", &self.name),
            ("version", &self.version),
            ("SDK version", &self.sdk),
            ("target", &self.target),
            ("panic strategy", &self.panic),
            ("crate name", &self.crate_name),
        ];
        let lists = [("recipe", &self.recipes), ("device", &self.devices), ("feature", &self.requires)];
        let listed = lists.into_iter().flat_map(|(what, words)| words.iter().map(move |word| (what, word)));
        for (what, text) in single.into_iter().chain(listed) {
            if !is_word(text) {
                let text = text.chars().take(40).collect();
                return Err(ManifestError::Word { what, text });
            }
        }
        Ok(())
    }
}

/// What versions must share to fit together: `0.minor`, or the major number.
fn generation(version: &str) -> Option<(u64, u64)> {
    let mut numbers = version.split(['.', '-', '+']).map(str::parse::<u64>);
    match (numbers.next()?.ok()?, numbers.next()?.ok()?) {
        (0, minor) => Some((0, minor)),
        (major, _) => Some((major, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts {
        name: "a-plugin",
        version: "1.2.3",
        about: "says \"hello\"\\\n\ttwice, in übergröße",
        license: "MIT",
        unwinds: true,
        requires: &[],
        recipes: &["one", "two"],
        devices: &["cpu"],
        crate_name: "a_plugin",
    };
    const SECTION: [u8; embedded_len(&FACTS)] = embed(&FACTS);

    #[test]
    fn what_is_embedded_reads_back_and_fits_its_own_sdk() {
        let manifest = Manifest::parse(&SECTION).unwrap();
        assert_eq!(manifest.name, FACTS.name);
        let about = FACTS.about.replace(['\n', '\t'], " ");
        assert_eq!(manifest.about, about, "quotes, backslashes and control characters are escaped");
        assert_eq!(manifest.symbol(), "fp8flow_backend_a_plugin");
        assert_eq!(manifest.recipes, FACTS.recipes);
        assert_eq!(manifest.requires, FACTS.requires);
        assert_eq!(manifest.sdk, SDK_VERSION);
        assert_eq!(manifest.numerics, fp8flow_kernels::NUMERICS_REVISION);
        assert_eq!(manifest.check(), Ok(()));
        assert!(manifest.target.starts_with("x86_64-linux"), "{}", manifest.target);
    }

    #[test]
    fn each_part_of_the_handshake_has_its_own_refusal() {
        let good = Manifest::parse(&SECTION).unwrap();
        let found = |change: fn(&mut Manifest)| {
            let mut manifest = good.clone();
            change(&mut manifest);
            manifest.check().unwrap_err()
        };
        for other in ["0.99.0", "1.1.0", "0", "x.y.z", ""] {
            let manifest = Manifest { sdk: other.into(), ..good.clone() };
            assert_eq!(manifest.check(), Err(Mismatch::Sdk { found: other.into() }));
        }
        assert_eq!(found(|m| m.panic = "abort".into()), Mismatch::Panic { found: "abort".into() });
        assert!(found(|m| m.target = "aarch64-linux-gnu".into()).to_string().contains("aarch64-linux-gnu"));
        let needs = found(|m| m.requires = vec!["cancellation".into(), "time_travel".into()]);
        assert_eq!(needs, Mismatch::Feature("time_travel".into()));
    }

    #[test]
    fn patches_fit_minors_before_one_do_not_and_majors_decide_after() {
        assert_eq!(generation("0.1.0"), generation("0.1.7"));
        assert_ne!(generation("0.1.0"), generation("0.2.0"));
        assert_eq!(generation("1.4.0"), generation("1.9.2-beta"));
        assert_ne!(generation("1.0.0"), generation("2.0.0"));
    }

    #[test]
    fn every_way_to_be_no_manifest_is_told_apart() {
        assert_eq!(Manifest::parse(&[]), Err(ManifestError::Mark));
        assert_eq!(Manifest::parse(&MAGIC), Err(ManifestError::Mark));
        assert_eq!(Manifest::parse(&[b'x'; 100]), Err(ManifestError::Mark));
        let short = &SECTION[..SECTION.len() - 1];
        let claimed = SECTION.len() - 20;
        assert_eq!(Manifest::parse(short), Err(ManifestError::Length { claimed, present: claimed - 1 }));
        let mut huge = SECTION;
        huge[16..20].fill(0xff);
        assert!(matches!(Manifest::parse(&huge), Err(ManifestError::Length { .. })));
        let mut broken = SECTION;
        broken[20] = b'[';
        assert!(matches!(Manifest::parse(&broken), Err(ManifestError::Json(_))));
        assert_eq!(Manifest::parse(&[SECTION, SECTION].concat()), Err(ManifestError::Second));
        let padded = [SECTION.as_slice(), &[0; 12]].concat();
        assert!(Manifest::parse(&padded).is_ok(), "a linker may pad a section");
        let text = String::from_utf8(SECTION.to_vec()).unwrap().replace("a-plugin", "a\\u001b-pl");
        let mut bytes = text.into_bytes();
        let length = (bytes.len() - 20) as u32;
        bytes[16..20].copy_from_slice(&length.to_le_bytes());
        assert!(matches!(Manifest::parse(&bytes), Err(ManifestError::Word { what: "name", .. })));
        assert!(is_word("1.2.3+cu129") && !is_word("") && !is_word(&"x".repeat(129)));
    }
}
