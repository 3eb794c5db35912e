//! A card as a [`Device`]: what is asked goes to its stream, in order.
//!
//! Operations have no result to fail with, as those of the CPU cannot fail. The first failure is kept, nothing is asked
//! of the card after it, and [`Device::settle`] gives it to whoever waits for results.

use std::sync::{Arc, Mutex, PoisonError};

use fp8flow_cuda::gemm::Gemm;
use fp8flow_cuda::{Card, Error, Result};
use fp8flow_kernels::Cpu;

use super::attention::Table;
use super::linear;
use super::loss::{self, Buffers};
use super::room::Room;
use super::{adamw, attention, bias, elementwise, embedding, reduce, rms_norm, rope, swiglu};
use crate::{
    AdamW, AttentionShape, CpuDevice, CrossEntropy, DType, Device, RopeTable, Rotation, Tensor, Workload,
};

/// An NVIDIA card, with the CPU beside it that data and files are worked on with.
pub struct CudaDevice {
    card: Card,
    cpu: Arc<CpuDevice>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    failure: Option<Error>,
    space: Space,
}

/// What operations work in.
#[derive(Debug)]
struct Space {
    gemm: Gemm,
    loss: Buffers,
    ids: Room,
    positions: rope::Positions,
    /// The tiles of attention, and the tokens that there is room for.
    attention: Option<(usize, Table)>,
    delta: Room,
    partial: Room,
    sums: Room,
    totals: Room,
}

impl Space {
    /// The tiles of attention over up to `tokens` tokens.
    fn table(&mut self, card: &Card, tokens: usize) -> Result<&mut Table> {
        let old = self.attention.take().filter(|(room, _)| *room >= tokens);
        let fresh = || Ok((tokens, Table::new(card.take(Table::bytes(tokens))?)));
        Ok(&mut self.attention.insert(old.map_or_else(fresh, Ok)?).1)
    }
}

impl CudaDevice {
    /// The card of this number.
    pub fn open(number: usize, cpu: Arc<CpuDevice>) -> Result<Self> {
        Self::new(Card::open(number)?, cpu)
    }

    /// `card`.
    pub fn new(card: Card, cpu: Arc<CpuDevice>) -> Result<Self> {
        let space = Space {
            gemm: Gemm::new(&card)?,
            loss: Buffers::default(),
            ids: Room::default(),
            positions: rope::Positions::default(),
            attention: None,
            delta: Room::default(),
            partial: Room::default(),
            sums: Room::default(),
            totals: Room::default(),
        };
        Ok(Self { card, cpu, state: Mutex::new(State { failure: None, space }) })
    }

    /// Asks the card for `op`, unless something has failed; a failure is kept.
    fn ask<T>(&self, op: impl FnOnce(&Card, &mut Space) -> Result<T>) -> Option<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.failure.is_some() {
            return None;
        }
        match op(&self.card, &mut state.space) {
            Ok(done) => Some(done),
            Err(error) => {
                state.failure = Some(error);
                None
            }
        }
    }
}

impl std::fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaDevice").field("card", &self.card).finish_non_exhaustive()
    }
}

impl Device for CudaDevice {
    fn name(&self) -> String {
        self.card.to_string()
    }

