//! Files that were made to harm: whatever stands in them, reading is bounded and ends in an error or a manifest.

use std::io::{Cursor, Read, Seek, SeekFrom};
use std::sync::OnceLock;

use fp8flow_host::elf::{NotAPlugin, read_manifest};
use fp8flow_sdk::Manifest;
use proptest::prelude::*;

use crate::common::{bytes, manifest_start};

/// Counts what is read.
struct Counted<'a> {
    file: Cursor<&'a [u8]>,
    read: &'a mut usize,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        *self.read += read;
        Ok(read)
    }
}

impl Seek for Counted<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(to)
    }
}

fn read(file: &[u8]) -> Result<Manifest, NotAPlugin> {
    let mut read = 0;
    let result = read_manifest(Counted { file: Cursor::new(file), read: &mut read });
    assert!(read < 16 << 20, "{read} bytes were read");
    result
}

fn library() -> &'static [u8] {
    static LIBRARY: OnceLock<Vec<u8>> = OnceLock::new();
    LIBRARY.get_or_init(|| bytes("crashing"))
}

/// Where changes matter: the header, the program headers, the section headers and their names, the manifest.
fn interesting() -> &'static [std::ops::Range<usize>] {
    static RANGES: OnceLock<Vec<std::ops::Range<usize>>> = OnceLock::new();
    RANGES.get_or_init(|| {
        let file = library();
        let u16_at = |at: usize| usize::from(u16::from_le_bytes(file[at..at + 2].try_into().unwrap()));
        let u64_at = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
        let (programs, sections) = (u64_at(32), u64_at(40));
        let names = sections + 64 * u16_at(62);
        let names = u64_at(names + 24)..u64_at(names + 24) + u64_at(names + 32);
        let manifest = manifest_start(file).unwrap();
        let sections = sections..sections + 64 * u16_at(60);
        vec![0..64, programs..programs + 56 * u16_at(56), sections, names, manifest..manifest + 400]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_library_with_changed_tables_is_read_or_refused(
        changes in prop::collection::vec((0_usize..5, any::<prop::sample::Index>(), any::<u8>()), 1..12),
        end in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut file = library().to_vec();
        for (range, at, byte) in changes {
            let range = interesting()[range].clone();
            file[range.start + at.index(range.len())] = byte;
        }
        if let Some(end) = end {
            file.truncate(end.index(library().len()));
        }
        if let Ok(manifest) = read(&file) {
            prop_assert!(manifest.name.len() <= 128 && !manifest.about.contains(char::is_control));
        }
    }

    #[test]
    fn a_changed_manifest_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        end in any::<prop::sample::Index>(),
    ) {
        let start = manifest_start(library()).unwrap();
        let length = u32::from_le_bytes(library()[start + 16..start + 20].try_into().unwrap()) as usize;
        let mut section = library()[start..start + 20 + length].to_vec();
        prop_assert!(Manifest::parse(&section).is_ok());
        prop_assert!(Manifest::parse(&section[..end.index(section.len())]).is_err());
        for (at, byte) in changes {
            let at = at.index(section.len());
            section[at] = byte;
        }
        // Either way it ends, and a handshake can be asked for.
        let _ = Manifest::parse(&section).map(|manifest| manifest.check());
    }

    #[test]
    fn anything_else_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), elf in any::<bool>()) {
        let file = if elf { [b"\x7fELF\x02\x01".as_slice(), &bytes].concat() } else { bytes.clone() };
        prop_assert!(read(&file).is_err());
        prop_assert!(Manifest::parse(&bytes).is_err());
    }
}

#[test]
fn a_file_of_any_size_is_refused_without_being_read() {
    struct Endless;
    impl Read for Endless {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            panic!("it was read");
        }
    }
    impl Seek for Endless {
        fn seek(&mut self, _: SeekFrom) -> std::io::Result<u64> {
            Ok(u64::MAX)
        }
    }
    assert!(matches!(read_manifest(Endless), Err(NotAPlugin::TooLarge(_))));
}
