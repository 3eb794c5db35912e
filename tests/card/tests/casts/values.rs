//! Matrices to be cast.

use fp8flow_cuda::cast::Element;
use fp8flow_kernels::philox::Philox;
use fp8flow_kernels::{Elements, Matrix, bf16};

/// What a matrix is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// Normal numbers of widely differing rows and columns.
    Normal,
    /// The same, here and there something special.
    Special,
    /// Any bits at all.
    Wild,
    /// Zeros of both signs.
    Zeros,
    /// NaNs.
    Nothing,
}

impl Values {
    pub(crate) const ALL: [Self; 5] = [Self::Normal, Self::Special, Self::Wild, Self::Zeros, Self::Nothing];

    fn number(self, row: usize, col: usize, i: usize) -> f32 {
        let philox = Philox::new(5, "card casts");
        let normal = || {
            let spread = 2.0_f32.powi((row * 7 % 40) as i32 - (col * 5 % 60) as i32);
            philox.normal_pair(0, i as u64)[0] * spread
        };
        let [word, other, ..] = philox.words(1, i as u64);
        match self {
            Self::Special if word % 97 == 0 => {
                let specials = specials();
                specials[other as usize % specials.len()]
            }
            Self::Normal | Self::Special => normal(),
            Self::Wild => f32::from_bits(word),
            Self::Zeros => [0.0, -0.0][word as usize % 2],
            Self::Nothing => f32::NAN,
        }
    }
}

/// Numbers that casts treat in ways of their own.
pub(crate) fn specials() -> Vec<f32> {
    let positive = [
        0.0,
        f32::from_bits(1),
        f32::MIN_POSITIVE,
        9.999_999e-13,
        1e-12,
        1.000_000_1e-12,
        2.0_f32.powi(-10),
        1.0,
        448.0,
        464.0,
        57_344.0,
        f32::MAX,
        f32::INFINITY,
        f32::NAN,
    ];
    positive.into_iter().chain(positive.map(|x| -x)).collect()
}

/// A matrix in the host's memory.
pub(crate) enum Host {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Host {
    pub(crate) fn new(values: Values, element: Element, rows: usize, cols: usize) -> Self {
        let numbers = (0..rows * cols).map(|i| values.number(i / cols, i % cols, i));
        match element {
            Element::F32 => Self::F32(numbers.collect()),
            Element::Bf16 => Self::Bf16(numbers.map(bf16::from_f32).collect()),
        }
    }

    pub(crate) fn matrix(&self, rows: usize, cols: usize) -> Matrix<'_> {
        let elements = match self {
            Self::F32(x) => Elements::F32(x),
            Self::Bf16(x) => Elements::Bf16(x),
        };
        Matrix::new(elements, rows, cols)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::Bf16(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }
}
