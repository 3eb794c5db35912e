//! Digests of tensors, by which two runs are told apart: made after every step of all that is trained, so they must be as
//! fast as memory, on a card too. XXH3 is; nobody forges what these are made of.

use fp8flow_cuda::Result;
use fp8flow_kernels::Parallel;
use fp8flow_kernels::parallel::for_each;
use twox_hash::XxHash3_128;

use crate::Tensor;
use crate::cuda::Digester;

/// Bytes of a digest.
pub const DIGEST: usize = 16;

/// Shorter pieces have zeros behind: XXH3 is another function for each length of short ones, and of another kind.
const SHORTEST: usize = 256;

/// The XXH3 digest (128 bits, seed 0) of `piece`, the lower half first; of fewer than 256 bytes, of them with zeros behind.
pub fn digest(piece: &[u8]) -> [u8; DIGEST] {
    let digest = if piece.len() < SHORTEST {
        let mut whole = [0; SHORTEST];
        whole[..piece.len()].copy_from_slice(piece);
        XxHash3_128::oneshot(&whole)
    } else {
        XxHash3_128::oneshot(piece)
    };
    digest.to_le_bytes()
}

/// The digest of every `piece` bytes of each of `stretches`, one stretch after the other, on the threads of `pool`; the last
/// piece of each may be shorter.
pub fn digests(stretches: &[&[u8]], piece: usize, pool: &dyn Parallel) -> Vec<[u8; DIGEST]> {
    let pieces: Vec<&[u8]> = stretches.iter().flat_map(|stretch| stretch.chunks(piece)).collect();
    let mut digests = vec![[0; DIGEST]; pieces.len()];
    for_each(pool, pieces.into_iter().zip(&mut digests), |(piece, found)| *found = digest(piece));
    digests
}

/// [`digests`] of the elements in use of f32 tensors that are all on the CPU or all on one card.
///
/// # Panics
/// If they are not, or `piece` is not a multiple of 1 KiB, less than 1 GiB.
pub fn of_tensors(
    tensors: &[Tensor],
    piece: usize,
    pool: &dyn Parallel,
    on_card: &mut Digester,
) -> Result<Vec<[u8; DIGEST]>> {
    if tensors.iter().any(|tensor| tensor.card().is_some()) {
        return on_card.digests(tensors, piece);
    }
    let stretches: Vec<&[u8]> = tensors.iter().map(|tensor| bytemuck::cast_slice(tensor.f32())).collect();
    Ok(digests(&stretches, piece, pool))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of bytes 0, 1, 2 and so on, by the reference implementation (`xxhsum -H2`).
    #[test]
    fn digests_are_those_of_the_reference_implementation() {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(5000).collect();
        for (len, known) in [
            (256, "f1f8a93f50849ac39408a4433b952d71"),
            (1024, "83885e853bb6640ca870f92984398d22"),
            (1025, "e1e508f110763b4678c86e91ee939852"),
            (5000, "7a681524919c28221b74bda2c82a8c7a"),
        ] {
            let digest = u128::from_le_bytes(digest(&bytes[..len]));
            assert_eq!(format!("{digest:032x}"), known, "{len} bytes");
        }
    }

    #[test]
    fn short_pieces_are_those_with_zeros_behind() {
        let mut bytes = [0; SHORTEST];
        bytes[..4].copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(digest(&[1, 2, 3, 4]), digest(&bytes));
        assert_ne!(digest(&[1, 2, 3, 5]), digest(&bytes));
        assert_eq!(digest(&[]), digest(&[0; SHORTEST]));
    }
}
