//! State of a recipe that must survive a restart: named tensors, kept by the engine as a safetensors file.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

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

    /// The tensors in the format of safetensors: the same bytes for the same tensors.
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        let views = self.0.iter().map(|(name, tensor)| {
            let named = |error: String| Error::invalid(format!("state `{name}`: {error}"));
            let dtype = DTYPES.iter().find(|(dtype, _)| *dtype == tensor.dtype);
            let &(_, dtype) = dtype.ok_or_else(|| named(format!("element type {}", tensor.dtype.0)))?;
            // The view multiplies the shape out unchecked.
            let elements = tensor.shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n));
            if elements.and_then(|n| n.checked_mul(tensor.dtype.size())) != Some(tensor.bytes.len()) {
                let (shape, bytes) = (&tensor.shape, tensor.bytes.len());
                return Err(named(format!(
                    "{bytes} bytes are not a tensor of {} {shape:?}",
                    tensor.dtype.name()
                )));
            }
            let view = TensorView::new(dtype, tensor.shape.clone(), &tensor.bytes);
            Ok((name.as_str(), view.map_err(|error| named(error.to_string()))?))
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        safetensors::serialize(views, None).map_err(|error| Error::invalid(format!("state: {error}")))
    }

    /// Reads what [`StateDict::to_safetensors`] wrote.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self> {
        let wrong = |error: String| Error::invalid(format!("state: {error}"));
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| wrong(error.to_string()))?;
        let read = |(name, view): (&str, TensorView<'_>)| {
            let dtype = DTYPES.iter().find(|(_, dtype)| *dtype == view.dtype());
            let &(dtype, _) = dtype.ok_or_else(|| wrong(format!("`{name}` has type {:?}", view.dtype())))?;
            let tensor = StateTensor { dtype, shape: view.shape().to_vec(), bytes: view.data().to_vec() };
            Ok((name.to_owned(), tensor))
        };
        Ok(Self(tensors.iter().map(read).collect::<Result<_>>()?))
    }
}

/// The types of this crate in safetensors' words.
const DTYPES: [(DType, Dtype); 4] = [
    (DType::F32, Dtype::F32),
    (DType::BF16, Dtype::BF16),
    (DType::E4M3, Dtype::F8_E4M3),
    (DType::E5M2, Dtype::F8_E5M2),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: DType, shape: &[usize], bytes: usize) -> StateTensor {
        StateTensor { dtype, shape: shape.to_vec(), bytes: (0..bytes).map(|i| i as u8).collect() }
    }

    #[test]
    fn state_reads_back_as_it_was_written() {
        let tensors = [
            ("amax.x", tensor(DType::F32, &[3, 2], 24)),
            ("codes", tensor(DType::E4M3, &[5], 5)),
            ("gradients", tensor(DType::E5M2, &[1, 1, 3], 3)),
            ("half", tensor(DType::BF16, &[], 2)),
            ("nothing", tensor(DType::F32, &[0, 7], 0)),
        ];
        for kept in 0..=tensors.len() {
            let named = tensors.iter().take(kept).map(|(name, tensor)| ((*name).to_owned(), tensor.clone()));
            let state = StateDict(named.collect());
            let bytes = state.to_safetensors().unwrap();
            assert_eq!(StateDict::from_safetensors(&bytes).unwrap(), state);
            assert_eq!(state.to_safetensors().unwrap(), bytes);
        }
    }

    #[test]
    fn bytes_that_are_no_state_are_errors() {
        let wrong = |tensor| StateDict([("amax".to_owned(), tensor)].into()).to_safetensors().unwrap_err();
        let error = wrong(tensor(DType::F32, &[2], 7)).to_string();
        assert!(error.contains("`amax`: 7 bytes are not a tensor of f32 [2]"), "{error}");
        assert!(wrong(tensor(DType(99), &[1], 1)).to_string().contains("element type 99"));
        assert!(wrong(tensor(DType::F32, &[usize::MAX, 2], 8)).to_string().contains("are not a tensor"));
        let good =
            StateDict([("amax".to_owned(), tensor(DType::F32, &[2], 8))].into()).to_safetensors().unwrap();
        for end in 0..good.len() {
            assert!(StateDict::from_safetensors(&good[..end]).is_err(), "cut at {end}");
        }
    }
}
