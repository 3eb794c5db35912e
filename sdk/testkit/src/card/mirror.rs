//! Memory of a card that mirrors what a call is lent in host memory.
//!
//! All pieces of a call lie in one allocation, each at a multiple of 256 bytes as the engine's do, between bytes that must
//! not change. It is filled by one copy and fetched by one, and what a call has left in it is overwritten: the next
//! call finds the same pieces elsewhere, in another allocation.

#![allow(unsafe_code)]

use std::ptr::without_provenance_mut;

use fp8flow_cuda::{Card, Memory, Result};
use fp8flow_sdk::tensor::RawTensor;
use fp8flow_sdk::{DeviceId, TensorMut, TensorRef};

use crate::driver::GARBAGE;
use crate::failure::Failure;

/// What the engine's memory on a card starts at multiples of.
const ALIGN: usize = 256;
/// What memory of the host starts at multiples of: what is beyond it is meant, and kept.
const ALIGN_HERE: usize = fp8flow_sdk::region::ALIGN;
/// Bytes of an allocation, at least: of nearly all calls. So what a call has left stays where it was for a while, and whoever
/// looks at it later finds garbage, where memory that is given back would end the work of the card.
const LEAST: usize = 1 << 20;
const GUARD: u8 = 0xc3;
const GUARD_BYTES: usize = 2 * ALIGN;

/// What a call is lent, piece by piece, and where in the allocation it goes.
#[derive(Debug, Default)]
pub(super) struct Loan<'a>(Vec<Piece<'a>>);

#[derive(Debug)]
struct Piece<'a> {
    /// As a failure calls it.
    region: &'static str,
    at: usize,
    here: Here<'a>,
}

#[derive(Debug)]
enum Here<'a> {
    /// A field of the call, which must be afterwards what it was.
    Read(&'static str, &'a [u8]),
    Write(&'a mut [u8]),
}

impl Here<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Read(_, bytes) => bytes,
            Self::Write(bytes) => bytes,
        }
    }
}

/// A region of a loan.
#[derive(Debug)]
pub(super) struct Region {
    at: usize,
    len: usize,
}

impl<'a> Loan<'a> {
    /// Takes up a piece; where it goes.
    fn add(&mut self, region: &'static str, here: Here<'a>) -> usize {
        let meant = here.bytes().as_ptr().addr() % ALIGN_HERE;
        let at = (self.end() + GUARD_BYTES).next_multiple_of(ALIGN) + meant;
        self.0.push(Piece { region, at, here });
        at
    }

    /// Where the last piece ends.
    fn end(&self) -> usize {
        self.0.last().map_or(0, |piece| piece.at + piece.here.bytes().len())
    }

    /// A tensor to read: as it lies, with its place in the allocation for an address.
    pub(super) fn tensor(
        &mut self,
        region: &'static str,
        field: &'static str,
        x: &TensorRef<'a>,
    ) -> RawTensor {
        let raw = x.raw();
        // SAFETY: a `TensorRef` describes memory that can be read for `'a`; the driver's tensors lie in one allocation, whose
        // bytes between rows are initialised too.
        let bytes = unsafe { std::slice::from_raw_parts(raw.data, extent(&raw)) };
        let at = self.add(region, Here::Read(field, bytes));
        RawTensor { data: without_provenance_mut(at), ..raw }
    }

    /// A tensor to write.
    pub(super) fn result(&mut self, region: &'static str, x: &'a mut TensorMut<'_>) -> RawTensor {
        let raw = x.raw();
        // SAFETY: as above, to write, and for nobody else while `x` is borrowed.
        let bytes = unsafe { std::slice::from_raw_parts_mut(raw.data, extent(&raw)) };
        let at = self.add(region, Here::Write(bytes));
        RawTensor { data: without_provenance_mut(at), ..raw }
    }

    /// A region to write.
    pub(super) fn region(&mut self, region: &'static str, bytes: &'a mut [u8]) -> Region {
        let len = bytes.len();
        Region { at: self.add(region, Here::Write(bytes)), len }
    }

    /// A region as it was written.
    pub(super) fn kept(&mut self, region: &'static str, field: &'static str, bytes: &'a [u8]) -> Region {
        Region { at: self.add(region, Here::Read(field, bytes)), len: bytes.len() }
    }

    /// Bytes of the allocation.
    fn bytes(&self) -> usize {
        self.end() + GUARD_BYTES
    }

    /// Beside which piece something was written.
    fn trespass(&self, found: &[u8]) -> Option<&'static str> {
        let whole = |from: usize, to: usize| found[from..to].iter().all(|&byte| byte == GUARD);
        let mut from = 0;
        for (i, piece) in self.0.iter().enumerate() {
            // What stands between two pieces belongs to the nearer one.
            let middle = if i == 0 { from } else { usize::midpoint(from, piece.at) };
            if !whole(from, middle) {
                return Some(self.0[i - 1].region);
            }
            if !whole(middle, piece.at) {
                return Some(piece.region);
            }
            from = piece.at + piece.here.bytes().len();
        }
        self.0.last().filter(|_| !whole(from, found.len())).map(|piece| piece.region)
    }
}

/// Bytes from the first element of a tensor to its last.
fn extent(raw: &RawTensor) -> usize {
    let rank = raw.rank as usize;
    let (shape, strides) = (&raw.shape[..rank], &raw.strides[..rank]);
    if shape.contains(&0) {
        return 0;
    }
    let last: u64 = shape.iter().zip(strides).map(|(n, stride)| (n - 1) * stride.unsigned_abs()).sum();
    (last as usize + 1) * raw.dtype.size()
}

