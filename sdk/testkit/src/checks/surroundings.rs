//! A plugin leaves the process as it was: everybody in it shares what it would change.

use std::time::Duration;

use fp8flow_sdk::Pass;

use super::{Found, ensure};
use crate::subject::{Subject, input, output_gradients};
use crate::surroundings::Surroundings;
use crate::values::Activations::Bf16;

/// What a thread that is about to end needs at most.
const PATIENCE: Duration = Duration::from_millis(300);

/// After calls of every kind, and where that was noted after the library was opened, the surroundings are what they were.
pub(crate) fn the_process_is_as_it_was(subject: &Subject<'_>) -> Found {
    let remembered = Surroundings::before();
    let mut before = remembered.map_or_else(|| Surroundings::now().shared(), Clone::clone);
    if subject.on_card() {
        // A card's driver has threads of its own, and starts them when it needs them.
        before = before.shared();
    }
    for tokens in [16, 33] {
        let mut layers = subject.group()?;
        let x = input(Bf16, tokens, 0);
        layers.step(&x, &output_gradients(Bf16, tokens, 0))?;
        layers.forward(Pass::Eval, &x)?;
        let _ = (layers.counters(0), layers.recipe().describe(), layers.recipe().state());
    }
    let mut now = Surroundings::now();
    let until = std::time::Instant::now() + PATIENCE;
    // This check's own thread was not there before.
    while before.changed(&now.clone().without_this_thread()).is_some() && std::time::Instant::now() < until {
        std::thread::sleep(PATIENCE / 30);
        now = Surroundings::now();
    }
    let changed = before.changed(&now.without_this_thread());
    ensure!(
        changed.is_none(),
        "{} is another since the plugin is at work: leave the process as it was, which belongs to the engine",
        changed.unwrap_or_default()
    );
    Ok("as they were".into())
}
