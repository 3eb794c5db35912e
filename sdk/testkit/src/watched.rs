//! A recipe whose every call is looked at: what arithmetic is like afterwards, and who runs loops during it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

use fp8flow_sdk::{
    Backward, Counters, Decision, Event, Forward, InputFormat, LayerFacts, Linear, Memory, Recipe, Result,
    StateDict,
};

use crate::arithmetic::deviation;
use crate::failure::Failure;
use crate::host::Observer;

/// What was seen of all calls.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The thread of the call in progress, and the call.
    caller: Mutex<Option<(ThreadId, &'static str)>>,
    arithmetic: Mutex<Option<String>>,
    loops: Mutex<Option<String>>,
}

fn note(finding: &Mutex<Option<String>>, text: String) {
    finding.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
}

fn found(finding: &Mutex<Option<String>>) -> std::result::Result<(), Failure> {
    match &*finding.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(text) => Err(Failure::Wrong(text.clone())),
        None => Ok(()),
    }
}

impl Watch {
    /// Runs `body`, which is the backend's `call`, on this thread.
    pub(crate) fn during<R>(&self, call: &'static str, body: impl FnOnce() -> R) -> R {
        let caller = || self.caller.lock().unwrap_or_else(PoisonError::into_inner);
        let before = deviation();
        *caller() = Some((std::thread::current().id(), call));
        let result = body();
        *caller() = None;
        if let Some(after) = deviation().filter(|_| before.is_none()) {
            note(
                &self.arithmetic,
                format!(
                    "after {call} {after} on the calling thread: put the control register (MXCSR, FPCR) back to \
                     what it was before returning"
                ),
            );
        }
        result
    }

    /// What was found out about arithmetic.
    pub(crate) fn arithmetic(&self) -> std::result::Result<(), Failure> {
        found(&self.arithmetic)
    }

    /// What was found out about loops.
    pub(crate) fn loops(&self) -> std::result::Result<(), Failure> {
        found(&self.loops)
    }
}

impl Observer for Watch {
    fn loop_begins(&self, nested: bool) {
        let caller = *self.caller.lock().unwrap_or_else(PoisonError::into_inner);
        match caller {
            None => note(
                &self.loops,
                "Host::parallel_for was called while no call was in progress: the host's threads are lent for the \
                 length of a call"
                    .into(),
            ),
            Some((thread, call)) if !nested && thread != std::thread::current().id() => note(
                &self.loops,
                format!(
                    "during {call}, Host::parallel_for was called from a thread of the backend's own: call it from \
                     the thread of the call, and start no threads"
                ),
            ),
            Some(_) => {}
        }
    }

    fn task(&self, run: &dyn Fn()) {
        let before = deviation();
        run();
        if let Some(after) = deviation().filter(|_| before.is_none()) {
            note(
                &self.arithmetic,
                format!(
                    "after a task on a thread of the host {after}: put the control register (MXCSR, FPCR) back at \
                     the end of the task"
                ),
            );
        }
    }
}

/// A recipe under [`Watch`].
pub(crate) struct Watched(pub(crate) Box<dyn Recipe>, pub(crate) Arc<Watch>);

impl Recipe for Watched {
    fn describe(&self) -> serde_json::Value {
        self.1.during("Recipe::describe", || self.0.describe())
    }

    fn decide(&self, layer: &LayerFacts) -> Decision {
        self.1.during("Recipe::decide", || self.0.decide(layer))
    }

    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>> {
        let linear = self.1.during("Recipe::linear", || self.0.linear(layer))?;
        Ok(Box::new(WatchedLinear(linear, self.1.clone())))
    }

    fn on(&mut self, event: Event) -> Result<()> {
        self.1.during("Recipe::on", || self.0.on(event))
    }

    fn state(&self) -> Result<StateDict> {
        self.1.during("Recipe::state", || self.0.state())
    }

    fn restore(&mut self, state: &StateDict) -> Result<()> {
        self.1.during("Recipe::restore", || self.0.restore(state))
    }

    fn healthy(&self) -> Result<()> {
        self.0.healthy()
    }
}

struct WatchedLinear(Box<dyn Linear>, Arc<Watch>);

impl Linear for WatchedLinear {
    fn memory(&self, tokens: usize) -> Memory {
        self.1.during("Linear::memory", || self.0.memory(tokens))
    }

    fn input_formats(&self) -> Vec<InputFormat> {
        self.1.during("Linear::input_formats", || self.0.input_formats())
    }

    fn forward(&mut self, call: Forward<'_>) -> Result<()> {
        self.1.during("Linear::forward", || self.0.forward(call))
    }

    fn backward(&mut self, call: Backward<'_>) -> Result<()> {
        self.1.during("Linear::backward", || self.0.backward(call))
    }

    fn counters(&self) -> Counters {
        self.1.during("Linear::counters", || self.0.counters())
    }
}
