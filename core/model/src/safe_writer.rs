//! Writing safetensors as a stream: the header first, then one tensor after the other, converted on the way.
//!
//! No second copy of the tensors stands in memory. The bytes of a file are a function of its tensors and notes.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use fp8flow_tensor::{DType, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype as StoredType;
use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::new_file::{NewFile, Written};
use crate::safe_file::METADATA;

/// Elements converted at a time.
const CHUNK: usize = 1 << 12;

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct NamedTensor<'a> {
    /// Its name in the file.
    pub name: String,
    /// Its type in the file.
    pub dtype: StoredType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Its elements.
    pub data: TensorData<'a>,
}

/// The elements of a [`NamedTensor`], row-major.
#[derive(Clone, Copy, Debug)]
pub enum TensorData<'a> {
    /// As they will stand in the file, little-endian.
    Bytes(&'a [u8]),
    /// Rounded to nearest even as they are written, to `F32`, `BF16` or `F16`.
    F32(&'a [f32]),
    /// The same of a tensor of f32, which is fetched when its turn comes if it is on a card.
    Tensor(&'a Tensor),
}

impl NamedTensor<'_> {
    /// Bytes in the file.
    fn len(&self) -> usize {
        match self.data {
            TensorData::Bytes(bytes) => bytes.len(),
            TensorData::F32(elements) => elements.len() * self.dtype.bitsize() / 8,
            TensorData::Tensor(tensor) => tensor.rows() * tensor.cols() * self.dtype.bitsize() / 8,
        }
    }

    fn check(&self) {
        let (name, dtype, elements) = (&self.name, self.dtype, self.shape.iter().product::<usize>());
        match self.data {
            TensorData::Bytes(bytes) => {
                assert_eq!(bytes.len() * 8, elements * dtype.bitsize(), "bytes of tensor `{name}`");
            }
            TensorData::F32(data) => {
                assert_eq!(data.len(), elements, "elements of tensor `{name}`");
            }
            TensorData::Tensor(tensor) => {
                let is = (tensor.dtype(), tensor.rows() * tensor.cols());
                assert_eq!(is, (DType::F32, elements), "elements of tensor `{name}`");
            }
        }
        assert!(
            matches!(self.data, TensorData::Bytes(_))
                || matches!(dtype, StoredType::F32 | StoredType::BF16 | StoredType::F16),
            "tensor `{name}`: no rounding from f32 to {dtype}"
        );
    }
}

/// Writes `tensors` and the notes `metadata` to the new file `path`, and waits until the disk has them.
///
/// The tensors stand in the given order, those of wider types first, so that each is aligned to its type. On an
/// error no file remains. A file that exists is an error: it may be mapped, so it is never truncated; whoever
/// replaces one writes aside and renames.
///
/// # Panics
/// If a tensor's elements are not those of its shape and type, or two have the same name.
pub fn write_safetensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = NamedTensor<'a>>,
    metadata: &[(&str, &str)],
) -> Result<Written, ModelError> {
    write_until(path, tensors, metadata, &AtomicBool::new(false))
}

/// The same; soon after `stop` is set it ends with [`ModelError::Stopped`].
pub(crate) fn write_until<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = NamedTensor<'a>>,
    metadata: &[(&str, &str)],
    stop: &AtomicBool,
) -> Result<Written, ModelError> {
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    tensors.sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype.bitsize()));
    let header = header(&tensors, metadata);
    let written = NewFile::write(path, |out| {
        out.write_all(&header)?;
        for tensor in &tensors {
            match tensor.data {
                TensorData::Bytes(bytes) => out.write_all(bytes)?,
                TensorData::F32(elements) => write_rounded(out, tensor.dtype, elements, stop)?,
                TensorData::Tensor(there) => {
                    let here = there.here().map_err(io::Error::other)?;
                    write_rounded(out, tensor.dtype, here.f32(), stop)?;
                }
            }
        }
        Ok(())
    });
    if stop.load(Ordering::Relaxed) && written.is_err() { Err(ModelError::Stopped) } else { written }
}

/// The length and the JSON object in front of the tensors, padded to eight bytes.
fn header(tensors: &[NamedTensor<'_>], metadata: &[(&str, &str)]) -> Vec<u8> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        let notes: Map<_, _> = metadata.iter().map(|&(key, value)| (key.to_owned(), json!(value))).collect();
        header.insert(METADATA.to_owned(), Value::Object(notes));
    }
    let mut names = HashSet::new();
    let mut start = 0;
    for tensor in tensors {
        tensor.check();
        assert!(names.insert(&tensor.name), "two tensors are called `{}`", tensor.name);
        let end = start + tensor.len();
        header.insert(
            tensor.name.clone(),
            json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end] }),
        );
        start = end;
    }
    let mut json = Value::Object(header).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    bytes
}

fn write_rounded(
    out: &mut impl Write,
    dtype: StoredType,
    elements: &[f32],
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut half = [0_u16; CHUNK];
    for chunk in elements.chunks(CHUNK) {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped"));
        }
        let half = &mut half[..chunk.len()];
        match dtype {
            StoredType::BF16 => bytemuck::cast_slice_mut::<_, bf16>(half).convert_from_f32_slice(chunk),
            StoredType::F16 => bytemuck::cast_slice_mut::<_, f16>(half).convert_from_f32_slice(chunk),
            _ => {
                out.write_all(bytemuck::cast_slice(chunk))?;
                continue;
            }
        }
        out.write_all(bytemuck::cast_slice(half))?;
    }
    Ok(())
}
