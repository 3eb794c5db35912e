//! State of a recipe that must survive a restart: named tensors, kept by the engine as a safetensors file.

use std::collections::BTreeMap;

use crate::{DType, Error, Result};

/// One named tensor of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateTensor {
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Vec<usize>,
    /// Elements, little-endian, row-major.
    pub bytes: Vec<u8>,
}

/// Tensors by name, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateDict(pub BTreeMap<String, StateTensor>);

impl StateDict {
    /// Fails unless there is nothing in it: for recipes without state.
    pub fn expect_empty(&self) -> Result<()> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::invalid(format!("this recipe keeps no state, but was given `{name}`"))),
        }
    }
}
