//! What a call did wrong, and what its memory tells of it afterwards.

use fp8flow_sdk::Error;

/// Why a call did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The backend returned an error.
    #[error("{call} failed: {error}")]
    Call {
        /// Which call.
        call: &'static str,
        /// What it returned.
        error: Error,
    },
    /// Memory beside what was lent has changed.
    #[error(
        "{call} wrote outside the {region}: write within the lengths and shapes of the call, and ask for what is needed in `Linear::memory`"
    )]
    OutOfBounds {
        /// Which call.
        call: &'static str,
        /// Beside what.
        region: &'static str,
    },
    /// What was lent to be read has changed.
    #[error("{call} wrote into its input `{input}`: copy what must change into scratch memory")]
    WroteInput {
        /// Which call.
        call: &'static str,
        /// The field of the call.
        input: &'static str,
    },
    /// Anything else that should be otherwise.
    #[error("{0}")]
    Wrong(String),
}

/// What was lent to be read, as it was before the call.
pub(crate) struct Lent(Vec<(&'static str, Vec<u8>)>);

impl Lent {
    pub(crate) fn new(inputs: &[(&'static str, &[u8])]) -> Self {
        Self(inputs.iter().map(|(name, bytes)| (*name, bytes.to_vec())).collect())
    }

    /// Whether `now` holds the same, in the same order.
    pub(crate) fn unchanged(&self, call: &'static str, now: &[&[u8]]) -> Result<(), Failure> {
        match self.0.iter().zip(now).find(|((_, before), now)| before != *now) {
            Some(((input, _), _)) => Err(Failure::WroteInput { call, input }),
            None => Ok(()),
        }
    }
}

/// Whether nothing was written outside any of these.
pub(crate) fn intact(call: &'static str, regions: &[(&'static str, bool)]) -> Result<(), Failure> {
    match regions.iter().find(|(_, intact)| !intact) {
        Some((region, _)) => Err(Failure::OutOfBounds { call, region }),
        None => Ok(()),
    }
}
