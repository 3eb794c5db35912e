//! A layer on a card behind the face of one in host memory.

use std::sync::{Arc, Mutex, PoisonError};

use fp8flow_sdk::{
    Backward, Counters, Error, ErrorKind, Forward, Group, Input, InputFormat, Linear, Memory, Result,
};

use super::Desk;
use super::mirror::{Loan, Mirror, There};
use crate::failure::Failure;

/// The layer, and where its calls are mirrored.
pub(super) struct CardLinear {
    pub(super) linear: Box<dyn Linear>,
    pub(super) desk: Desk,
    pub(super) mirror: Arc<Mutex<Mirror>>,
}

/// What stands for an error of the card, which the suite has been told of.
fn unable() -> Error {
    Error::new(ErrorKind::Internal, "the card did not do what it was asked")
}

impl CardLinear {
    /// Lends what a call needs, to `run` it, and brings back what it left on the card, in which nothing else may have
    /// changed.
    fn mirrored(
        &mut self,
        call: &'static str,
        loan: Loan<'_>,
        run: impl FnOnce(&mut dyn Linear, There) -> Result<()>,
    ) -> Result<()> {
        // A call has the whole mirror: the memory of one call is never another's.
        let mut mirror = self.mirror.lock().unwrap_or_else(PoisonError::into_inner);
        let there = mirror.lend(&loan).map_err(|error| self.unable(call, &error))?;
        let result = run(&mut *self.linear, there);
        if !self.desk.settle(call) {
            return result.and(Err(unable()));
        }
        if let Some(breach) = mirror.take_back(call, loan).map_err(|error| self.unable(call, &error))? {
            self.desk.note(breach);
        }
        result
    }

    /// Notes that what `call` is lent cannot be brought to the card or back.
    fn unable(&self, call: &'static str, error: &fp8flow_cuda::Error) -> Error {
        self.desk.note(Failure::Wrong(format!(
            "memory for {call} cannot be copied to the card and back: {error}"
        )));
        unable()
    }
}

impl Linear for CardLinear {
    fn memory(&self, tokens: usize) -> Memory {
        self.linear.memory(tokens)
    }

    fn input_formats(&self) -> Vec<InputFormat> {
        self.linear.input_formats()
    }

    fn forward(&mut self, call: Forward<'_>) -> Result<()> {
        const CALL: &str = "Linear::forward";
        let Forward { pass, x, weight, mut y, group, saved, scratch, telemetry } = call;
        if x.quantized.is_some() {
            return Err(Error::unsupported("on a card the engine gives no input that its producer has cast"));
        }
        let (device, mut loan) = (self.desk.device(), Loan::default());
        let at_x = loan.tensor("input", "x", &x.tensor);
        let at_weight = loan.tensor("weight", "weight", &weight);
        let mut at_y = loan.result("output", &mut y);
        let mut at_group_saved = loan.region("group's saved region", group.saved);
        let mut at_group_forward = loan.region("group's forward region", group.forward);
        let mut at_saved = loan.region("saved region", saved);
        let mut at_scratch = loan.region("scratch", scratch);
        self.mirrored(CALL, loan, |linear, there| {
            linear.forward(Forward {
                pass,
                x: Input::from(there.tensor(device, &at_x)),
                weight: there.tensor(device, &at_weight),
                y: there.result(device, &mut at_y),
                group: Group {
                    ready: group.ready,
                    saved: there.region(&mut at_group_saved),
                    forward: there.region(&mut at_group_forward),
                },
                saved: there.region(&mut at_saved),
                scratch: there.region(&mut at_scratch),
                telemetry,
            })
        })
    }

    fn backward(&mut self, call: Backward<'_>) -> Result<()> {
        const CALL: &str = "Linear::backward";
        let Backward { dy, weight, x, mut dx, mut dw, group_saved, saved, scratch, telemetry, .. } = call;
        let (device, mut loan) = (self.desk.device(), Loan::default());
        let at_dy = loan.tensor("gradient of the output", "dy", &dy);
        let at_weight = loan.tensor("weight", "weight", &weight);
        let at_x = x.map(|x| loan.tensor("input", "x", &x));
        let mut at_dx = dx.as_mut().map(|dx| loan.result("gradient of the input", dx));
        let mut at_dw = loan.result("gradient of the weight", &mut dw);
        let at_group_saved = loan.kept("group's saved region", "group_saved", group_saved);
        let at_saved = loan.kept("saved region", "saved", saved);
        let mut at_scratch = loan.region("scratch", scratch);
        self.mirrored(CALL, loan, |linear, there| {
            linear.backward(Backward {
                dy: there.tensor(device, &at_dy),
                weight: there.tensor(device, &at_weight),
                x: at_x.as_ref().map(|x| there.tensor(device, x)),
                dx: at_dx.as_mut().map(|dx| there.result(device, dx)),
                accumulate_dx: call.accumulate_dx,
                dw: there.result(device, &mut at_dw),
                accumulate_dw: call.accumulate_dw,
                group_saved: there.kept(&at_group_saved),
                saved: there.kept(&at_saved),
                scratch: there.region(&mut at_scratch),
                telemetry,
            })
        })
    }

    fn counters(&self) -> Counters {
        let counters = self.linear.counters();
        self.desk.settle("Linear::counters");
        counters
    }
}
