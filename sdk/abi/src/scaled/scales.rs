//! Scales that a recipe keeps from step to step.

use crate::scaled::Role;
use crate::{Pass, Result};

/// A number that a device will have computed by the time it is asked for.
pub type Later = Box<dyn FnOnce() -> Result<f32> + Send>;

/// A layer's side of delayed scaling: scales made from what earlier tensors were like.
///
/// Every cast asks for its scale and, if it happens in training, tells afterwards what the tensor's absolute maximum
/// was; when scales are made anew is the recipe's affair ([`crate::Recipe::on`]).
pub trait Scales: std::fmt::Debug + Send {
    /// The scale of the cast at hand; [`Pass::Recompute`] asks for what [`Pass::Train`] was given.
    ///
    /// `amax` looks through the tensor for its absolute maximum; it is called where the scale depends on it.
    fn scale(&mut self, role: Role, pass: Pass, amax: &mut dyn FnMut() -> f32) -> f32;

    /// The absolute maximum of a tensor that was cast in training, NaN left out. A weight's is told in the first
    /// micro-batch of an optimizer step only: in the others its cast is reused.
    fn record(&mut self, role: Role, amax: f32);

    /// The same of a tensor on a device that has not computed it yet. Asking waits for the device: who can wait until all
    /// layers are done, as [`crate::Event::BackwardDone`] says, keeps it busy meanwhile.
    fn record_later(&mut self, role: Role, amax: Later) -> Result<()> {
        self.record(role, amax()?);
        Ok(())
    }

    /// Micro-batches since the role's scale was made.
    fn age(&self, role: Role) -> u64;
}
