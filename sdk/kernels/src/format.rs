//! The two FP8 formats of training: E4M3 (finite only) and E5M2, decoded by table, encoded by rounding.

/// An 8-bit floating-point format of OCP "8-bit Floating Point Specification (OFP8)".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fp8 {
    /// 4 exponent bits, 3 mantissa bits, no infinity, NaN = `0x7f`/`0xff`, largest 448.
    E4m3,
    /// 5 exponent bits, 2 mantissa bits, infinity `0x7c`, largest finite 57344.
    E5m2,
}

impl Fp8 {
    /// Bits of the mantissa field.
    pub const fn mantissa_bits(self) -> u32 {
        match self {
            Self::E4m3 => 3,
            Self::E5m2 => 2,
        }
    }

    /// Exponent bias.
    pub const fn bias(self) -> i32 {
        match self {
            Self::E4m3 => 7,
            Self::E5m2 => 15,
        }
    }

    /// The largest finite number.
    pub const fn max(self) -> f32 {
        match self {
            Self::E4m3 => 448.0,
            Self::E5m2 => 57344.0,
        }
    }

    /// The code of the largest finite number.
    pub const fn max_code(self) -> u8 {
        match self {
            Self::E4m3 => 0x7e,
            Self::E5m2 => 0x7b,
        }
    }

    /// The name used in reports and across the plugin border.
    pub const fn name(self) -> &'static str {
        match self {
            Self::E4m3 => "e4m3",
            Self::E5m2 => "e5m2",
        }
    }

    /// The number that `code` stands for.
    pub const fn decode(self, code: u8) -> f32 {
        match self {
            Self::E4m3 => E4M3_TO_F32[code as usize],
            Self::E5m2 => E5M2_TO_F32[code as usize],
        }
    }

    /// The code nearest to `x`, ties to even, saturating: beyond the largest finite number, infinities included,
    /// the result is the largest finite number with the sign of `x`. NaN gives `0x7f` with the sign of `x`.
    ///
    /// This is torch's and Transformer Engine's saturating cast.
    pub fn encode(self, x: f32) -> u8 {
        let bits = x.to_bits();
        let sign = (bits >> 24) as u8 & 0x80;
        let magnitude = bits & 0x7fff_ffff;
        if magnitude > 0x7f80_0000 {
            return sign | 0x7f;
        }
        if magnitude >= self.max().to_bits() {
            return sign | self.max_code();
        }
        // In f32, `shift` low mantissa bits do not fit; adding half of the last kept bit, less one, plus that bit
        // rounds to nearest even, and a carry runs into the exponent as it should.
        let shift = 23 - self.mantissa_bits();
        let smallest_normal = ((1 - self.bias() + 127) as u32) << 23;
        if magnitude >= smallest_normal {
            let rounded = magnitude + ((1 << (shift - 1)) - 1) + ((magnitude >> shift) & 1);
            let rebias = ((127 - self.bias()) as u32) << self.mantissa_bits();
            let code = (rounded >> shift) - rebias;
            return sign | (code as u8).min(self.max_code());
        }
        // Below the normal numbers the spacing is constant; adding 2^k with that spacing as its last place rounds.
        let magic = f32::from_bits(((127 + 23 - self.bias() + 1 - self.mantissa_bits() as i32) as u32) << 23);
        let rounded = f32::from_bits(magnitude) + magic;
        sign | (rounded.to_bits() - magic.to_bits()) as u8
    }
}

/// Every E4M3 code as f32.
pub static E4M3_TO_F32: [f32; 256] = decode_table(Fp8::E4m3);

/// Every E5M2 code as f32.
pub static E5M2_TO_F32: [f32; 256] = decode_table(Fp8::E5m2);

const fn decode_table(format: Fp8) -> [f32; 256] {
    let mut table = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = decode_bits(format, code as u32);
        code += 1;
    }
    table
}

const fn decode_bits(format: Fp8, code: u32) -> f32 {
    let m = format.mantissa_bits();
    let sign = (code & 0x80) << 24;
    let exponent = (code & 0x7f) >> m;
    let mantissa = code & ((1 << m) - 1);
    let nan = match format {
        Fp8::E4m3 => code & 0x7f == 0x7f,
        Fp8::E5m2 => code & 0x7f > 0x7c,
    };
    if nan {
        return f32::from_bits(sign | 0x7fc0_0000);
    }
    if matches!(format, Fp8::E5m2) && code & 0x7f == 0x7c {
        return f32::from_bits(sign | 0x7f80_0000);
    }
    if exponent == 0 {
        // A subnormal: mantissa · 2^(1 − bias − m), exact in f32.
        let unit = f32::from_bits(((1 - format.bias() - m as i32 + 127) as u32) << 23);
        let magnitude = mantissa as f32 * unit;
        return f32::from_bits(sign | magnitude.to_bits());
    }
    let exponent = (exponent as i32 - format.bias() + 127) as u32;
    f32::from_bits(sign | (exponent << 23) | (mantissa << (23 - m)))
}
