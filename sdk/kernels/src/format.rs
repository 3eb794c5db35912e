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

    /// [`decode`](Self::decode) by arithmetic instead of a table, so that loops over it become vectors.
    #[inline(always)]
    pub(crate) const fn widen(self, code: u8) -> f32 {
        let shift = 23 - self.mantissa_bits();
        let sign = (code as u32 & 0x80) << 24;
        let magnitude = code as u32 & 0x7f;
        let rebias = ((127 - self.bias()) as u32) << 23;
        // A subnormal is a normal number of the next exponent less that number's leading one.
        let subnormal = magnitude >> self.mantissa_bits() == 0;
        let one = rebias + (1 << 23);
        let (exponent, leading) = if subnormal { (one, f32::from_bits(one)) } else { (rebias, 0.0) };
        let number = (f32::from_bits((magnitude << shift) + exponent) - leading).to_bits();
        let special = match self {
            Self::E4m3 if magnitude == 0x7f => 0x7fc0_0000,
            Self::E5m2 if magnitude > 0x7c => 0x7fc0_0000,
            Self::E5m2 if magnitude == 0x7c => 0x7f80_0000,
            _ => number,
        };
        f32::from_bits(sign | special)
    }

    /// The code nearest to `x`, ties to even, saturating: beyond the largest finite number, infinities included,
    /// the result is the largest finite number with the sign of `x`. NaN gives `0x7f`.
    ///
    /// This is torch's and Transformer Engine's saturating cast, and PTX's `cvt.rn.satfinite`. There is no branch in
    /// it, so that loops over it become vectors.
    #[inline(always)]
    pub const fn encode(self, x: f32) -> u8 {
        let kept = 23 - self.mantissa_bits();
        let smallest_normal = ((128 - self.bias()) as u32) << 23;
        let sign = (x.to_bits() >> 24) & 0x80;
        let magnitude = x.to_bits() & 0x7fff_ffff;
        let max = self.max().to_bits();
        let capped = if magnitude < max { magnitude } else { max };
        // The exponent that gives the spacing of the codes around x; it does not fall below that of the subnormals.
        let exponent = capped & 0x7f80_0000;
        let exponent = if exponent > smallest_normal { exponent } else { smallest_normal };
        // A power of two whose last place in f32 is that spacing: adding it rounds to whole numbers of spacings.
        let unit = exponent + (kept << 23);
        let spacings = (f32::from_bits(capped) + f32::from_bits(unit)).to_bits() - unit;
        // The first of a normal number's spacings is its exponent field's one, and so is a carry out of the mantissa.
        let code = ((exponent - smallest_normal) >> kept) + spacings;
        if x.is_nan() { 0x7f } else { (sign | code) as u8 }
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

#[cfg(test)]
mod tests {
    use float8::{F8E4M3, F8E5M2};
    use proptest::prelude::*;

    use super::*;

    const FORMATS: [Fp8; 2] = [Fp8::E4m3, Fp8::E5m2];

    #[test]
    fn every_code_decodes_as_in_the_float8_crate() {
        for code in 0..=255 {
            let pairs = [
                (Fp8::E4m3.decode(code), F8E4M3::from_bits(code).to_f32()),
                (Fp8::E5m2.decode(code), F8E5M2::from_bits(code).to_f32()),
            ];
            for (found, expected) in pairs {
                assert!(
                    found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                    "{code:#x}: {found}, {expected} expected"
                );
            }
        }
    }

    #[test]
    fn every_code_widens_as_it_decodes() {
        for format in FORMATS {
            for code in 0..=255 {
                let (found, expected) = (format.widen(code), format.decode(code));
                assert_eq!(found.to_bits(), expected.to_bits(), "{format:?} {code:#x}");
            }
        }
    }

    #[test]
    fn every_number_has_its_code() {
        for format in FORMATS {
            for code in 0..=255 {
                let x = format.decode(code);
                let expected = match code {
                    _ if x.is_nan() => 0x7f,
                    _ if x.is_infinite() => code & 0x80 | format.max_code(),
                    code => code,
                };
                assert_eq!(format.encode(x), expected, "{format:?} {code:#x}");
            }
            assert_eq!(format.decode(format.max_code()), format.max());
        }
    }

    /// The code of the finite number nearest to `x`, ties to the even code, by comparing with all of them.
    fn nearest(format: Fp8, x: f32) -> u8 {
        let sign = if x.is_sign_negative() { 0x80 } else { 0 };
        let magnitude = f64::from(x.abs().min(format.max()));
        let distance = |code: u8| (f64::from(format.decode(code)) - magnitude).abs();
        let codes = 0..=format.max_code();
        let best = codes.min_by(|&a, &b| {
            let even_first = (a & 1).cmp(&(b & 1));
            distance(a).total_cmp(&distance(b)).then(even_first)
        });
        sign | best.expect("some code")
    }

    #[test]
    fn encoding_finds_the_nearest_code_between_and_around_all_codes() {
        for format in FORMATS {
            for code in 0..format.max_code() {
                let (low, high) = (format.decode(code), format.decode(code + 1));
                let middle = low.midpoint(high);
                for x in [low, low.next_up(), middle.next_down(), middle, middle.next_up(), high.next_down()]
                {
                    assert_eq!(format.encode(x), nearest(format, x), "{format:?} {x:e}");
                    assert_eq!(format.encode(-x), nearest(format, -x), "{format:?} {:e}", -x);
                }
            }
        }
    }

    #[test]
    fn encoding_saturates_and_keeps_nan() {
        for format in FORMATS {
            let max = format.max();
            for x in [max, max.next_up(), max * 1.06, max * 2.0, f32::MAX, f32::INFINITY] {
                assert_eq!(format.encode(x), format.max_code());
                assert_eq!(format.encode(-x), 0x80 | format.max_code());
            }
            for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)] {
                assert_eq!(format.encode(nan), 0x7f);
            }
            assert_eq!(format.encode(-0.0), 0x80);
            assert_eq!(format.encode(f32::from_bits(1)), 0);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn encoding_finds_the_nearest_code(bits: u32, e5m2: bool) {
            let (x, format) = (f32::from_bits(bits), FORMATS[usize::from(e5m2)]);
            prop_assume!(x.is_finite());
            prop_assert_eq!(format.encode(x), nearest(format, x));
        }

        #[test]
        fn encoding_finds_the_nearest_code_of_ordinary_numbers(x in -500.0..500.0_f32, shift in -16..8_i32) {
            let x = x * 2.0_f32.powi(shift);
            for format in FORMATS {
                prop_assert_eq!(format.encode(x), nearest(format, x));
            }
        }

        #[test]
        fn encoding_is_monotone(a: f32, b: f32) {
            for format in FORMATS {
                let (low, high) = if a < b { (a, b) } else { (b, a) };
                prop_assert!(format.decode(format.encode(low)) <= format.decode(format.encode(high)));
            }
        }
    }
}
