//! Elements of matrices.

use std::ffi::c_int;

/// `cudaDataType_t`, of those that are emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    F32,
    Bf16,
    E4m3,
    E5m2,
}

impl Number {
    pub(super) fn from_cuda(number: c_int) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            14 => Self::Bf16,
            28 => Self::E4m3,
            29 => Self::E5m2,
            _ => return None,
        })
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::E4m3 | Self::E5m2 => 1,
        }
    }

    pub(super) fn is_fp8(self) -> bool {
        self.bytes() == 1
    }

    pub(super) fn is_wide(self) -> bool {
        !self.is_fp8()
    }

    /// The element at an address, widened exactly.
    ///
    /// # Safety
    /// There is one.
    pub(super) unsafe fn read(self, at: *const u8) -> f32 {
        match self {
            Self::F32 => at.cast::<f32>().read_unaligned(),
            Self::Bf16 => f32::from_bits(u32::from(at.cast::<u16>().read_unaligned()) << 16),
            Self::E4m3 => magnitude(at.read(), 3, 7, u8::MAX),
            Self::E5m2 => magnitude(at.read(), 2, 15, 0x7C),
        }
    }

    /// Rounds to nearest, ties to even, and stores; f32 and bf16 only.
    ///
    /// # Safety
    /// There is room for one.
    pub(super) unsafe fn write(self, at: *mut u8, x: f32) {
        match self {
            Self::F32 => at.cast::<f32>().write_unaligned(x),
            _ if x.is_nan() => at.cast::<u16>().write_unaligned(0x7FFF),
            _ => {
                let bits = x.to_bits();
                let rounded = (u64::from(bits) + 0x7FFF + u64::from(bits >> 16 & 1)) >> 16;
                at.cast::<u16>().write_unaligned(rounded as u16);
            }
        }
    }
}

/// The value of an FP8 code; the format's infinity has the code `infinity`, if it has one.
fn magnitude(code: u8, mantissa: u8, bias: i32, infinity: u8) -> f32 {
    let (sign, code) = (if code & 0x80 == 0 { 1.0 } else { -1.0 }, code & 0x7F);
    if code == infinity {
        return sign * f32::INFINITY;
    }
    if code > infinity || (infinity == u8::MAX && code == 0x7F) {
        return f32::NAN;
    }
    let fraction = f32::from(code & ((1 << mantissa) - 1));
    let (exponent, whole) = (i32::from(code >> mantissa), f32::from(1_u8 << mantissa));
    let (exponent, significand) = if exponent == 0 { (1, fraction) } else { (exponent, whole + fraction) };
    sign * significand * 2.0_f32.powi(exponent - bias - i32::from(mantissa))
}
