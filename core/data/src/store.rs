//! A token set as one safetensors file.
//!
//! Three tensors, `ids` (u32), `labels` (i32) and `offsets` (u64), and in the metadata under [`KEY`] the vocabulary.
//! The bytes are a function of the set alone.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use bytemuck::AnyBitPattern;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::{DataError, MASKED, TokenSet};

/// Where the metadata stands; one key, because the library writes several in no fixed order.
const KEY: &str = "fp8flow.tokens";

/// The layout described above.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u32,
    vocabulary: usize,
}

impl TokenSet {
    /// Writes the set to `path`: the file is there as a whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), DataError> {
        let io = |source| DataError::Io { action: "write", path: path.to_owned(), source };
        let bytes = self.to_bytes().map_err(|error| io(std::io::Error::other(error)))?;
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let aside = aside(path);
        let written = File::create(&aside)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&aside, path));
        if let Err(error) = written {
            let _ = fs::remove_file(&aside);
            return Err(io(error));
        }
        // The new name itself has to reach the disk.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
    }

    /// Reads a set written by [`save`](Self::save), and checks all that the rest of the program relies on.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let bytes = fs::read(path).map_err(|source| DataError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        Self::from_bytes(&bytes).map_err(|found| DataError::File {
            path: path.to_owned(),
            expected: "a token set as fp8flow writes it".into(),
            found,
        })
    }

    fn to_bytes(&self) -> Result<Vec<u8>, safetensors::SafeTensorError> {
        let (ids, labels, offsets) = self.parts();
        let view = |dtype, length, bytes| TensorView::new(dtype, vec![length], bytes);
        let tensors = [
            ("ids", view(Dtype::U32, ids.len(), bytemuck::cast_slice(ids))?),
            ("labels", view(Dtype::I32, labels.len(), bytemuck::cast_slice(labels))?),
            ("offsets", view(Dtype::U64, offsets.len(), bytemuck::cast_slice(offsets))?),
        ];
        let meta = format!("{{\"version\":{VERSION},\"vocabulary\":{}}}", self.vocabulary());
        safetensors::serialize(tensors, Some(HashMap::from([(KEY.to_owned(), meta)])))
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
        let meta =
            header.metadata().as_ref().and_then(|meta| meta.get(KEY)).ok_or("another safetensors file")?;
        let meta: Meta =
            serde_json::from_str(meta).map_err(|error| format!("metadata that is none: {error}"))?;
        if meta.version != VERSION {
            return Err(format!("one of version {}: this program reads {VERSION}", meta.version));
        }
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let ids: Vec<u32> = tensor(&tensors, "ids", Dtype::U32)?;
        let labels: Vec<i32> = tensor(&tensors, "labels", Dtype::I32)?;
        let offsets: Vec<u64> = tensor(&tensors, "offsets", Dtype::U64)?;
        if labels.len() != ids.len() {
            return Err(format!("{} labels for {} tokens", labels.len(), ids.len()));
        }
        if offsets.first() != Some(&0) || offsets.last() != Some(&(ids.len() as u64)) || !offsets.is_sorted()
        {
            return Err("examples that do not cover the tokens".into());
        }
        let vocabulary = meta.vocabulary;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(format!("the token {id} in a vocabulary of {vocabulary}"));
        }
        let fits =
            |label: i32| label == MASKED || usize::try_from(label).is_ok_and(|label| label < vocabulary);
        if let Some(label) = labels.iter().find(|&&label| !fits(label)) {
            return Err(format!("the label {label} in a vocabulary of {vocabulary}"));
        }
        Ok(Self::from_parts(ids, labels, offsets, vocabulary))
    }
}

fn tensor<T: AnyBitPattern>(tensors: &SafeTensors<'_>, name: &str, dtype: Dtype) -> Result<Vec<T>, String> {
    let view = tensors.tensor(name).map_err(|_| format!("no tensor `{name}`"))?;
    if view.dtype() != dtype || view.shape().len() != 1 {
        return Err(format!("`{name}` as {:?} of shape {:?}", view.dtype(), view.shape()));
    }
    Ok(view.data().chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect())
}

