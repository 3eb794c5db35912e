//! The card's memory and page-locked memory.
//!
//! An allocation is a mapping of its own, end-aligned before a page that nobody may touch, and closed to everybody except
//! while an operation runs. Its address is never given again.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Mutex;

use crate::cards::card;
use crate::codes::{Code, INVALID_VALUE, OUT_OF_MEMORY};
use crate::context;
use crate::state::{State, locked};
use crate::{say, stream};

pub(crate) const PAGE: usize = 4096;
/// What `cuMemAlloc` aligns to.
const ALIGNMENT: usize = 256;
/// Between the end of the data and the page behind it.
const CANARY: u8 = 0xA5;

/// One allocation.
struct Block {
    bytes: usize,
    pages: usize,
    device: c_int,
    /// Page-locked memory of the host, open to both.
    pinned: bool,
}

impl Block {
    /// Where its pages begin, and how long they are.
    fn extent(&self, start: usize) -> (usize, usize) {
        let end = start + self.bytes.next_multiple_of(ALIGNMENT);
        (end - self.pages * PAGE, self.pages * PAGE)
    }
}

/// By the address of the first byte.
static BLOCKS: Mutex<BTreeMap<usize, Block>> = Mutex::new(BTreeMap::new());

/// Which kind of memory holds a range whole.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Card,
    Pinned,
}

/// The memory that holds the range, if one allocation does; an empty range may stand at an end.
pub(crate) fn place(at: usize, bytes: usize) -> Option<Place> {
    let blocks = locked(&BLOCKS);
    let (start, block) = blocks.range(..=at).next_back()?;
    let fits = at.checked_add(bytes)? <= start + block.bytes;
    fits.then_some(if block.pinned { Place::Pinned } else { Place::Card })
}

/// Whether the range touches memory of the card.
pub(crate) fn touches_card(at: usize, bytes: usize) -> bool {
    let blocks = locked(&BLOCKS);
    blocks
        .range(..at + bytes)
        .next_back()
        .is_some_and(|(start, block)| !block.pinned && at < start + block.bytes)
}

const NOWHERE: &str = ", in no allocation (freed, or the host's?)";

/// An address in words, for a fault.
pub(crate) fn describe(at: usize) -> String {
    let Ok(blocks) = BLOCKS.try_lock() else { return String::new() };
    let Some((start, block)) = blocks.range(..=at).next_back() else {
        return NOWHERE.to_owned();
    };
    let end = start + block.bytes;
    if at < end {
        return format!(", byte {} of an allocation of {} bytes", at - start, block.bytes);
    }
    let next = blocks.range(at..).next().map(|(next, _)| next - at).filter(|before| *before <= 1 << 20);
    match next {
        Some(before) if before < at - end => format!(", {before} bytes before an allocation"),
        _ if at - end <= 1 << 20 => {
            format!(", {} bytes past the end of an allocation of {}", at - end, block.bytes)
        }
        _ => NOWHERE.to_owned(),
    }
}

/// Memory that somebody wrote behind its end, in words. Pages catch what goes further.
pub(crate) fn overrun() -> Option<String> {
    let blocks = locked(&BLOCKS);
    for (start, block) in blocks.iter().filter(|(_, block)| !block.pinned) {
        let end = start + block.bytes;
        for at in end..end.next_multiple_of(ALIGNMENT) {
            // SAFETY: up to the guard the pages are open while an operation runs, and this is called in one.
            if unsafe { (at as *const u8).read() } != CANARY {
                return Some(format!(
                    "wrote {} bytes past the end of an allocation of {}",
                    at - end,
                    block.bytes
                ));
            }
        }
    }
    None
}

fn protect(blocks: &BTreeMap<usize, Block>, protection: c_int) {
    for (start, block) in blocks.iter().filter(|(_, block)| !block.pinned) {
        let (at, len) = block.extent(*start);
        // SAFETY: our own mapping.
        if unsafe { libc::mprotect(at as *mut c_void, len, protection) } != 0 {
            say::stop("mprotect failed");
        }
    }
}

