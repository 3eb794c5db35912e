//! The manifest of a shared library, read without opening the library.
//!
//! Opening runs code, and a library that is cut short kills the process that opens it. So everything is seen here
//! first: that it is an ELF library for this machine, that the file is as long as its segments say, and what stands in
//! the section of the manifest. The file may be anything: reads are bounded, and every number in it is checked.

use std::io;

use fp8flow_sdk::Manifest;
use fp8flow_sdk::manifest::{LIMIT, MAGIC, ManifestError, SECTION};
use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::read::{ReadCache, ReadRef};

/// Larger files are not read.
const FILE_LIMIT: u64 = 1 << 30;

/// No table of an honest library is larger.
const READ_LIMIT: u64 = 4 << 20;

/// Why a file is no plugin.
#[derive(Debug, thiserror::Error)]
pub enum NotAPlugin {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A folder, a pipe, a device.
    #[error("it is not a regular file")]
    NotAFile,
    /// Too large to be read.
    #[error("it has {0} bytes; {FILE_LIMIT} are the limit")]
    TooLarge(u64),
    /// Not an ELF file at all.
    #[error("it is not a shared library (no ELF file)")]
    NotElf,
    /// An ELF file, but for another machine, or not a library.
    #[error("it is not a shared library for x86-64 Linux: {0}")]
    Kind(&'static str),
    /// It ends before what its tables say, or its tables make no sense.
    #[error("it is damaged or cut short: {0}")]
    Damaged(String),
    /// A library, but not a plugin.
    #[error("it is a shared library, but no fp8flow plugin (no section {SECTION})")]
    NoManifest,
    /// The section is there, with something else in it.
    #[error("its manifest cannot be used: {0}")]
    Manifest(#[from] ManifestError),
}

/// The manifest in the library `file`: anything that can be read and sought in.
pub fn read_manifest(file: impl io::Read + io::Seek) -> Result<Manifest, NotAPlugin> {
    let cache = ReadCache::new(file);
    let data = Bounded(&cache);
    let len = data.len().map_err(|()| io::Error::other("its length is unknown"))?;
    if len > FILE_LIMIT {
        return Err(NotAPlugin::TooLarge(len));
    }
    let magic = data.read_bytes_at(0, 4).unwrap_or_default();
    if magic != elf::ELFMAG {
        return Err(NotAPlugin::NotElf);
    }
    let damaged = |error: object::Error| NotAPlugin::Damaged(error.to_string());
    let ident = data.read_bytes_at(4, 2).map_err(|()| NotAPlugin::Damaged("it ends in its header".into()))?;
    if ident != [elf::ELFCLASS64.0, elf::ELFDATA2LSB.0] {
        return Err(NotAPlugin::Kind("not 64 bits, little-endian"));
    }
    let header = FileHeader64::<LittleEndian>::parse(data).map_err(damaged)?;
    let endian = header.endian().map_err(damaged)?;
    if header.e_machine(endian) != elf::EM_X86_64 {
        return Err(NotAPlugin::Kind("another machine"));
    }
    if header.e_type(endian) != elf::ET_DYN {
        return Err(NotAPlugin::Kind("not a library"));
    }
    for segment in header.program_headers(endian, data).map_err(damaged)? {
        let (offset, size) = segment.file_range(endian);
        if segment.p_type(endian) == elf::PT_LOAD && offset.checked_add(size).is_none_or(|end| end > len) {
            let message = format!("a segment lies at {offset}..{offset}+{size} of {len} bytes");
            return Err(NotAPlugin::Damaged(message));
        }
    }
    let sections = header.sections(endian, data).map_err(damaged)?;
    let mut found = sections.iter().filter(|section| {
        sections.section_name(endian, section).is_ok_and(|name| name == SECTION.as_bytes())
    });
    let section = found.next().ok_or(NotAPlugin::NoManifest)?;
    if found.next().is_some() {
        return Err(ManifestError::Second.into());
    }
    let size = section.sh_size(endian);
    // Two manifests are told apart from one that is too long.
    let limit = 2 * (LIMIT + MAGIC.len() + 4) as u64;
    if size > limit {
        return Err(ManifestError::Length { claimed: size as usize, present: limit as usize }.into());
    }
    Ok(Manifest::parse(section.data(endian, data).map_err(damaged)?)?)
}

/// The file, in reads that are not larger than [`READ_LIMIT`].
struct Bounded<'a, R: io::Read + io::Seek>(&'a ReadCache<R>);

impl<R: io::Read + io::Seek> Clone for Bounded<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: io::Read + io::Seek> Copy for Bounded<'_, R> {}

impl<'a, R: io::Read + io::Seek> ReadRef<'a> for Bounded<'a, R> {
    fn len(self) -> Result<u64, ()> {
        self.0.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        if size > READ_LIMIT { Err(()) } else { self.0.read_bytes_at(offset, size) }
    }

    fn read_bytes_at_until(self, range: std::ops::Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        self.0.read_bytes_at_until(range, delimiter)
    }
}
