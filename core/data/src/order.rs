//! Which examples a step takes: a function of the seed and the step, nothing else.

use std::sync::{Mutex, PoisonError};

use fp8flow_kernels::philox::Philox;

use crate::DataError;

/// The order of the examples over epochs and steps.
///
/// Each epoch visits a permutation of its own, cut into steps of equal size; what does not fill a step is left out of
/// that epoch. No state is kept between steps, so a run may begin at any of them.
#[derive(Debug)]
pub struct Order {
    examples: usize,
    per_step: usize,
    seed: u64,
    shuffle: bool,
    /// The permutation of the epoch last asked for: steps of one epoch come one after another.
    latest: Mutex<Option<(u64, Vec<usize>)>>,
}

impl Order {
    /// Steps of `per_step` out of `examples`; shuffled under `seed`, or as the dataset has them.
    pub fn new(examples: usize, per_step: usize, seed: u64, shuffle: bool) -> Result<Self, DataError> {
        if per_step == 0 {
            return Err(DataError::EmptyStep);
        }
        if examples < per_step {
            return Err(DataError::TooFewExamples { examples, per_step });
        }
        Ok(Self { examples, per_step, seed, shuffle, latest: Mutex::new(None) })
    }

    /// Full steps of one pass over the examples; at least one.
    pub fn steps_per_epoch(&self) -> u64 {
        (self.examples / self.per_step) as u64
    }

    /// Examples of each epoch that fill no step.
    pub fn left_out_per_epoch(&self) -> usize {
        self.examples % self.per_step
    }

    /// The epoch of `step`; both count from 0.
    pub fn epoch(&self, step: u64) -> u64 {
        step / self.steps_per_epoch()
    }

    /// The examples of `step` (from 0), in order.
    pub fn step(&self, step: u64) -> Vec<usize> {
        let start = (step % self.steps_per_epoch()) as usize * self.per_step;
        let range = start..start + self.per_step;
        if !self.shuffle {
            return range.collect();
        }
        let epoch = self.epoch(step);
        // The permutation is whole or absent, whatever became of another holder of the lock.
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some((known, permutation)) if *known == epoch => permutation[range].to_vec(),
            _ => {
                let permutation = Philox::new(self.seed, "shuffle").permutation(epoch, self.examples);
                let chosen = permutation[range].to_vec();
                *latest = Some((epoch, permutation));
                chosen
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_visits_each_example_at_most_once_and_leaves_the_partial_step_out() {
        for (examples, per_step) in [(1, 1), (7, 3), (63, 64 / 2), (64, 64), (65, 64)] {
            let order = Order::new(examples, per_step, 5, true).unwrap();
            for epoch in 0..3 {
                let mut visited: Vec<usize> = (0..order.steps_per_epoch())
                    .flat_map(|step| order.step(epoch * order.steps_per_epoch() + step))
                    .collect();
                assert_eq!(visited.len() + order.left_out_per_epoch(), examples);
                visited.sort_unstable();
                visited.dedup();
                assert_eq!(visited.len() + order.left_out_per_epoch(), examples);
            }
        }
    }

    #[test]
    fn a_step_depends_on_nothing_but_seed_and_step() {
        let forwards = Order::new(100, 8, 42, true).unwrap();
        let straight: Vec<_> = (0..40).map(|step| forwards.step(step)).collect();
        let backwards = Order::new(100, 8, 42, true).unwrap();
        for step in (0..40).rev() {
            assert_eq!(backwards.step(step), straight[step as usize]);
        }
        assert_ne!(Order::new(100, 8, 43, true).unwrap().step(0), straight[0]);
        assert_ne!(straight[0], straight[12], "epochs have permutations of their own");
    }

    #[test]
    fn without_shuffle_every_epoch_is_the_dataset_in_order() {
        let order = Order::new(7, 3, 1, false).unwrap();
        assert_eq!([order.step(0), order.step(1), order.step(2)], [[0, 1, 2], [3, 4, 5], [0, 1, 2]]);
        assert_eq!(order.left_out_per_epoch(), 1);
        assert_eq!([order.epoch(1), order.epoch(2)], [0, 1]);
    }

    #[test]
    fn fewer_examples_than_a_step_takes_is_an_error() {
        let error = Order::new(3, 8, 1, true).unwrap_err();
        assert!(error.to_string().contains("3 examples are fewer than the 8 of one step"), "{error}");
        assert!(matches!(Order::new(3, 0, 1, true), Err(DataError::EmptyStep)));
    }
}
