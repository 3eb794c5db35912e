//! Digests of what is on a card, without fetching it: one launch for all tensors, and 16 bytes a piece that come back.

use fp8flow_cuda::{Arg, Result, Shape, Source, source};

use super::launch::count;
use super::room::Room;
use crate::Tensor;
use crate::digest::DIGEST;

pub(super) const SOURCE: Source = source!("digest");

/// Bytes between two scrambles of XXH3, which start at multiples of it.
const BLOCK: usize = 1 << 10;

/// Pieces that a block of threads takes: a warp has one.
const AT_ONCE: usize = 8;

/// Makes digests, and keeps the memory that they are made in.
#[derive(Debug, Default)]
pub struct Digester(Room);

impl Digester {
    /// [`digest`](crate::digest::digest) of every `piece` bytes of the elements in use of each of `tensors`, one tensor
    /// after the other; the last piece of each may be shorter.
    ///
    /// # Panics
    /// If the tensors are not on one card, or `piece` is not a multiple of 1 KiB, less than 1 GiB.
    pub fn digests(&mut self, tensors: &[Tensor], piece: usize) -> Result<Vec<[u8; DIGEST]>> {
        assert!(piece.is_multiple_of(BLOCK) && (BLOCK..1 << 30).contains(&piece), "pieces of {piece} bytes");
        let Some(first) = tensors.first() else { return Ok(Vec::new()) };
        let (mut table, mut pieces) = (Vec::with_capacity(tensors.len()), 0);
        let card = first.stretch().0.card();
        for tensor in tensors {
            let (memory, _, bytes) = tensor.stretch();
            assert_eq!(memory.card().ordinal(), card.ordinal(), "tensors on one card");
            table.push([tensor.card_address(), bytes as u64, pieces as u64]);
            pieces += bytes.div_ceil(piece);
        }
        let mut digests = vec![[0; DIGEST]; pieces];
        let table: &[u8] = bytemuck::cast_slice(table.as_flattened());
        let found = table.len().next_multiple_of(DIGEST);
        let memory = self.0.bytes(card, found + pieces * DIGEST)?;
        memory.write(0, table)?;
        let shape = Shape::new(pieces.div_ceil(AT_ONCE), 32 * AT_ONCE as u32);
        let arguments =
            [memory.at(0), count(tensors.len()), Arg::U32(piece as u32), count(pieces), memory.at(found)];
        let kernel = card.kernel(SOURCE, "digest_pieces")?;
        // SAFETY: the pieces of a stretch cover the bytes in use, which are whole floats; there is room for a digest of each.
        #[allow(unsafe_code)]
        unsafe {
            kernel.launch(card, shape, &arguments)?;
        }
        memory.read(found, digests.as_flattened_mut())?;
        Ok(digests)
    }
}
