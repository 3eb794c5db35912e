//! The processor: its name, its threads, the instructions that the kernels know.

/// The processor that this process runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Its name, where the system tells.
    pub name: Option<String>,
    /// Threads that this process may use at once.
    pub threads: usize,
    /// The instructions that the kernels ask about, and whether they are there.
    pub features: Vec<(&'static str, bool)>,
}

impl Processor {
    /// Looks.
    pub fn look() -> Self {
        let features = vec![
            ("sse2", is_x86_feature_detected!("sse2")),
            ("avx2", is_x86_feature_detected!("avx2")),
            ("fma", is_x86_feature_detected!("fma")),
            ("f16c", is_x86_feature_detected!("f16c")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("avx512bw", is_x86_feature_detected!("avx512bw")),
            ("avx512dq", is_x86_feature_detected!("avx512dq")),
            ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ];
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { name: name(), threads, features }
    }
}

/// Bytes of the processor's largest cache, where the system tells.
pub fn largest_cache() -> Option<u64> {
    let caches = std::fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    let sizes = caches.filter_map(|cache| std::fs::read_to_string(cache.ok()?.path().join("size")).ok());
    sizes.filter_map(|size| cache_size(size.trim())).max()
}

/// `32768K` or `32M` in bytes.
fn cache_size(text: &str) -> Option<u64> {
    let (number, unit) = match text.split_at_checked(text.len().checked_sub(1)?)? {
        (number, "K") => (number, 1 << 10),
        (number, "M") => (number, 1 << 20),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::cache_size;

    #[test]
    fn sizes_of_caches_are_read_with_their_units() {
        let found = ["32768K", "48M", "512", "", "K", "9G"].map(cache_size);
        assert_eq!(found, [Some(1 << 25), Some(48 << 20), Some(512), None, None, None]);
    }
}
