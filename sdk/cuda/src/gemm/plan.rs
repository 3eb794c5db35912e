//! A product that is ready to be asked for: descriptors, algorithm and workspace, made once.
//!
//! cuBLASLt counts by columns. Our row-major `d[m,n]` is its column-major `D[n,m] = A · B` with A our `b` and B our `a`:
//! everything that belongs to a side, its factors too, changes places, here and nowhere else.

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cublaslt::sys::{cublasLtMatmulMatrixScale_t as Scale, cudaDataType_t as DataType};
use fp8flow_kernels::{Fp8, Store};

use super::algorithms::Algorithms;
use super::descriptors::{Layout, Operation, Preference};
use super::lt::{Algorithm, Call, Handle};
use super::product::{Factors, Format, Operand, Order, Output, Product};
use super::rowwise::Rowwise;
use super::rules::{self, Way};
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
}

impl Plan {
    pub(super) fn new(engine: &Arc<Engine>, product: Product, way: Way) -> Result<Self> {
        let rowwise = || Rowwise::new(engine.handle.card(), &product).map(Work::Rowwise);
        let work = match way {
            Way::Nothing => Work::Nothing,
            Way::Rowwise => rowwise()?,
            Way::Lt => match choose(engine, &product) {
                Ok(chosen) => Work::Lt(Mutex::new(chosen)),
                Err(error @ Error::Lt { .. }) if product.a.factors == Factors::PerRow => {
                    tracing::warn!(%product, %error, "cuBLASLt does not take a product; a slower kernel does");
                    rowwise()?
                }
                Err(error) => return Err(error),
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
        Some(chosen.lock().unwrap_or_else(PoisonError::into_inner).algorithm)
    }

    /// Asks the card's stream for it.
    ///
    /// # Safety
    /// Each address is of memory of this card, with as many elements from there on as [`Operand::elements`] and
    /// [`Factors::count`] tell, and lives until the stream has come past this. `d` overlaps nothing else.
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
                let chosen = chosen.lock().unwrap_or_else(PoisonError::into_inner);
                // SAFETY: the caller's.
                unsafe { self.run_by(&chosen.call, &chosen.algorithm, addresses) }
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
    /// milliseconds of each, the proposed order kept; nothing where cuBLASLt is not asked.
    ///
    /// Another algorithm may add in another order: what is computed is the same to rounding, not to the bit.
    ///
    /// # Safety
    /// As [`run`](Self::run). What is in `d` is lost.
    #[allow(unsafe_code)]
    pub unsafe fn tune(&self, addresses: &Addresses) -> Result<Vec<f32>> {
        let Work::Lt(chosen) = &self.work else { return Ok(Vec::new()) };
        rules::addresses(&self.product, addresses)?;
        let mut chosen = chosen.lock().unwrap_or_else(PoisonError::into_inner);
        let candidates = propose(&self.engine, &self.product, &chosen.call)?;
        let card = self.engine.handle.card();
        let (start, end) = (Event::new(card)?, Event::new(card)?);
        let mut times = Vec::with_capacity(candidates.len());
        for candidate in &candidates {
            for run in 0..=TIMED {
                if run == 1 {
                    start.record()?;
                }
                // SAFETY: the caller's; the candidate was just proposed for this call.
                unsafe { self.run_by(&chosen.call, candidate, addresses)? };
            }
            end.record()?;
            times.push(end.since_ms(&start)? / TIMED as f32);
        }
        let fastest = times.iter().zip(&candidates).min_by(|(x, _), (y, _)| x.total_cmp(y));
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
            return Ok(Chosen { call, algorithm });
        }
        tracing::warn!(%product, "the algorithm that is kept for a product is not taken; cuBLASLt is asked again");
    }
    let algorithm = propose(engine, product, &call)?[0];
    lock(&engine.algorithms).keep(product, algorithm);
    Ok(Chosen { call, algorithm })
}

/// What cuBLASLt proposes for a product, best first; at least one.
fn propose(engine: &Engine, product: &Product, call: &Call) -> Result<Vec<Algorithm>> {
    let [a, b, d] = rules::alignments(product);
    let preference = Preference::new(engine.workspace.bytes(), [b, a, d])?;
    engine.handle.candidates(call, &preference, CANDIDATES, product)
}

/// A product in cuBLASLt's terms.
fn call(product: &Product) -> Result<Call> {
    let &Product { m, n, k, a, b, output, stride, fast, .. } = product;
    let operation = Operation::new()?;
    // Rows of ours are its columns: our `b` by rows is A[k,n], turned over; our `a` by rows is B[k,m], as it lies.
    operation.set_transposed(b.order == Order::Rows, a.order == Order::Transposed)?;
    if a.format.is_fp8() {
        // Sums between factors for blocks are short, and cuBLASLt has no other way to make them.
        operation.set_fast(fast && !a.factors.are_blocks())?;
        let modes = [b.factors, a.factors].map(scale);
        // One factor is what there is unasked, and all that cuBLASLt had before 12.8.
        if modes != [SCALAR; 2] {
            operation.set_scale_modes(modes)?;
        }
    }
    let output = match output {
        Output::Bf16 => DataType::CUDA_R_16BF,
        Output::F32 => DataType::CUDA_R_32F,
    };
    Ok(Call { operation, a: layout(&b, n, k)?, b: layout(&a, m, k)?, d: Layout::new(output, n, m, stride)? })
}

/// An operand of `rows × k` by columns.
fn layout(operand: &Operand, rows: usize, k: usize) -> Result<Layout> {
    let kind = match operand.format {
        Format::Fp8(Fp8::E4m3) => DataType::CUDA_R_8F_E4M3,
        Format::Fp8(Fp8::E5m2) => DataType::CUDA_R_8F_E5M2,
        Format::Bf16 => DataType::CUDA_R_16BF,
        Format::F32 => DataType::CUDA_R_32F,
    };
    match operand.order {
        Order::Rows => Layout::new(kind, k, rows, operand.stride),
        Order::Transposed => Layout::new(kind, rows, k, operand.stride),
    }
}

/// One factor for all of an operand.
const SCALAR: u32 = Scale::CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F as u32;

const fn scale(factors: Factors) -> u32 {
    match factors {
        Factors::One | Factors::Tensor => SCALAR,
        Factors::PerRow => Scale::CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F as u32,
        Factors::Block1x128 => Scale::CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F as u32,
        Factors::Block128x128 => Scale::CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Architecture;
    use crate::library::Needed;

    /// cuBLASLt checks the sizes of attributes without a card, and little more.
    #[test]
    fn every_kind_of_product_is_told_to_cublaslt() {
        if let Err(error) = Needed::CublasLt.open() {
            println!("skipped: {error}");
            return;
        }
        println!("cuBLASLt {}", super::super::lt::version().unwrap());
        let mut told = 0;
        let fp8 = [Format::Fp8(Fp8::E4m3), Format::Fp8(Fp8::E5m2)];
        let factors =
            [Factors::One, Factors::Tensor, Factors::PerRow, Factors::Block1x128, Factors::Block128x128];
        let sides = |formats: &[Format], order: Order| -> Vec<Operand> {
            let every =
                |&format: &Format| factors.map(|factors| Operand { format, order, stride: 256, factors });
            formats.iter().flat_map(every).collect()
        };
        let mut operands = sides(&fp8, Order::Rows);
        for order in [Order::Rows, Order::Transposed] {
            operands.extend(sides(&[Format::Bf16, Format::F32], order));
        }
        for a in &operands {
            for b in &operands {
                for output in [Output::Bf16, Output::F32] {
                    let product = Product::new([100, 64, 256], *a, *b, output).fast();
                    if matches!(rules::way(&product, Architecture::Hopper), Ok(Way::Lt)) {
                        let call = call(&product).unwrap();
                        call.operation.set_scales(1 << 20, 1 << 21).unwrap();
                        Preference::new(32 << 20, rules::alignments(&product)).unwrap();
                        told += 1;
                    }
                }
            }
        }
        // FP8: three pairs, eight ways of factors, two results; others: four orders, two results for bf16, one for f32.
        assert_eq!(told, 3 * 8 * 2 + 4 * 2 + 4);
    }
}
