//! A product that is ready to be asked for: descriptors, algorithm and workspace, made once.
//!
//! Sides change places on the way to cuBLASLt, as [`call`] says.

use std::sync::{Arc, Mutex, PoisonError};

use fp8flow_kernels::Store;

use super::algorithms::Algorithms;
use super::descriptors::Preference;
use super::lt::{Algorithm, Call, Handle};
use super::product::{Factors, Product};
use super::rowwise::Rowwise;
use super::rules::{self, Way};
use super::translate::call;
use crate::{Error, Event, Memory, Result};

/// Algorithms that cuBLASLt is asked for.
const CANDIDATES: usize = 8;

/// Runs that a candidate is timed over, after one that is not.
const TIMED: u32 = 5;

/// Where everything of a product lies on the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The left side.
    pub a: u64,
    /// The right side.
    pub b: u64,
    /// The result.
    pub d: u64,
    /// Factors of `a`, where it has any.
    pub factor_a: Option<u64>,
    /// Factors of `b`, where it has any.
    pub factor_b: Option<u64>,
}

/// What all plans of a card share.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) handle: Handle,
    /// One for all: they follow each other in one stream.
    pub(super) workspace: Memory,
    pub(super) algorithms: Mutex<Algorithms>,
}

/// A product that is ready on a card.
#[derive(Debug)]
pub struct Plan {
    product: Product,
    engine: Arc<Engine>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Nothing,
    Lt(Mutex<Chosen>),
    Rowwise(Rowwise),
}

/// A call, the factors of which are filled in when it is asked for, and how it is carried out.
#[derive(Debug)]
struct Chosen {
    call: Call,
    algorithm: Algorithm,
    /// What carries it out since cuBLASLt has refused to.
    instead: Option<Rowwise>,
}

impl Plan {
    pub(super) fn new(engine: &Arc<Engine>, product: Product, way: Way) -> Result<Self> {
        let work = match way {
            Way::Nothing => Work::Nothing,
            Way::Rowwise => Work::Rowwise(Rowwise::new(engine.handle.card(), &product)?),
            Way::Lt => match choose(engine, &product) {
                Ok(chosen) => Work::Lt(Mutex::new(chosen)),
                Err(error) => Work::Rowwise(instead(engine, &product, error)?),
            },
        };
        Ok(Self { product, engine: engine.clone(), work })
    }

    /// The product.
    pub fn product(&self) -> &Product {
        &self.product
    }

    /// The algorithm that cuBLASLt carries it out by, if it does.
    pub fn algorithm(&self) -> Option<Algorithm> {
        let Work::Lt(chosen) = &self.work else { return None };
        let chosen = lock(chosen);
        chosen.instead.is_none().then_some(chosen.algorithm)
    }

    /// Asks the card's stream for it.
    ///
    /// # Safety
    /// Each address is of memory of this card, with as many elements from there on as
    /// [`Operand::elements`](super::Operand::elements) and [`Factors::count`] tell, and lives until the stream has come past this. `d` overlaps nothing else.
    #[allow(unsafe_code)]
    pub unsafe fn run(&self, addresses: &Addresses) -> Result<()> {
        match &self.work {
            Work::Nothing => Ok(()),
            Work::Rowwise(rowwise) => {
                rules::addresses(&self.product, addresses)?;
                // SAFETY: the caller's; the product's rules hold.
                unsafe { rowwise.run(self.engine.handle.card(), &self.product, addresses) }
            }
            Work::Lt(chosen) => {
                rules::addresses(&self.product, addresses)?;
                let mut chosen = lock(chosen);
                if chosen.instead.is_none() {
                    // SAFETY: the caller's.
                    match unsafe { self.run_by(&chosen.call, &chosen.algorithm, addresses) } {
                        Ok(()) => return Ok(()),
                        // Some refusals come no earlier.
                        Err(error) => chosen.instead = Some(instead(&self.engine, &self.product, error)?),
                    }
                }
                let card = self.engine.handle.card();
                // SAFETY: the caller's; the product's rules hold.
                chosen
                    .instead
                    .as_ref()
                    .map_or(Ok(()), |rowwise| unsafe { rowwise.run(card, &self.product, addresses) })
            }
        }
    }

