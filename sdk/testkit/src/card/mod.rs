//! The suite on an NVIDIA card.
//!
//! Checks know nothing of cards: they lend host memory and look at it. [`OnCard`] stands between them and the backend. It
//! makes layers for the card, mirrors what a call is lent into the card's memory, with guards around each piece, and
//! brings back what the call has left there (`mirror`). What it finds itself, such as a broken guard, it keeps for the
//! suite, which fails the check at hand with it.

mod linear;
mod mirror;
mod open;
mod recipe;

use std::sync::{Arc, Mutex, PoisonError};

pub use fp8flow_cuda::Card;
use fp8flow_sdk::{Backend, DeviceId, Host, Kernels, Options, Recipe, RecipeInfo, Result};

use crate::elsewhere::Elsewhere;
use crate::failure::Failure;
use crate::report::Report;
use crate::tested::{Linked, Started, Tested};

use self::mirror::Mirror;
pub use self::open::open_and_use;
use self::recipe::CardRecipe;

/// Runs every check that can be tried on a card on every recipe of `B`, with its layers on `card`. The feature `cuda`.
pub fn run_on_card<B: Backend>(card: &Card) -> Report {
    run_some_on_card::<B>(card, |_, _| true)
}

/// [`run_on_card`] with those checks only that are chosen, by the check's name and by the recipe with its options.
pub fn run_some_on_card<B: Backend>(card: &Card, choose: impl Fn(&str, &str) -> bool) -> Report {
    let linked = Linked::<B>::default();
    let mut report = crate::report_of(&OnCard::new(&linked, card), &choose);
    report.left_out = crate::LEFT_OUT.to_vec();
    report
}

/// A backend whose layers work on a card.
pub struct OnCard<'a> {
    backend: &'a dyn Tested,
    desk: Desk,
}

/// What the layers of all recipes share: the card, and what was found on it. Clones are the same.
#[derive(Clone, Debug)]
struct Desk {
    card: Card,
    found: Arc<Mutex<Found>>,
    mirrors: Arc<Mutex<Vec<Arc<Mutex<Mirror>>>>>,
}

#[derive(Debug, Default)]
struct Found {
    breach: Option<Failure>,
    lost: bool,
}

impl<'a> OnCard<'a> {
    /// The layers of `backend` on `card`.
    pub fn new(backend: &'a dyn Tested, card: &Card) -> Self {
        let desk = Desk { card: card.clone(), found: Arc::default(), mirrors: Arc::default() };
        Self { backend, desk }
    }
}

impl Desk {
    /// The card, as a layer is told of it.
    fn device(&self) -> DeviceId {
        DeviceId::cuda(self.card.ordinal() as u32, self.card.stream_id())
    }

    /// Memory for the calls of a recipe: what no other recipe has any more.
    fn mirror(&self) -> Arc<Mutex<Mirror>> {
        let mut mirrors = self.mirrors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(free) = mirrors.iter().find(|mirror| Arc::strong_count(mirror) == 1) {
            return free.clone();
        }
        let mirror = Arc::new(Mutex::new(Mirror::new(self.card.clone())));
        mirrors.push(mirror.clone());
        mirror
    }

    fn found<R>(&self, look: impl FnOnce(&mut Found) -> R) -> R {
        look(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps what was found first.
    fn note(&self, failure: Failure) {
        self.found(|found| {
            found.breach.get_or_insert(failure);
        });
    }

    /// Waits for what `call` has asked of the card; notes what that could not do. Whether it did all.
    fn settle(&self, call: &'static str) -> bool {
        let Err(error) = self.card.synchronize() else { return true };
        // An error of the card itself stays; one of a call that was refused does not.
        let lost = self.card.synchronize().is_err();
        self.found(|found| found.lost |= lost);
        self.note(Failure::Wrong(format!(
            "after {call} the card says: {error}: run the same under `compute-sanitizer`, and look at addresses, bounds \
             and the stream of what that call asks of the card"
        )));
        false
    }
}

impl Tested for OnCard<'_> {
    fn recipes(&self) -> Result<Vec<RecipeInfo>> {
        self.backend.recipes()
    }

    fn start(&self, host: &Host) -> Result<Box<dyn Started>> {
        Ok(Box::new(StartedOnCard(self.backend.start(host)?, self.desk.clone())))
    }

    fn elsewhere(&self) -> Option<&dyn Elsewhere> {
        Some(self)
    }
}

impl Elsewhere for OnCard<'_> {
    fn breach(&self) -> Option<Failure> {
        self.desk.found(|found| found.breach.take())
    }

    fn is_lost(&self) -> bool {
        self.desk.found(|found| found.lost)
    }

    fn bytes_in_use(&self) -> u64 {
        self.desk.card.memory_info().map_or(0, |(free, total)| (total - free) as u64)
    }
}

struct StartedOnCard(Box<dyn Started>, Desk);

impl Started for StartedOnCard {
    fn recipe(&self, host: &Host, name: &str, options: &Options) -> Result<Box<dyn Recipe>> {
        let recipe = self.0.recipe(host, name, options)?;
        Ok(Box::new(CardRecipe { recipe, desk: self.1.clone(), mirror: self.1.mirror() }))
    }

    fn kernels(&self, host: &Host) -> Result<Option<Box<dyn Kernels>>> {
        self.0.kernels(host)
    }
}

impl std::fmt::Debug for OnCard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnCard").field("desk", &self.desk).finish_non_exhaustive()
    }
}
