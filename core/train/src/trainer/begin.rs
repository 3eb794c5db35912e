//! How a run begins: afresh, or where its newest whole checkpoint stands.

use std::sync::atomic::AtomicBool;

use fp8flow_data::Order;
use fp8flow_model::{Parameters, parameter_specs};

use super::Run;
use crate::checkpoint::Checkpoints;
use crate::digests::Digests;
use crate::gradient_tree::GradientTree;
use crate::invariants::{self, Movement};
use crate::job::{CHECKPOINTS, EVALUATIONS, METRICS, TELEMETRY, check_fit};
use crate::metrics::Lines;
use crate::optimizer::Optimizer;
use crate::{Job, TrainConfig, TrainError, Watcher, telemetry};

impl<'a> Run<'a> {
    /// From the newest checkpoint that verifies, or from the start.
    pub(super) fn begin(
        mut job: Job<'a>,
        fresh: impl FnOnce() -> Result<Parameters, TrainError>,
        stop: &'a AtomicBool,
        watcher: &'a mut dyn Watcher,
    ) -> Result<Self, TrainError> {
        let config = &job.config;
        check_fit(job.decoder.config(), job.train)?;
        check_fit(job.decoder.config(), job.held_out)?;
        let order = Order::new(job.train.len(), config.per_step, config.seed, config.shuffle)?;
        let checkpoints = Checkpoints::new(job.folder.join(CHECKPOINTS), config.keep);
        checkpoints.prepare()?;
        let newest = checkpoints.newest(|path, reason| {
            watcher.warn(&format!("{}: not used: {reason}", path.display()));
        })?;

        let specs = parameter_specs(job.decoder.config());
        let device = job.device;
        let mut optimizer = Optimizer::new(config.optimizer, device, &specs)?;
        let (parameters, done) = if let Some(checkpoint) = &newest {
            checkpoint.expect(&config.identity)?;
            let mut parameters = Parameters::zeros_on(device, &specs)?;
            checkpoint.load(&mut parameters, [&mut optimizer.m, &mut optimizer.v], &mut job.decoder)?;
            watcher.resumed(checkpoint.state.step);
            (parameters, checkpoint.state.step)
        } else {
            if let Some(state) = &job.recipe_state {
                state.restore(&mut job.decoder)?;
            }
            (fresh()?.moved_to(device)?, 0)
        };
        invariants::all_there_once(job.decoder.config(), [&parameters, &optimizer.m, &optimizer.v])?;
        job.decoder.weights_changed(job.device, &parameters)?;
        let digests = Digests::open(job.folder, done, &parameters, job.device.cpu().pool)?;
        Ok(Self {
            order,
            checkpoints,
            parameters,
            digests,
            optimizer,
            gradients: GradientTree::new(config.accumulation, config.micro_batches(), device, &specs)?,
            metrics: Lines::open(&job.folder.join(METRICS), done)?,
            evaluations: Lines::open(&job.folder.join(EVALUATIONS), done)?,
            telemetry: Lines::open(&job.folder.join(TELEMETRY), done)?,
            casts: telemetry::Observer::default(),
            movement: Movement::new(specs.len()),
            received: false,
            started_at: done,
            done,
            saved: newest.map(|checkpoint| (done, checkpoint.path)),
            job,
            stop,
            watcher,
        })
    }

    /// Fails unless the disk has room for the checkpoints of the steps that are left.
    pub(super) fn expect_room(&self) -> Result<(), TrainError> {
        let TrainConfig { steps, checkpoint_every, .. } = self.job.config;
        if self.done >= steps {
            return Ok(());
        }
        self.checkpoints.expect_room(&self.parameters, checkpoint_every > 0)
    }
}