/// Where the file is written before it has its name: always the same place, so that what a killed process left there is
/// replaced by the next.
fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.aside"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set() -> TokenSet {
        let mut set = TokenSet::new(50);
        set.push(&[1, 2, 49], &[MASKED, 2, 49]);
        set.push(&[], &[]);
        set.push(&[7, 8], &[7, MASKED]);
        set
    }

    #[test]
    fn a_saved_set_reads_back_and_its_bytes_depend_on_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.safetensors");
        for set in [set(), TokenSet::new(3)] {
            set.save(&path).unwrap();
            assert_eq!(TokenSet::open(&path).unwrap(), set);
            assert_eq!(std::fs::read(&path).unwrap(), set.to_bytes().unwrap());
        }
        let names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, ["train.safetensors"], "nothing is left aside");
    }

    #[test]
    fn what_a_killed_process_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.safetensors");
        fs::write(folder.path().join(".train.safetensors.aside"), "half of a file").unwrap();
        set().save(&path).unwrap();
        assert_eq!(TokenSet::open(&path).unwrap(), set());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        // It cannot take the place of a folder, and leaves nothing beside it.
        fs::create_dir_all(folder.path().join("taken/inner")).unwrap();
        set().save(&folder.path().join("taken")).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_set_that_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let error = set().save(&folder.path().join("missing/train.safetensors")).unwrap_err().to_string();
        assert!(error.starts_with("cannot write ") && error.contains("missing/train.safetensors"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    fn with(ids: &[u32], labels: &[i32], offsets: &[u64], meta: &str) -> Result<TokenSet, String> {
        let view = |dtype, length, bytes| TensorView::new(dtype, vec![length], bytes).unwrap();
        let tensors = [
            ("ids", view(Dtype::U32, ids.len(), bytemuck::cast_slice(ids))),
            ("labels", view(Dtype::I32, labels.len(), bytemuck::cast_slice(labels))),
            ("offsets", view(Dtype::U64, offsets.len(), bytemuck::cast_slice(offsets))),
        ];
        let meta = HashMap::from([(KEY.to_owned(), meta.to_owned())]);
        TokenSet::from_bytes(&safetensors::serialize(tensors, Some(meta)).unwrap())
    }

    #[test]
    fn a_file_that_contradicts_itself_is_refused() {
        let good = r#"{"version":1,"vocabulary":10}"#;
        assert_eq!(with(&[1, 2], &[1, -100], &[0, 1, 2], good).unwrap().len(), 2);
        for (found, expected) in [
            (with(&[1, 2], &[1], &[0, 2], good), "1 labels for 2 tokens"),
            (with(&[1, 2], &[1, 2], &[], good), "examples that do not cover the tokens"),
            (with(&[1, 2], &[1, 2], &[1, 2], good), "examples that do not cover the tokens"),
            (with(&[1, 2], &[1, 2], &[0, 1], good), "examples that do not cover the tokens"),
            (with(&[1, 2], &[1, 2], &[0, 5, 2], good), "examples that do not cover the tokens"),
            (with(&[1, 10], &[1, 2], &[0, 2], good), "the token 10 in a vocabulary of 10"),
            (with(&[1, 2], &[1, 10], &[0, 2], good), "the label 10 in a vocabulary of 10"),
            (with(&[1, 2], &[1, -1], &[0, 2], good), "the label -1 in a vocabulary of 10"),
            (
                with(&[1], &[1], &[0, 1], r#"{"version":2,"vocabulary":10}"#),
                "one of version 2: this program reads 1",
            ),
        ] {
            assert_eq!(found.unwrap_err(), expected);
        }
        assert!(TokenSet::from_bytes(b"").is_err());
    }

    proptest! {
        #[test]
        fn no_damage_makes_reading_panic(at in 0..1000_usize, byte: u8, keep in 0..1000_usize) {
            let mut bytes = set().to_bytes().unwrap();
            let length = bytes.len();
            bytes[at % length] = byte;
            let _ = TokenSet::from_bytes(&bytes);
            bytes.truncate(keep % length);
            prop_assert!(TokenSet::from_bytes(&bytes).is_err());
        }
    }
}
