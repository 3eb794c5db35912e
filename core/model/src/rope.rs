//! Rotary frequencies of a configuration, as transformers computes them in f32.

use fp8flow_kernels::math::ln_f64;
use fp8flow_tensor::RopeTable;

use crate::{ModelConfig, RopeScaling};

impl ModelConfig {
    /// `1 / theta^(2i / head_dim)` for `i < head_dim / 2`, stretched as the configuration says.
    ///
    /// Every operation is rounded to f32 in the order of transformers' `modeling_rope_utils.py`. The power alone may
    /// differ from PyTorch's, in the last place: ours is rounded from f64, PyTorch's comes from a vector library that
    /// promises one unit.
    pub fn inverse_frequencies(&self) -> Vec<f32> {
        let ln_theta = ln_f64(f64::from(self.rope.theta as f32));
        (0..self.head_dim)
            .step_by(2)
            .map(|i| {
                let exponent = i as f32 / self.head_dim as f32;
                let power = exp_f64(f64::from(exponent) * ln_theta) as f32;
                scaled(self.rope.scaling, 1.0 / power)
            })
            .collect()
    }

    /// Cosines and sines of the first `positions` positions.
    pub fn rope_table(&self, positions: usize) -> RopeTable {
        RopeTable::new(&self.inverse_frequencies(), positions, 1.0)
    }
}

/// A frequency after stretching.
fn scaled(scaling: RopeScaling, frequency: f32) -> f32 {
    match scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor as f32,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
            let original = original_max_positions as f64;
            let wavelength = std::f32::consts::TAU / frequency;
            if wavelength > (original / low_freq_factor) as f32 {
                return frequency / factor as f32;
            }
            if wavelength < (original / high_freq_factor) as f32 {
                return frequency;
            }
            let smooth = (original as f32 / wavelength - low_freq_factor as f32)
                / (high_freq_factor - low_freq_factor) as f32;
            (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
        }
    }
}

/// `eˣ` for |x| below 700, within 1e-15 relative, the same bits everywhere.
fn exp_f64(x: f64) -> f64 {
    // Cody and Waite: x = n·ln 2 + r with |r| ≤ ln 2 / 2; n has few bits, so that its product with the first part
    // is exact.
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let n = (x * std::f64::consts::LOG2_E).round_ties_even();
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    // Taylor's series by Horner: 1 + r/1·(1 + r/2·(1 + …)); the first term left out is below 1e-17.
    let series = (1..=14).rev().fold(1.0, |sum, term| 1.0 + r / f64::from(term) * sum);
    series * f64::from_bits(((n as i64 + 1023) << 52) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_c_library() {
        for i in -70_000..70_000 {
            let x = f64::from(i) * 0.01 + 0.003;
            assert!((exp_f64(x) - x.exp()).abs() <= 1e-15 * x.exp(), "exp {x}");
        }
        assert_eq!(exp_f64(0.0), 1.0);
    }
}
