//! Reading safetensors: a header that is checked before it is trusted, and tensors as slices of the mapped file.
//!
//! A file is eight bytes of little-endian header length, a JSON object, and the tensors' bytes. Nothing that the
//! header says is believed: lengths are compared with the file's, products are checked, and the tensors must lie one
//! behind the other from the first byte of data to the last of the file, so that none overlaps another, leaves a
//! hole or hides bytes. Memory grows with the header's true size only, which is bounded by the format (100 MB).

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::Dtype as StoredType;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::error::ModelError;
use crate::mapping::Mapping;

/// Bytes of the header's length.
const LENGTH: usize = 8;
/// The longest header that the format allows.
const LONGEST_HEADER: u64 = 100_000_000;
/// The key of a header that is no tensor.
pub(crate) const METADATA: &str = "__metadata__";

/// A safetensors file, mapped, its header checked.
#[derive(Debug)]
pub struct SafeFile {
    path: PathBuf,
    map: Mapping,
    header: Header,
}

/// A tensor of a [`SafeFile`].
#[derive(Clone, Copy, Debug)]
pub struct StoredTensor<'a> {
    /// Element type.
    pub dtype: StoredType,
    /// Dimensions, outermost first; none for a scalar.
    pub shape: &'a [usize],
    /// Elements, row-major, little-endian; of any alignment.
    pub bytes: &'a [u8],
}

#[derive(Debug)]
struct Header {
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Entry {
    dtype: StoredType,
    shape: Vec<usize>,
    /// Within the file.
    place: Range<usize>,
}

impl SafeFile {
    /// Maps `path` and checks its header. No tensor is read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ModelError> {
        let path = path.into();
        let map = Mapping::open(&path)?;
        match Header::parse(map.bytes()) {
            Ok(header) => Ok(Self { path, map, header }),
            Err(problem) => Err(ModelError::Safetensors { path, problem }),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's own notes, such as `format`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
        self.header.entries.get(name).map(|entry| self.view(entry))
    }

    /// Every tensor, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, StoredTensor<'_>)> {
        self.header.entries.iter().map(|(name, entry)| (name.as_str(), self.view(entry)))
    }

    fn view<'a>(&'a self, entry: &'a Entry) -> StoredTensor<'a> {
        let bytes = &self.map.bytes()[entry.place.clone()];
        StoredTensor { dtype: entry.dtype, shape: &entry.shape, bytes }
    }
}

impl Header {
    /// The header of a file that consists of `bytes`, or what is wrong with it.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let size = bytes.len();
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else {
            return Err(format!("it has {size} bytes, fewer than the {LENGTH} of a header's length"));
        };
        let length = u64::from_le_bytes(*length);
        if length > LONGEST_HEADER {
            return Err(format!("it claims a header of {length} bytes; the format allows {LONGEST_HEADER}"));
        }
        let Some((json, data)) = rest.split_at_checked(length as usize) else {
            return Err(format!(
                "it claims a header of {length} bytes, but has {} after the length",
                rest.len()
            ));
        };
        let raw: RawHeader = serde_json::from_slice(json).map_err(|error| format!("its header: {error}"))?;

        let mut order = Vec::with_capacity(raw.tensors.len());
        for (name, tensor) in &raw.tensors {
            let [start, end] = tensor.data_offsets;
            let Some(stored) = end.checked_sub(start) else {
                return Err(format!("tensor `{name}` ends at byte {end}, before its start at {start}"));
            };
            let Some(needed) = bytes_of(tensor.dtype, &tensor.shape) else {
                let (dtype, shape) = (tensor.dtype, &tensor.shape);
                return Err(format!(
                    "tensor `{name}`: {dtype} of shape {shape:?} has no whole number of bytes"
                ));
            };
            if stored != needed {
                let (dtype, shape) = (tensor.dtype, &tensor.shape);
                return Err(format!(
                    "tensor `{name}`: {dtype} of shape {shape:?} needs {needed} bytes, its offsets span {stored}"
                ));
            }
            order.push((start, end, name));
        }
        order.sort_unstable();
        let mut reached = 0;
        for (start, end, name) in order {
            if start < reached {
                return Err(format!("tensor `{name}` starts at byte {start}, inside the one before it"));
            }
            if start > reached {
                return Err(format!("no tensor holds the {} bytes before `{name}`", start - reached));
            }
            reached = end;
        }
        let present = data.len() as u64;
        if present < reached {
            return Err(format!(
                "its tensors need {reached} bytes, but only {present} are there: the file was cut off; copy it again"
            ));
        }
        if present > reached {
            return Err(format!("{} bytes follow its last tensor", present - reached));
        }

        // Every offset is at most `reached`, which is the length of `data`.
        let first = size - data.len();
        let mut entries = BTreeMap::new();
        for (name, RawTensor { dtype, shape, data_offsets: [start, end] }) in raw.tensors {
            let place = first + start as usize..first + end as usize;
            match entries.entry(name) {
                std::collections::btree_map::Entry::Vacant(vacant) => {
                    vacant.insert(Entry { dtype, shape, place });
                }
                std::collections::btree_map::Entry::Occupied(entry) => {
                    return Err(format!("tensor `{}` is described twice", entry.key()));
                }
            }
        }
        Ok(Self { entries, metadata: raw.metadata })
    }
}

/// `dtype × shape` in bytes; `None` for a fraction of a byte or more than 2⁶⁴ bits.
fn bytes_of(dtype: StoredType, shape: &[usize]) -> Option<u64> {
    let bits = shape
        .iter()
        .try_fold(dtype.bitsize() as u64, |bits, &dimension| bits.checked_mul(dimension as u64))?;
    (bits % 8 == 0).then_some(bits / 8)
}

/// The header as written, in its order, duplicates kept.
struct RawHeader {
    tensors: Vec<(String, RawTensor)>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: StoredType,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;

        impl<'de> Visitor<'de> for Keys {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut header = RawHeader { tensors: Vec::new(), metadata: BTreeMap::new() };
                while let Some(key) = map.next_key::<String>()? {
                    if key == METADATA {
                        header.metadata = map.next_value()?;
                    } else {
                        let tensor = map
                            .next_value()
                            .map_err(|error| A::Error::custom(format_args!("tensor `{key}`: {error}")))?;
                        header.tensors.push((key, tensor));
                    }
                }
                Ok(header)
            }
        }

        deserializer.deserialize_map(Keys)
    }
}
