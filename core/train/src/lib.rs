//! The training loop: optimizer, schedule, checkpoints, metrics, evaluation.
