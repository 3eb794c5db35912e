//! Products of matrices: planned once, then only asked of the stream.
//!
//! [`Product`] says what is asked, `rules` whether hardware and cuBLASLt take it, and who carries it out: cuBLASLt, by
//! an algorithm that is chosen once and frozen, or the kernel `gemm_rowwise` where that takes no factors a row: on Ada,
//! before 12.9, and wherever it refuses.

mod algorithms;
mod descriptors;
mod lt;
mod plan;
mod product;
mod rowwise;
mod rules;
mod translate;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use self::algorithms::Algorithms;
use self::lt::Handle;
pub use self::lt::{Algorithm, version};
pub use self::plan::{Addresses, Plan};
use self::plan::{Engine, lock};
pub use self::product::{Factors, Format, Operand, Order, Output, Product};
pub use self::rules::{Way, way};
use crate::{Architecture, Card, Result, Source, cache};

/// The kernels.
pub const SOURCES: [Source; 1] = [rowwise::SOURCE];

/// The products of a card. Clones are the same.
#[derive(Clone, Debug)]
pub struct Gemm(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Arc<Engine>,
    plans: Mutex<HashMap<Product, Arc<Plan>>>,
}

impl Gemm {
    /// Products on `card`, with a workspace; algorithms are kept in the user's cache.
    pub fn new(card: &Card) -> Result<Self> {
        Self::keeping(card, cache::folder("algorithms"))
    }

    /// The same, with algorithms kept in `folder`, or nowhere.
    pub fn keeping(card: &Card, folder: Option<PathBuf>) -> Result<Self> {
        let workspace = card.take(Self::workspace(card.properties().architecture))?;
        let algorithms = Mutex::new(Algorithms::new(card.properties(), folder)?);
        let engine = Arc::new(Engine { handle: Handle::open(card)?, workspace, algorithms });
        Ok(Self(Arc::new(Inner { engine, plans: Mutex::default() })))
    }

    /// Bytes of the workspace: what NVIDIA advises.
    pub const fn workspace(architecture: Architecture) -> usize {
        match architecture {
            Architecture::Ada => 4 << 20,
            Architecture::Hopper => 32 << 20,
        }
    }

    /// The plan for `product`, made if it never was.
    pub fn plan(&self, product: &Product) -> Result<Arc<Plan>> {
        let engine = &self.0.engine;
        let mut plans = lock(&self.0.plans);
        if let Some(plan) = plans.get(product) {
            return Ok(plan.clone());
        }
        let way = way(product, engine.handle.card().properties().architecture)?;
        let plan = Arc::new(Plan::new(engine, *product, way)?);
        plans.insert(*product, plan.clone());
        Ok(plan)
    }

    /// A plan for `product` as on Ada, whatever the card: what the kernel is tested and measured by.
    pub fn plan_as_on_ada(&self, product: &Product) -> Result<Plan> {
        Plan::new(&self.0.engine, *product, way(product, Architecture::Ada)?)
    }

    /// The algorithms of all plans, for a run's record: a line that names cuBLASLt and card, then one for each product.
    pub fn describe(&self) -> String {
        lock(&self.0.engine.algorithms).describe()
    }

    /// Takes the algorithms that a run has recorded; an error if they are of another cuBLASLt or kind of card. Plans that
    /// were handed out keep theirs.
    pub fn import(&self, text: &str) -> Result<()> {
        lock(&self.0.engine.algorithms).import(text)?;
        lock(&self.0.plans).clear();
        Ok(())
    }
}
