//! Digests of what is on a card, without fetching it.

use fp8flow_cuda::{Arg, Result, Shape, Source, source};

use crate::Tensor;

pub(super) const SOURCE: Source = source!("digest");

/// Bytes of a chunk of BLAKE3.
const CHUNK: usize = 1 << 10;

/// Bytes of a digest.
const DIGEST: usize = 32;

/// The BLAKE3 digest of every `piece` bytes of the elements in use, the last of which may be fewer.
///
/// # Panics
/// If the tensor is not on a card, or `piece` is not a multiple of 1 KiB up to 1 MiB.
pub fn digests(x: &Tensor, piece: usize) -> Result<Vec<[u8; DIGEST]>> {
    assert!(piece.is_multiple_of(CHUNK) && (CHUNK..=1 << 20).contains(&piece), "pieces of {piece} bytes");
    let (memory, _, bytes) = x.stretch();
    let card = memory.card();
    let pieces = bytes.div_ceil(piece);
    let found = card.take(pieces * DIGEST)?;
    let shared = (piece / CHUNK * DIGEST) as u32;
    let shape = Shape { shared, ..Shape::new(pieces, 256) };
    let arguments = [x.address(), bytes.into(), Arg::U32(piece as u32), found.at(0)];
    let kernel = card.kernel(SOURCE, "digest_pieces")?;
    // SAFETY: the pieces cover the bytes in use, which are whole floats; there is room for a digest of each.
    #[allow(unsafe_code)]
    unsafe {
        kernel.launch(card, shape, &arguments)?;
    }
    let mut digests = vec![[0; DIGEST]; pieces];
    found.read(0, digests.as_flattened_mut())?;
    Ok(digests)
}