/// The card's memory while operations run.
pub(crate) struct Open;

impl Open {
    pub(crate) fn new() -> Self {
        protect(&locked(&BLOCKS), libc::PROT_READ | libc::PROT_WRITE);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        protect(&locked(&BLOCKS), libc::PROT_NONE);
    }
}

/// Reserves pages between two that stay closed.
pub(crate) fn reserve(pages: usize) -> Option<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), (pages + 2) * PAGE, libc::PROT_NONE, flags, -1, 0) };
    (base != libc::MAP_FAILED).then_some(base as usize + PAGE)
}

fn allocate(bytes: usize, device: c_int, pinned: bool) -> Result<usize, Code> {
    if bytes == 0 {
        return Err(INVALID_VALUE);
    }
    let mut blocks = locked(&BLOCKS);
    let used: usize =
        blocks.values().filter(|block| !block.pinned && block.device == device).map(|b| b.bytes).sum();
    if !pinned && used.saturating_add(bytes) > card(device)?.bytes {
        return Err(OUT_OF_MEMORY);
    }
    let padded = bytes.next_multiple_of(ALIGNMENT);
    let pages = padded.div_ceil(PAGE);
    let base = reserve(pages).ok_or(OUT_OF_MEMORY)?;
    let start = base + pages * PAGE - padded;
    // SAFETY: the pages were reserved just now.
    unsafe {
        if libc::mprotect(base as *mut c_void, pages * PAGE, libc::PROT_READ | libc::PROT_WRITE) != 0 {
            return Err(OUT_OF_MEMORY);
        }
        (start as *mut u8).write_bytes(0xFF, bytes);
        ((start + bytes) as *mut u8).write_bytes(CANARY, padded - bytes);
        if !pinned {
            libc::mprotect(base as *mut c_void, pages * PAGE, libc::PROT_NONE);
        }
    }
    blocks.insert(start, Block { bytes, pages, device, pinned });
    Ok(start)
}

fn release(start: usize, pinned: bool) -> Result<(), Code> {
    let mut blocks = locked(&BLOCKS);
    if blocks.get(&start).is_none_or(|block| block.pinned != pinned) {
        return Err(INVALID_VALUE);
    }
    let Some(block) = blocks.remove(&start) else { return Err(INVALID_VALUE) };
    let (at, len) = block.extent(start);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: our own mapping; its bytes go back, its addresses stay reserved.
    unsafe { libc::mmap(at as *mut c_void, len, libc::PROT_NONE, flags, -1, 0) };
    Ok(())
}

driver! {
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        let device = context::device()?;
        let bytes = card(device)?.bytes;
        let blocks = locked(&BLOCKS);
        let used: usize = blocks.values().filter(|b| !b.pinned && b.device == device).map(|b| b.bytes).sum();
        free.write(bytes - used);
        total.write(bytes);
        Ok(())
    }

    fn cuMemAlloc_v2(pointer: *mut usize, bytes: usize) {
        // Held to the end: what is allocated while operations run would be closed where they look for overruns.
        let mut state = State::enter()?;
        state.forbid_in_capture()?;
        pointer.write(allocate(bytes, context::device()?, false)?);
        Ok(())
    }

    fn cuMemFree_v2(pointer: usize) {
        let mut state = State::enter()?;
        state.forbid_in_capture()?;
        if pointer == 0 {
            return Ok(());
        }
        stream::finish_all(&mut state);
        release(pointer, false)
    }

    fn cuMemHostAlloc(pointer: *mut usize, bytes: usize, _flags: c_uint) {
        State::enter()?.forbid_in_capture()?;
        pointer.write(allocate(bytes, context::device()?, true)?);
        Ok(())
    }

    fn cuMemFreeHost(pointer: usize) {
        let mut state = State::enter()?;
        state.forbid_in_capture()?;
        stream::finish_all(&mut state);
        release(pointer, true)
    }
}
