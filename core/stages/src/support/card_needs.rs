//! What a recipe needs of a card and of its driver.

use std::fmt;

/// A version, or a compute capability: major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

/// What a recipe needs of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CardNeeds {
    /// The oldest compute capability.
    pub oldest: Version,
    /// The newest, where later ones lack what it needs.
    pub newest: Option<Version>,
    /// The oldest CUDA on cards older than Hopper.
    pub cuda: Version,
    /// The oldest CUDA on Hopper.
    pub cuda_on_hopper: Version,
}

pub(crate) const ADA: Version = Version(8, 9);
pub(crate) const HOPPER: Version = Version(9, 0);

impl CardNeeds {
    /// Why a card of `capability` is of no use to it, if so.
    pub fn objection(&self, capability: Version) -> Option<String> {
        match self.newest {
            _ if capability < self.oldest => {
                Some(format!("needs compute capability {} or higher", self.oldest))
            }
            Some(newest) if capability > newest => Some(format!("needs compute capability {}", self.range())),
            _ => None,
        }
    }

    /// Why a driver for `cuda` is too old for it on a card of `capability`, if so.
    pub fn driver_objection(&self, capability: Version, cuda: Version) -> Option<String> {
        let oldest = if capability < HOPPER { self.cuda } else { self.cuda_on_hopper };
        (cuda < oldest).then(|| format!("needs CUDA {oldest}"))
    }

    pub(super) fn range(&self) -> String {
        match self.newest {
            Some(newest) if newest == self.oldest => newest.to_string(),
            Some(newest) => format!("{} to {newest}", self.oldest),
            None => format!("{} or higher", self.oldest),
        }
    }
}

impl From<(u32, u32)> for Version {
    fn from((major, minor): (u32, u32)) -> Self {
        Self(major, minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DeviceClass, HYBRID, TORCHAO, row};
    use super::*;

    #[test]
    fn cards_are_judged_by_their_compute_capability() {
        let needs = |recipe| row(TORCHAO, recipe, DeviceClass::Cuda).unwrap().card.unwrap();
        let (rowwise, tensorwise) = (needs("rowwise"), needs("tensorwise"));
        assert_eq!(
            [rowwise.objection(HOPPER), rowwise.objection(ADA), tensorwise.objection(ADA)],
            [const { None }; 3]
        );
        let old = "needs compute capability 8.9 or higher";
        assert_eq!(tensorwise.objection(Version(8, 0)).as_deref(), Some(old));
        let new = "needs compute capability 8.9 to 9.0";
        assert_eq!(rowwise.objection(Version(10, 0)).as_deref(), Some(new));
        let blockwise = row(HYBRID, "blockwise", DeviceClass::Cuda).unwrap().card.unwrap();
        let hopper = "needs compute capability 9.0 or higher";
        assert_eq!(blockwise.objection(ADA).as_deref(), Some(hopper));
    }

    #[test]
    fn drivers_are_judged_by_the_card_they_drive() {
        let rowwise = row(TORCHAO, "rowwise", DeviceClass::Cuda).unwrap().card.unwrap();
        assert_eq!(rowwise.driver_objection(ADA, Version(12, 1)), None);
        assert_eq!(rowwise.driver_objection(HOPPER, Version(12, 8)).as_deref(), Some("needs CUDA 12.9"));
        assert_eq!(rowwise.driver_objection(HOPPER, Version(13, 0)), None);
    }
}
