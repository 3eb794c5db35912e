//! Safetensors: what is written is read again, here and by the official crate; a hostile header is an error.

use std::path::Path;
use std::sync::LazyLock;

use fp8flow_model::{NamedTensor, SafeFile, StoredType, TensorData, write_safetensors};
use proptest::prelude::*;
use safetensors::SafeTensors;

const F32S: [f32; 6] = [1.0, -2.5, 3.25e-3, f32::MAX, f32::MIN_POSITIVE, 0.1];

fn named<'a>(name: &str, dtype: StoredType, shape: &[usize], data: TensorData<'a>) -> NamedTensor<'a> {
    NamedTensor { name: name.into(), dtype, shape: shape.to_vec(), data }
}

/// A file with tensors of three widths, one without elements and one without dimensions.
fn sample(path: &Path) {
    let tensors = [
        named("bytes", StoredType::U8, &[3], TensorData::Bytes(&[1, 2, 3])),
        named("half", StoredType::BF16, &[2, 3], TensorData::F32(&F32S)),
        named("empty", StoredType::F32, &[4, 0], TensorData::F32(&[])),
        named("full", StoredType::F32, &[3, 2], TensorData::F32(&F32S)),
        named("scalar", StoredType::I64, &[], TensorData::Bytes(&[7, 0, 0, 0, 0, 0, 0, 0])),
    ];
    write_safetensors(path, tensors, &[("format", "pt"), ("step", "12")]).unwrap();
}

/// A file of a header and data, as an enemy would make it.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn open(bytes: &[u8]) -> Result<SafeFile, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let prefix = format!("{}: not a sound safetensors file: ", path.display());
    SafeFile::open(&path).map_err(|error| error.to_string().strip_prefix(&prefix).unwrap().to_owned())
}

#[test]
fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    sample(&path);
    let file = SafeFile::open(&path).unwrap();
    let names: Vec<_> = file.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["bytes", "empty", "full", "half", "scalar"]);
    assert_eq!(file.metadata()["step"], "12");
    let full = file.get("full").unwrap();
    assert_eq!((full.dtype, full.shape), (StoredType::F32, &[3, 2][..]));
    assert_eq!(full.bytes, F32S.map(f32::to_le_bytes).concat());
    let half = file.get("half").unwrap();
    assert_eq!(half.bytes, F32S.map(|x| half::bf16::from_f32(x).to_le_bytes()).concat());
    assert_eq!(file.get("bytes").unwrap().bytes, [1, 2, 3]);
    assert!(file.get("empty").unwrap().bytes.is_empty());
    assert!(file.get("scalar").unwrap().shape.is_empty());
    assert!(file.get("absent").is_none());
}

#[test]
fn the_official_crate_reads_the_same_and_every_tensor_is_aligned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    sample(&path);
    let bytes = std::fs::read(&path).unwrap();
    let official = SafeTensors::deserialize(&bytes).unwrap();
    let ours = SafeFile::open(&path).unwrap();
    assert_eq!(official.len(), ours.iter().count());
    for (name, tensor) in ours.iter() {
        let theirs = official.tensor(name).unwrap();
        assert_eq!(
            (theirs.dtype(), theirs.shape(), theirs.data()),
            (tensor.dtype, tensor.shape, tensor.bytes)
        );
        let offset = theirs.data().as_ptr() as usize - bytes.as_ptr() as usize;
        assert_eq!(offset % (tensor.dtype.bitsize() / 8), 0, "{name}");
    }
}

#[test]
fn size_and_digest_are_those_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let data: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
    let tensor = named("x", StoredType::F16, &[100_000], TensorData::F32(&data));
    let written = write_safetensors(&path, [tensor], &[]).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(written.bytes, bytes.len() as u64);
    assert_eq!(written.digest, blake3::hash(&bytes));
}

