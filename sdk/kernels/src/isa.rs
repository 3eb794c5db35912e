//! The instruction sets that kernels are written for, and the choice between them at run time.

/// An x86-64 instruction set with kernels of its own. Every path gives the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Baseline x86-64: the specification.
    Scalar,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

/// `FP8FLOW_ISA` asks for something that cannot be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IsaError {
    /// Not one of the known names.
    #[error("FP8FLOW_ISA={0}: unknown instruction set; use scalar, avx2 or avx512, or leave it unset")]
    Unknown(String),
    /// Known, but not on this machine.
    #[error("FP8FLOW_ISA={}: this CPU lacks it; the best it has is {}", .asked.name(), .best.name())]
    Missing {
        /// What was asked for.
        asked: Isa,
        /// The best instruction set of this CPU.
        best: Isa,
    },
}

impl Isa {
    /// All instruction sets, the specification first.
    pub const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Avx512];

    /// The name used in `FP8FLOW_ISA` and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// The instruction set called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// Whether this CPU has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
        }
    }

    /// Fails loudly where this CPU lacks it; detection is cached, so this costs a nanosecond.
    ///
    /// # Panics
    /// If [`Isa::is_available`] is false.
    #[inline]
    pub fn require(self) {
        assert!(self.is_available(), "this CPU has no {}", self.name());
    }

    /// The best instruction set of this CPU.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Self::Scalar)
    }

    /// All instruction sets of this CPU, for tests that compare paths.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The instruction set that `FP8FLOW_ISA` names, or the best one where it is unset or empty.
    pub fn from_env() -> Result<Self, IsaError> {
        let name = match std::env::var("FP8FLOW_ISA") {
            Ok(name) if !name.is_empty() => name,
            _ => return Ok(Self::best()),
        };
        let asked = Self::from_name(&name).ok_or(IsaError::Unknown(name))?;
        if asked.is_available() { Ok(asked) } else { Err(IsaError::Missing { asked, best: Self::best() }) }
    }
}