/// An allocation that holds a loan.
#[derive(Debug)]
pub(super) struct There {
    address: u64,
}

impl There {
    fn raw(&self, device: DeviceId, tensor: &RawTensor) -> RawTensor {
        let address = self.address as usize + tensor.data.addr();
        RawTensor { data: without_provenance_mut(address), device, ..*tensor }
    }

    /// A tensor of the loan.
    pub(super) fn tensor(&self, device: DeviceId, tensor: &RawTensor) -> TensorRef<'_> {
        // SAFETY: memory of the card that is not freed before the next call; nothing of it is read here.
        unsafe { TensorRef::from_raw(self.raw(device, tensor)) }
    }

    /// A tensor of the loan, to write.
    pub(super) fn result<'a>(&self, device: DeviceId, tensor: &'a mut RawTensor) -> TensorMut<'a> {
        // SAFETY: as above, and nobody else is given it.
        unsafe { TensorMut::from_raw(self.raw(device, tensor)) }
    }

    /// A region of the loan: address and length, to be looked at on the card only.
    pub(super) fn kept<'a>(&self, region: &'a Region) -> &'a [u8] {
        if region.len == 0 {
            return &[];
        }
        let address = without_provenance_mut::<u8>(self.address as usize + region.at);
        // SAFETY: nobody reads through this slice: a plugin that works on cards takes its address and length.
        unsafe { std::slice::from_raw_parts(address, region.len) }
    }

    /// The same, to write.
    pub(super) fn region<'a>(&self, region: &'a mut Region) -> &'a mut [u8] {
        if region.len == 0 {
            return &mut [];
        }
        let address = without_provenance_mut(self.address as usize + region.at);
        // SAFETY: as above, and nobody else is given it.
        unsafe { std::slice::from_raw_parts_mut(address, region.len) }
    }
}

/// Two allocations that calls take turns in.
#[derive(Debug)]
pub(super) struct Mirror {
    card: Card,
    turns: [Option<Memory>; 2],
}

impl Mirror {
    /// Nothing yet.
    pub(super) fn new(card: Card) -> Self {
        Self { card, turns: [None, None] }
    }

    /// Copies what `loan` holds to the card. Afterwards no card is current on this thread: a backend makes its own so.
    pub(super) fn lend(&mut self, loan: &Loan<'_>) -> Result<There> {
        self.turns.reverse();
        let [turn, _] = &mut self.turns;
        let wanted = loan.bytes();
        let memory = match turn.take().filter(|memory| memory.bytes() >= wanted) {
            Some(memory) => memory,
            None => self.card.take(wanted.next_power_of_two().max(LEAST))?,
        };
        let mut bytes = vec![GUARD; wanted];
        for piece in &loan.0 {
            let here = piece.here.bytes();
            bytes[piece.at..][..here.len()].copy_from_slice(here);
        }
        memory.write(0, &bytes)?;
        let there = There { address: memory.address() };
        *turn = Some(memory);
        self.card.leave()?;
        Ok(there)
    }

    /// Brings back what `call` has left of `loan`; what it did beside that, if anything.
    pub(super) fn take_back(&mut self, call: &'static str, mut loan: Loan<'_>) -> Result<Option<Failure>> {
        let mut found = vec![0; loan.bytes()];
        let [Some(memory), _] = &self.turns else { return Ok(None) };
        memory.read(0, &mut found)?;
        memory.fill(0, found.len(), GARBAGE)?;
        let mut breach = loan.trespass(&found).map(|region| Failure::OutOfBounds { call, region });
        for piece in &mut loan.0 {
            let there = &found[piece.at..][..piece.here.bytes().len()];
            match &mut piece.here {
                Here::Write(here) => here.copy_from_slice(there),
                Here::Read(input, here) if *here != there => {
                    breach.get_or_insert(Failure::WroteInput { call, input });
                }
                Here::Read(..) => {}
            }
        }
        Ok(breach)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_aligned_as_they_were_and_what_is_written_beside_one_is_said_of_it() {
        let (mut x, y) = (vec![1; 300], vec![2; 100]);
        let mut loan = Loan::default();
        let skip = y.as_ptr().align_offset(ALIGN_HERE);
        let first = loan.kept("x", "x", &y[skip..][..20]).at;
        let second = loan.kept("odd", "odd", &y[skip + 3..][..20]).at;
        let third = loan.region("y", &mut x).at;
        assert_eq!((first % ALIGN, second % ALIGN), (0, 3));
        let mut found = vec![GUARD; loan.bytes()];
        assert_eq!(loan.trespass(&found), None);
        for (at, region) in [
            (0, "x"),
            (first - 1, "x"),
            (first + 20, "x"),
            (second - 1, "odd"),
            (second + 20, "odd"),
            (third - 1, "y"),
            (third + 300, "y"),
            (loan.bytes() - 1, "y"),
        ] {
            found[at] = 0;
            assert_eq!(loan.trespass(&found), Some(region), "{at}");
            found[at] = GUARD;
        }
    }

    #[test]
    fn a_tensor_reaches_from_its_first_element_to_its_last() {
        let raw = |shape: [u64; 2], stride| RawTensor {
            data: std::ptr::null_mut(),
            dtype: fp8flow_sdk::DType::BF16,
            rank: 2,
            shape: [shape[0], shape[1], 1, 1],
            strides: [stride, 1, 0, 0],
            device: DeviceId::CPU,
        };
        assert_eq!(extent(&raw([3, 4], 4)), 24);
        assert_eq!(extent(&raw([3, 4], 10)), 2 * (20 + 4));
        assert_eq!(extent(&raw([0, 4], 4)), 0);
    }
}
