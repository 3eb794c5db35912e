//! The learning rate of each step.

use fp8flow_kernels::math;

/// How the rate falls after the warmup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// It stays.
    Constant,
    /// In a straight line towards 0.
    Linear,
    /// Along half a cosine towards 0.
    Cosine,
}

impl Decay {
    /// The decay called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "constant" => Some(Self::Constant),
            "linear" => Some(Self::Linear),
            "cosine" => Some(Self::Cosine),
            _ => None,
        }
    }
}

/// A warmup as it is configured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warmup {
    /// A number of steps.
    Steps(u64),
    /// A share of all steps, rounded up.
    Share(f64),
}

/// The rate over a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The rate after the warmup.
    pub peak: f64,
    /// Steps of the warmup.
    pub warmup: u64,
    /// The step at which the decay would reach 0.
    pub steps: u64,
    /// The decay.
    pub decay: Decay,
}

impl Schedule {
    /// A schedule over `steps` steps.
    pub fn new(peak: f64, warmup: Warmup, steps: u64, decay: Decay) -> Self {
        let warmup = match warmup {
            Warmup::Steps(steps) => steps,
            Warmup::Share(share) => (share * steps as f64).ceil() as u64,
        };
        Self { peak, warmup, steps, decay }
    }

    /// The rate of `step`, counted from 1.
    ///
    /// In the warmup `step / warmup` of the peak, so that the first step moves; then, with
    /// `p = (step − 1 − warmup) / (steps − warmup)`, the whole peak, `1 − p` or `(1 + cos πp) / 2` of it: the first
    /// step after the warmup has the peak, and the last one is not wasted on a rate of 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step <= self.warmup {
            return self.peak * (step as f64 / self.warmup as f64);
        }
        let past = (step - 1 - self.warmup) as f64;
        let progress = (past / self.steps.saturating_sub(self.warmup).max(1) as f64).min(1.0);
        let factor = match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear => 1.0 - progress,
            Decay::Cosine => 0.5 * (1.0 + math::sin_cos_f64(std::f64::consts::PI * progress).1),
        };
        self.peak * factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_of_a_warmup_moves_and_its_last_has_the_peak() {
        let schedule = Schedule::new(1.0, Warmup::Steps(4), 10, Decay::Linear);
        let rates: Vec<f64> = (1..=6).map(|step| schedule.rate(step)).collect();
        assert_eq!(rates[..4], [0.25, 0.5, 0.75, 1.0]);
        assert_eq!(rates[4], 1.0);
        assert!((rates[5] - 5.0 / 6.0).abs() < 1e-15);
    }

    #[test]
    fn a_cosine_is_halfway_down_in_the_middle_and_never_zero_within_the_run() {
        let schedule = Schedule::new(2e-4, Warmup::Share(0.0), 100, Decay::Cosine);
        assert_eq!(schedule.rate(1), 2e-4);
        assert!((schedule.rate(51) - 1e-4).abs() < 1e-18);
        assert!(schedule.rate(100) > 0.0);
        assert!(schedule.rate(1000).abs() < 1e-18);
    }

    #[test]
    fn a_share_of_the_steps_is_rounded_up() {
        assert_eq!(Schedule::new(1.0, Warmup::Share(0.1), 11, Decay::Constant).warmup, 2);
    }

    #[test]
    fn a_constant_rate_stays() {
        let schedule = Schedule::new(1e-3, Warmup::Steps(0), 5, Decay::Constant);
        assert!((1..10).all(|step| schedule.rate(step) == 1e-3));
    }
}
