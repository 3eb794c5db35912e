//! How much memory this process has in use.
#![allow(unsafe_code)]

/// Bytes that the C library's allocator has given out, where it can be asked.
// Other C libraries cannot be asked.
#[cfg_attr(target_env = "gnu", allow(clippy::unnecessary_wraps))]
pub(crate) fn allocated() -> Option<u64> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes nothing, locks what it looks through, and returns plain numbers.
        let info = unsafe { libc::mallinfo2() };
        Some((info.uordblks + info.hblkhd) as u64)
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

/// Bytes of this process that lie in memory, where the system says so.
pub(crate) fn resident() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_and_touched_is_in_use() {
        let before = (allocated(), resident());
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = (allocated(), resident());
        for (before, after) in [(before.0, after.0), (before.1, after.1)] {
            if let (Some(before), Some(after)) = (before, after) {
                assert!(after >= before + (48 << 20), "{before}, then {after}");
            }
        }
        drop(held);
    }
}
