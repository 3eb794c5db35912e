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

fn name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
