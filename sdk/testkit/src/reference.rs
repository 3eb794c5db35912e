//! The three products of a linear layer in f64, and how far from them a result is.

/// `y = x·Wᵀ`, `dx = dy·W`, `dW = dyᵀ·x`, with `x: [M, K]`, `W: [N, K]`, `dy: [M, N]`.
#[derive(Clone, Debug)]
pub struct Reference {
    /// `[M, N]`.
    pub y: Vec<f64>,
    /// `[M, K]`.
    pub dx: Vec<f64>,
    /// `[N, K]`.
    pub dw: Vec<f64>,
}

impl Reference {
    /// The products of these numbers, of which `x` and `W` have `in_features` columns.
    pub fn new(x: &[f32], weight: &[f32], dy: &[f32], in_features: usize) -> Self {
        let k = in_features;
        let (m, n) = (x.len() / k, weight.len() / k);
        let mut y = vec![0.0; m * n];
        let mut dx = vec![0.0; m * k];
        let mut dw = vec![0.0; n * k];
        for row in 0..m {
            let x = &x[row * k..][..k];
            let dx = &mut dx[row * k..][..k];
            for col in 0..n {
                let w = &weight[col * k..][..k];
                let g = f64::from(dy[row * n + col]);
                y[row * n + col] = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                dx.iter_mut().zip(w).for_each(|(dx, &w)| *dx += g * f64::from(w));
                dw[col * k..][..k].iter_mut().zip(x).for_each(|(dw, &x)| *dw += g * f64::from(x));
            }
        }
        Self { y, dx, dw }
    }
}

/// The signal-to-noise ratio of `found` in dB: `20·log10(|expected| / |expected − found|)`.
///
/// Infinite where nothing differs, NaN where something found is NaN.
pub fn snr_db(expected: &[f64], found: &[f32]) -> f64 {
    assert_eq!(expected.len(), found.len(), "number of elements");
    let signal: f64 = expected.iter().map(|x| x * x).sum();
    let noise: f64 = expected.iter().zip(found).map(|(x, &y)| (x - f64::from(y)).powi(2)).sum();
    10.0 * (signal / noise).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_a_layer_by_hand() {
        // x = [1 2; 3 4], W = [5 6], dy = [7; 8]
        let found = Reference::new(&[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0], &[7.0, 8.0], 2);
        assert_eq!(found.y, [17.0, 39.0]);
        assert_eq!(found.dx, [35.0, 42.0, 40.0, 48.0]);
        assert_eq!(found.dw, [31.0, 46.0]);
    }

    #[test]
    fn a_tenth_of_the_signal_is_twenty_decibels() {
        assert!((snr_db(&[1.0, -1.0], &[1.1, -1.1]) - 20.0).abs() < 1e-5);
        assert_eq!(snr_db(&[1.0], &[1.0]), f64::INFINITY);
        assert!(snr_db(&[1.0], &[f32::NAN]).is_nan());
    }
}