    /// # Safety
    /// As [`run`](Self::run), and cuBLASLt has named `algorithm` for `call`.
    #[allow(unsafe_code)]
    unsafe fn run_by(&self, call: &Call, algorithm: &Algorithm, addresses: &Addresses) -> Result<()> {
        let Addresses { a, b, d, factor_a, factor_b } = *addresses;
        if factor_a.is_some() || factor_b.is_some() {
            call.operation.set_scales(factor_b.unwrap_or(0), factor_a.unwrap_or(0))?;
        }
        let accumulate = self.product.store == Store::Accumulate;
        let Engine { handle, workspace, .. } = &*self.engine;
        // SAFETY: the caller's; the workspace lives as long as the engine, whose stream alone uses it.
        unsafe { handle.run(call, algorithm, [b, a, d], accumulate, workspace, &self.product) }
    }

    /// Times what cuBLASLt proposes on the card, takes the fastest from now on, and keeps it for later runs. Gives the
    /// milliseconds of each, the proposed order kept, infinity for what is refused; nothing where cuBLASLt is not asked.
    ///
    /// Another algorithm may add in another order: what is computed is the same to rounding, not to the bit.
    ///
    /// # Safety
    /// As [`run`](Self::run). What is in `d` is lost.
    #[allow(unsafe_code)]
    pub unsafe fn tune(&self, addresses: &Addresses) -> Result<Vec<f32>> {
        let Work::Lt(chosen) = &self.work else { return Ok(Vec::new()) };
        rules::addresses(&self.product, addresses)?;
        let mut chosen = lock(chosen);
        if chosen.instead.is_some() {
            return Ok(Vec::new());
        }
        let candidates = propose(&self.engine, &self.product, &chosen.call)?;
        let card = self.engine.handle.card();
        let (start, end) = (Event::new(card)?, Event::new(card)?);
        let time = |candidate| {
            for run in 0..=TIMED {
                if run == 1 {
                    start.record()?;
                }
                // SAFETY: the caller's; the candidate was just proposed for this call.
                unsafe { self.run_by(&chosen.call, candidate, addresses)? };
            }
            end.record()?;
            Ok(end.since_ms(&start)? / TIMED as f32)
        };
        let mut times = Vec::with_capacity(candidates.len());
        for candidate in &candidates {
            times.push(match time(candidate) {
                // It is proposed, and refused all the same.
                Err(Error::Lt { .. }) => f32::INFINITY,
                time => time?,
            });
        }
        let taken = times.iter().zip(&candidates).filter(|(ms, _)| ms.is_finite());
        let fastest = taken.min_by(|(x, _), (y, _)| x.total_cmp(y));
        if let Some((_, fastest)) = fastest {
            chosen.algorithm = *fastest;
            let mut algorithms = lock(&self.engine.algorithms);
            algorithms.keep(&self.product, *fastest);
            algorithms.save();
        }
        Ok(times)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The call for a product, by the algorithm that is kept for it; where none is, or the card does not take it, by the
/// first that cuBLASLt proposes.
fn choose(engine: &Engine, product: &Product) -> Result<Chosen> {
    let call = call(product)?;
    // What is proposed may depend on whether there are factors: until they are known, any address stands for theirs.
    let somewhere = |factors| if factors == Factors::One { 0 } else { engine.workspace.address() };
    if [product.a.factors, product.b.factors] != [Factors::One; 2] {
        call.operation.set_scales(somewhere(product.b.factors), somewhere(product.a.factors))?;
    }
    let kept = lock(&engine.algorithms).find(product);
    if let Some(algorithm) = kept {
        if engine.handle.takes(&call, &algorithm, engine.workspace.bytes())? {
            return Ok(Chosen { call, algorithm, instead: None });
        }
        tracing::warn!(%product, "the algorithm that is kept for a product is not taken; cuBLASLt is asked again");
    }
    let algorithm = propose(engine, product, &call)?[0];
    lock(&engine.algorithms).keep(product, algorithm);
    Ok(Chosen { call, algorithm, instead: None })
}

/// The kernel for a product that cuBLASLt refuses; its error where there is none.
fn instead(engine: &Engine, product: &Product, error: Error) -> Result<Rowwise> {
    if !matches!(error, Error::Lt { .. }) || product.a.factors != Factors::PerRow {
        return Err(error);
    }
    tracing::warn!(%product, %error, "cuBLASLt does not take a product; a slower kernel does");
    Rowwise::new(engine.handle.card(), product)
}

/// What cuBLASLt proposes for a product, best first; at least one.
fn propose(engine: &Engine, product: &Product, call: &Call) -> Result<Vec<Algorithm>> {
    let [a, b, d] = rules::alignments(product);
    let preference = Preference::new(engine.workspace.bytes(), [b, a, d])?;
    engine.handle.candidates(call, &preference, CANDIDATES, product)
}
