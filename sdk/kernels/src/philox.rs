//! Random numbers without state: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11).
//!
//! A number is a function of a key and a counter, so nothing has to be saved, restored or kept in order.

use crate::{Isa, multiversion};

/// The purpose of a stream of random numbers: streams of different purposes never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Pairs of normal numbers that are made side by side.
const SIDE_BY_SIDE: usize = 16;

/// Ten rounds over `counter` under `key`: the reference's `philox4x32`.
#[inline(always)]
pub const fn philox4x32(mut key: [u32; 2], mut counter: [u32; 4]) -> [u32; 4] {
    let mut round = 0;
    while round < 10 {
        let a = MULTIPLIERS[0] as u64 * counter[0] as u64;
        let b = MULTIPLIERS[1] as u64 * counter[2] as u64;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        round += 1;
    }
    counter
}

impl Philox {
    /// The stream for `purpose` (such as `"init"`) under the run's seed.
    pub fn new(seed: u64, purpose: &str) -> Self {
        // FNV-1a of the purpose, mixed with the seed through the generator itself.
        let hash = purpose
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let mixed = philox4x32(
            [seed as u32, (seed >> 32) as u32],
            [hash as u32, (hash >> 32) as u32, 0x6670_3866, 0x6c6f_7700],
        );
        Self { key: [mixed[0], mixed[1]] }
    }

    /// Four random words for the place (`stream`, `index`).
    #[inline(always)]
    pub fn words(self, stream: u64, index: u64) -> [u32; 4] {
        philox4x32(self.key, [index as u32, (index >> 32) as u32, stream as u32, (stream >> 32) as u32])
    }

    /// A whole number below `bound`, without bias worth naming (its excess is below 2⁻³²·`bound`/2³²).
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(self, stream: u64, index: u64, bound: u64) -> u64 {
        assert!(bound > 0, "a bound above 0");
        let w = self.words(stream, index);
        let x = u64::from(w[0]) | u64::from(w[1]) << 32;
        ((u128::from(x) * u128::from(bound)) >> 64) as u64
    }

    /// Two independent standard normal numbers (Box and Muller), in f32 rounded from f64.
    pub fn normal_pair(self, stream: u64, index: u64) -> [f32; 2] {
        box_muller(self.words(stream, index))
    }

    /// The numbers of the pairs from `first` on, one after the other: those of [`Self::normal_pair`], several times as
    /// fast.
    pub fn normals(self, isa: Isa, stream: u64, first: u64, out: &mut [f32]) {
        normals(isa, self, stream, first, out);
    }

    /// A permutation of `0..n` (Fisher and Yates) for `stream`.
    pub fn permutation(self, stream: u64, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            let j = self.below(stream, i as u64, i as u64 + 1) as usize;
            order.swap(i, j);
        }
        order
    }
}

#[inline(always)]
fn box_muller(w: [u32; 4]) -> [f32; 2] {
    // 53 bits; 27 and 26 of them fit an i32, which every instruction set makes a float of.
    let bits =
        |high: u32, low: u32| f64::from((high >> 5) as i32) * 67_108_864.0 + f64::from((low >> 6) as i32);
    // u in (0, 1], so that its logarithm is finite.
    let u = (bits(w[0], w[1]) + 1.0) / 9_007_199_254_740_992.0;
    let turn = bits(w[2], w[3]) / 9_007_199_254_740_992.0;
    let radius = (-2.0 * crate::math::ln_normal(u, 0.0)).sqrt();
    let (sin, cos) = crate::math::sin_cos_f64(turn * std::f64::consts::TAU);
    [(radius * cos) as f32, (radius * sin) as f32]
}

multiversion! {
    fn normals(philox: Philox, stream: u64, first: u64, out: &mut [f32]) {
        for (block, out) in (0..).zip(out.chunks_mut(2 * SIDE_BY_SIDE)) {
            let start = first + block * SIDE_BY_SIDE as u64;
            let (mut words, mut pairs) = ([[0; 4]; SIDE_BY_SIDE], [[0.0; 2]; SIDE_BY_SIDE]);
            for (index, words) in (start..).zip(&mut words) {
                *words = philox.words(stream, index);
            }
            for (pair, words) in pairs.iter_mut().zip(&words) {
                *pair = box_muller(*words);
            }
            out.copy_from_slice(&pairs.as_flattened()[..out.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_the_reference_implementation() {
        let cases = [
            ([0; 2], [0; 4], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 2], [u32::MAX; 4], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0xa409_3822, 0x299f_31d0],
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (key, counter, expected) in cases {
            assert_eq!(philox4x32(key, counter), expected);
        }
    }

    #[test]
    fn a_permutation_holds_every_index_once_and_depends_on_seed_purpose_and_stream() {
        let order = Philox::new(7, "shuffle").permutation(3, 1000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        assert_ne!(order, Philox::new(8, "shuffle").permutation(3, 1000));
        assert_ne!(order, Philox::new(7, "split").permutation(3, 1000));
        assert_ne!(order, Philox::new(7, "shuffle").permutation(4, 1000));
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let philox = Philox::new(1, "normal");
        let n = 100_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for i in 0..n {
            for x in philox.normal_pair(0, i) {
                sum += f64::from(x);
                squares += f64::from(x) * f64::from(x);
            }
        }
        let count = 2.0 * n as f64;
        assert!((sum / count).abs() < 0.01, "mean {}", sum / count);
        assert!((squares / count - 1.0).abs() < 0.01, "variance {}", squares / count);
    }

    #[test]
    fn normal_numbers_side_by_side_are_those_of_the_pairs_on_every_instruction_set() {
        let philox = Philox::new(5, "normals");
        let (stream, first) = (u64::MAX - 3, u64::from(u32::MAX) - 70);
        for n in [0, 1, 2, 31, 32, 33, 70_001] {
            let expected = (first..).flat_map(|index| philox.normal_pair(stream, index)).take(n);
            let expected: Vec<u32> = expected.map(f32::to_bits).collect();
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                let mut found = vec![f32::NAN; n];
                philox.normals(isa, stream, first, &mut found);
                let found: Vec<u32> = found.into_iter().map(f32::to_bits).collect();
                assert!(found == expected, "{n} on {}", isa.name());
            }
        }
    }

    #[test]
    fn the_bits_of_normal_numbers_are_those_that_runs_were_begun_with() {
        let philox = Philox::new(0, "init");
        let bits = (0..1 << 16).flat_map(|i| philox.normal_pair(77, i)).map(|x| u64::from(x.to_bits()));
        let all = bits.fold(0xcbf2_9ce4_8422_2325_u64, |h, x| (h ^ x).wrapping_mul(0x100_0000_01b3));
        assert_eq!(all, 0x20a3_4018_ba2f_966b);
    }
}
