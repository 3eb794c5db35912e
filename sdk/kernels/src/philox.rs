//! Random numbers without state: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11).
//!
//! A number is a function of a key and a counter, so nothing has to be saved, restored or kept in order.

/// The purpose of a stream of random numbers: streams of different purposes never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds over `counter` under `key`: the reference's `philox4x32`.
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
        let w = self.words(stream, index);
        // u in (0, 1], so that its logarithm is finite.
        let u = (f64::from(w[0] >> 5) * 67_108_864.0 + f64::from(w[1] >> 6) + 1.0) / 9_007_199_254_740_992.0;
        let turn = (f64::from(w[2] >> 5) * 67_108_864.0 + f64::from(w[3] >> 6)) / 9_007_199_254_740_992.0;
        let radius = (-2.0 * crate::math::ln_f64(u)).sqrt();
        let (sin, cos) = crate::math::sin_cos_f64(turn * std::f64::consts::TAU);
        [(radius * cos) as f32, (radius * sin) as f32]
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
}
