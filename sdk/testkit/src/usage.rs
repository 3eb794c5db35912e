//! How much memory this process has in use.
#![allow(unsafe_code)]

/// What [`now`] measures.
pub(crate) const USES: usize = 4;
/// What an open file counts for: the least that is a leak.
const FILE: u64 = 16;

/// Bytes that the allocator has given out, that lie in memory, and that are mapped; and open files. Zero where nobody can
/// be asked. Where layers work on a card, of which this many bytes are in use, those count in the place of what lies in
/// memory and is mapped, of which the card's driver takes and gives back as it likes.
pub(crate) fn now(of_card: Option<u64>) -> [u64; USES] {
    let (mapped, resident) = match of_card {
        Some(bytes) => (bytes, 0),
        None => mapped_and_resident().unwrap_or_default(),
    };
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, |files| FILE * files.count() as u64);
    [allocated().unwrap_or_default(), resident, mapped, files]
}

/// Bytes that the C library's allocator has given out, where it can be asked.
// Other C libraries cannot be asked.
#[cfg_attr(target_env = "gnu", allow(clippy::unnecessary_wraps))]
fn allocated() -> Option<u64> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes nothing, locks what it looks through, and returns plain numbers.
        let info = unsafe { libc::mallinfo2() };
        Some((info.uordblks + info.hblkhd) as u64)
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

/// Bytes of this process's address space, and of those the ones that lie in memory, where the system says so.
fn mapped_and_resident() -> Option<(u64, u64)> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = pages.split(' ').map_while(|pages| pages.parse::<u64>().ok());
    let page = rustix::param::page_size() as u64;
    Some((pages.next()? * page, pages.next()? * page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_and_touched_is_in_use() {
        let before = now(None);
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        for (before, after) in before.into_iter().zip(now(None)).take(USES - 1) {
            if after > 0 {
                assert!(after >= before + (48 << 20), "{before}, then {after}");
            }
        }
        drop(held);
    }
}
