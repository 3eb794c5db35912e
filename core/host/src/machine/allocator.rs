//! What the C library's allocator holds back.
#![allow(unsafe_code)]

/// Gives memory that was freed back to the system, where the C library can: it keeps what lies between things still in
/// use, which after reading a large tokenizer are a hundred megabytes that count as this process's.
pub fn give_back_freed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes any number of bytes to keep, leaves alone what is in use, and locks what it works on.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
        4096 * pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number")
    }

    #[test]
    fn what_lies_between_things_in_use_goes_back() {
        // Small things, of which one in a hundred stays: no page at the end of the heap is free.
        let mut things: Vec<Vec<u8>> = (0..400_000).map(|_| vec![1; 200]).collect();
        let mut i = 0;
        things.retain(|_| {
            i += 1;
            i % 100 == 0
        });
        let before = resident();
        give_back_freed();
        let after = resident();
        assert_eq!(things.len(), 4000);
        if cfg!(target_env = "gnu") {
            assert!(after + 30_000_000 < before, "{before} bytes before, {after} after");
        }
    }
}
