//! The rule that says which layers are offered to a recipe at all.

use fp8flow_sdk::LayerFacts;

use crate::gain::MinGain;
use crate::glob::Glob;

/// The rule that says which layers are offered to a recipe at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilterRule {
    /// Layers whose lower-cased name contains one of these words stay in high precision.
    pub skip: Vec<String>,
    /// Both dimensions of a weight must be multiples of this.
    pub multiple_of: usize,
    /// Only layers that one of these stands for; all of them where there is none.
    pub include: Vec<Glob>,
    /// No layer that one of these stands for.
    pub exclude: Vec<Glob>,
    /// So many blocks at the beginning stay in high precision.
    pub first: usize,
    /// So many blocks at the end.
    pub last: usize,
    /// How much a layer must gain from FP8.
    pub min_gain: MinGain,
}

impl FilterRule {
    /// Why `layer` is kept back, if it is; the model has so many `blocks`. What [`FilterRule::min_gain`] says depends on
    /// the recipe, and comes after this.
    pub(super) fn objection(&self, layer: &LayerFacts, blocks: usize) -> Option<String> {
        let name = layer.name.to_lowercase();
        if let Some(word) = self.skip.iter().find(|word| name.contains(&word.to_lowercase())) {
            return Some(format!("its name contains `{word}`"));
        }
        if let Some(glob) = self.exclude.iter().find(|glob| glob.matches(&layer.name)) {
            return Some(format!("`exclude` names it: `{glob}`"));
        }
        if !self.include.is_empty() && !self.include.iter().any(|glob| glob.matches(&layer.name)) {
            return Some(format!("`include` does not name it: {}", listed(&self.include)));
        }
        if let Some(block) = layer.block {
            let among = |n: usize, edge: &str| match n {
                1 => Some(format!("the {edge} block (`{edge} = 1`)")),
                n => Some(format!("one of the {edge} {n} blocks (`{edge} = {n}`)")),
            };
            if block < self.first {
                return among(self.first, "first");
            }
            if block + self.last >= blocks {
                return among(self.last, "last");
            }
        }
        let m = self.multiple_of;
        for (what, n) in [("in_features", layer.in_features), ("out_features", layer.out_features)] {
            if m > 1 && !n.is_multiple_of(m) {
                return Some(format!("{what} = {n} is not a multiple of {m}"));
            }
        }
        None
    }
}

/// The first few patterns.
fn listed(globs: &[Glob]) -> String {
    const MOST: usize = 3;
    let mut words: Vec<String> = globs.iter().take(MOST).map(|glob| format!("`{glob}`")).collect();
    if globs.len() > MOST {
        words.push("…".into());
    }
    words.join(", ")
}
