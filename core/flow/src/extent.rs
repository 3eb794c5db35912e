//! How far a stage goes, where it goes step by step: a longer result may go on from a shorter one, and a shorter one may be
//! a state on the way of a longer one.

use crate::{Params, StageKind};

/// What the number of a stage's steps has to do with its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// It has no steps, or their number is no key.
    None,
    /// The value of this key, a whole number, only says where it ends: the state after each step is the same for any.
    Open(&'static str),
    /// The value of this key changes earlier steps too: why, and what to write so that it does not.
    Bound {
        /// The key.
        key: &'static str,
        /// A sentence for people.
        why: String,
    },
}

/// The key that only says where the stage ends, with its value.
pub(crate) fn open(kind: &dyn StageKind, params: &Params) -> Option<(&'static str, u64)> {
    let Extent::Open(key) = kind.extent(params) else { return None };
    Some((key, params.json().get(key)?.as_u64()?))
}