    fn cpu(&self) -> Cpu<'_> {
        self.cpu.cpu()
    }

    fn card(&self) -> Option<&Card> {
        Some(&self.card)
    }

    fn settle(&self) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failure.take().map_or_else(|| self.card.synchronize(), Err)
    }

    fn workspace(&self, work: &Workload) -> usize {
        let Workload { dtype, tokens, hidden, vocabulary, attention, .. } = *work;
        let numbers = embedding::Groups::bytes(tokens) + size_of::<u32>() * tokens;
        let partial = size_of::<f32>() * reduce::partial_floats(tokens, hidden);
        loss::bytes(&self.card, tokens, vocabulary, hidden, dtype)
            + numbers
            + partial
            + Table::bytes(tokens)
            + size_of::<f32>() * attention.heads * tokens
            + Gemm::workspace(self.card.properties().architecture)
    }

    fn fill(&self, x: &mut Tensor, value: f32) {
        self.ask(|card, _| elementwise::fill(card, x, value));
    }

    fn embedding(&self, ids: &[u32], table: &Tensor, out: &mut Tensor) {
        self.ask(|card, space| embedding::forward(card, space.ids.indices(card, ids)?, table, out));
    }

    fn embedding_backward(&self, ids: &[u32], dout: &Tensor, dtable: &mut Tensor) {
        self.ask(|card, space| {
            let memory = space.ids.bytes(card, embedding::Groups::bytes(ids.len()))?;
            embedding::backward(card, embedding::Groups::upload(memory, 0, ids)?, dout, dtable)
        });
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32, y: &mut Tensor, rstd: &mut Tensor) {
        self.ask(|card, _| rms_norm::forward(card, x, weight, eps, y, rstd));
    }

    fn rms_norm_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        rstd: &Tensor,
        dx: &mut Tensor,
        dweight: &mut Tensor,
    ) {
        self.ask(|card, space| {
            let floats = reduce::partial_floats(x.rows(), x.cols());
            let mut partial = space.partial.tensor(card, DType::F32, 1, floats)?;
            rms_norm::backward(card, dy, x, weight, rstd, dx, dweight, &mut partial)
        });
    }

    fn linear(&self, x: &Tensor, weight: &Tensor, y: &mut Tensor) {
        self.ask(|_, space| linear::forward(&space.gemm, x, weight, y));
    }

    fn linear_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        dx: Option<&mut Tensor>,
        accumulate_dx: bool,
        dweight: &mut Tensor,
        accumulate_dw: bool,
    ) {
        self.ask(|_, space| {
            let gemm = &space.gemm;
            if let Some(dx) = dx {
                linear::dgrad(gemm, dy, weight, accumulate_dx, dx)?;
            }
            linear::wgrad(gemm, dy, x, accumulate_dw, dweight)
        });
    }

    fn bias(&self, bias: &Tensor, y: &mut Tensor) {
        self.ask(|card, _| bias::forward(card, bias, y));
    }

    fn bias_backward(&self, dy: &Tensor, dbias: &mut Tensor) {
        self.ask(|card, space| {
            let floats = reduce::partial_floats(dy.rows(), dy.cols());
            let mut partial = space.partial.tensor(card, DType::F32, 1, floats)?;
            bias::backward(card, dy, dbias, &mut partial)
        });
    }

    fn rope(
        &self,
        x: &mut Tensor,
        head_dim: usize,
        sequences: &[u32],
        table: &RopeTable,
        rotation: Rotation,
    ) {
        self.ask(|card, space| {
            let positions = space.positions.of(card, sequences)?;
            rope::rotate(card, x, head_dim, positions, &table.cos, &table.sin, rotation)
        });
    }

    fn attention(
        &self,
        shape: AttentionShape,
        sequences: &[u32],
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &mut Tensor,
        lse: &mut Tensor,
    ) {
        self.ask(|card, space| {
            let table = space.table(card, q.rows())?;
            attention::forward(card, shape, table, sequences, q, k, v, out, lse)
        });
    }

    fn attention_backward(
        &self,
        shape: AttentionShape,
        sequences: &[u32],
        dout: &Tensor,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        lse: &Tensor,
        dq: &mut Tensor,
        dk: &mut Tensor,
        dv: &mut Tensor,
    ) {
        self.ask(|card, space| {
            let mut delta = space.delta.tensor(card, DType::F32, shape.heads, q.rows())?;
            let table = space.table(card, q.rows())?;
            attention::backward(
                card, shape, table, sequences, dout, q, k, v, out, lse, &mut delta, dq, dk, dv,
            )
        });
    }

    fn swiglu(&self, gate: &Tensor, up: &Tensor, out: &mut Tensor) {
        self.ask(|card, _| swiglu::forward(card, gate, up, out));
    }

    fn swiglu_backward(
        &self,
        dout: &Tensor,
        gate: &Tensor,
        up: &Tensor,
        dgate: &mut Tensor,
        dup: &mut Tensor,
    ) {
        self.ask(|card, _| swiglu::backward(card, dout, gate, up, dgate, dup));
    }

    fn add(&self, x: &mut Tensor, y: &Tensor) {
        self.ask(|card, _| elementwise::add(card, x, y));
    }

    fn cross_entropy(
        &self,
        x: &Tensor,
        head: &Tensor,
        targets: &[i32],
        gradients: Option<(&mut Tensor, &mut Tensor, f32)>,
    ) -> CrossEntropy {
        let found = self
            .ask(|card, space| loss::run(card, &space.gemm, &mut space.loss, x, head, targets, gradients));
        found.unwrap_or(CrossEntropy { loss_sum: f64::NAN, ..CrossEntropy::default() })
    }

    fn logits(&self, x: &Tensor, head: &Tensor, out: &mut Tensor) {
        self.ask(|_, space| linear::logits(&space.gemm, x, head, out));
    }

    fn convert(&self, src: &Tensor, dst: &mut Tensor) {
        self.ask(|card, _| elementwise::convert(card, src, dst));
    }

    fn accumulate(&self, dst: &mut Tensor, src: &Tensor) {
        self.ask(|card, _| elementwise::accumulate(card, dst, src));
    }

    fn sum_of_squares(&self, x: &Tensor) -> f64 {
        self.sums_of_squares(&[x])[0]
    }

    fn sums_of_squares(&self, tensors: &[&Tensor]) -> Vec<f64> {
        let found = self.ask(|card, space| {
            let mut starts = vec![0];
            starts.extend(tensors.iter().scan(0, |end, x| {
                *end += reduce::chunks(x.rows() * x.cols()) as u32;
                Some(*end)
            }));
            let chunks = starts.last().map_or(0, |end| *end as usize);
            let partial = space.sums.bytes(card, size_of::<f64>() * chunks)?;
            for (x, first) in tensors.iter().zip(&starts) {
                reduce::square_chunks(card, x, partial, *first as usize)?;
            }
            let totals = space.totals.bytes(card, size_of::<f64>() * tensors.len())?;
            reduce::add_chunks(card, partial, space.ids.indices(card, &starts)?, totals)?;
            let mut found = vec![0.0_f64; tensors.len()];
            totals.read(0, bytemuck::cast_slice_mut(&mut found))?;
            Ok(found)
        });
        found.unwrap_or_else(|| vec![f64::NAN; tensors.len()])
    }

    fn adamw(&self, step: AdamW, weight: &mut Tensor, grad: &Tensor, m: &mut Tensor, v: &mut Tensor) {
        self.ask(|card, _| adamw::step(card, step, weight, grad, m, v));
    }
}