#[test]
fn a_file_that_exists_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    std::fs::write(&path, "precious").unwrap();
    let error = write_safetensors(&path, [], &[]).unwrap_err();
    assert!(error.to_string().starts_with(&format!("{}: cannot create: ", path.display())), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn lies_of_a_header_are_told_apart() {
    let cases = [
        (vec![], "it has 0 bytes, fewer than the 8 of a header's length"),
        (vec![1, 0, 0], "it has 3 bytes, fewer than the 8 of a header's length"),
        (
            u64::MAX.to_le_bytes().to_vec(),
            "it claims a header of 18446744073709551615 bytes; the format allows 100000000",
        ),
        (
            [&99_999_999_u64.to_le_bytes()[..], b"{}"].concat(),
            "it claims a header of 99999999 bytes, but has 2 after the length",
        ),
        (file("{]", b""), "its header: key must be a string at line 1 column 2"),
        (
            file("[]", b""),
            "its header: invalid type: sequence, expected an object of tensors by name at line 1 column 0",
        ),
        (file("\u{fffd}", b""), "its header: expected value at line 1 column 1"),
        (
            file(r#"{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}"#, &[0; 4]),
            "its header: tensor `a`: unknown variant `F99`",
        ),
        (
            file(r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, &[0; 4]),
            "its header: tensor `a`: invalid value: integer `-1`, expected usize",
        ),
        (
            file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, &[0; 4]),
            "tensor `a` ends at byte 0, before its start at 4",
        ),
        (
            file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, &[0; 4]),
            "tensor `a`: F32 of shape [2] needs 8 bytes, its offsets span 4",
        ),
        (
            file(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#, &[0; 4]),
            "tensor `a`: F32 of shape [4294967296, 4294967296] has no whole number of bytes",
        ),
        (
            file(r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#, &[0; 1]),
            "tensor `a`: F4 of shape [3] has no whole number of bytes",
        ),
        (
            file(
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}"#,
                &[0; 6],
            ),
            "tensor `b` starts at byte 2, inside the one before it",
        ),
        (
            file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, &[0; 8]),
            "no tensor holds the 4 bytes before `a`",
        ),
        (
            file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, &[0; 5]),
            "its tensors need 8 bytes, but only 5 are there: the file was cut off; copy it again",
        ),
        (
            file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, &[0; 6]),
            "2 bytes follow its last tensor",
        ),
        (
            file(
                r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
                &[0; 2],
            ),
            "tensor `a` is described twice",
        ),
    ];
    for (bytes, problem) in cases {
        let found = open(&bytes).unwrap_err();
        assert!(found.starts_with(problem), "{found}\nexpected {problem}");
    }
}

#[test]
fn a_folder_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    assert!(SafeFile::open(folder.path()).unwrap_err().to_string().contains("it is not a regular file"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A file with some bytes changed, some cut off and some added is refused, or else it is one that the official
    /// crate reads as we do.
    #[test]
    fn a_damaged_file_is_refused_or_read_as_the_official_crate_reads_it(
        changes in prop::collection::vec((0_usize..600, prop_oneof![any::<u8>(), prop::sample::select(b"0123456789,:[]{}\"".to_vec())]), 0..4),
        cut in prop_oneof![3 => Just(0_usize), 1 => 0_usize..600],
        added in prop_oneof![3 => Just(0_usize), 1 => 0_usize..16],
    ) {
        static SAMPLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.safetensors");
            sample(&path);
            std::fs::read(&path).unwrap()
        });
        let mut bytes = SAMPLE.clone();
        for (place, value) in changes {
            let place = place % bytes.len();
            bytes[place] = value;
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        bytes.extend(std::iter::repeat_n(0, added));
        if let Ok(ours) = open(&bytes) {
            let official = SafeTensors::deserialize(&bytes).unwrap();
            prop_assert_eq!(official.len(), ours.iter().count());
            for (name, tensor) in ours.iter() {
                let theirs = official.tensor(name).unwrap();
                prop_assert_eq!((theirs.shape(), theirs.data()), (tensor.shape, tensor.bytes));
            }
        }
    }

    #[test]
    fn any_bytes_behind_a_true_length_are_refused_or_read(header in prop::collection::vec(any::<u8>(), 0..64)) {
        let bytes = [&(header.len() as u64).to_le_bytes()[..], &header].concat();
        if let Ok(file) = open(&bytes) {
            prop_assert_eq!(file.iter().count(), 0);
        }
    }
}
