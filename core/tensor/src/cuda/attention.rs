//! Attention on a card. Under bf16 its products run on the tensor cores, by warp groups where a card has them and heads
//! are of a size that they take; under f32 it is plain, to compare with.

mod call;
mod groups;
mod table;

use fp8flow_cuda::{Arg, Card, Result, Source, source};

pub use self::call::obstacle;
use self::call::{Call, Pass};
pub use self::table::Table;
use self::table::{KEYS, Part, QUERIES};
use crate::{AttentionShape, Tensor};

/// Forward, under bf16.
pub(super) const FORWARD: Source = source!("attention_forward");
/// Backward, under bf16.
pub(super) const BACKWARD: Source = source!("attention_backward");
/// What backward needs of the output, under bf16.
pub(super) const DELTA: Source = source!("attention_delta");
/// All, under f32.
pub(super) const PLAIN: Source = source!("attention_f32");
/// Forward, by warp groups.
pub(super) const GROUPS_FORWARD: Source = source!("attention_forward_wgmma");
/// Gradients of the queries, by warp groups.
pub(super) const GROUPS_DQ: Source = source!("attention_dq_wgmma");
/// Gradients of the keys and the values, by warp groups.
pub(super) const GROUPS_DKV: Source = source!("attention_dkv_wgmma");

/// Keys that a block of `dq` works on at a time.
const SPAN: usize = 32;

/// [`Device::attention`](crate::Device::attention).
///
/// # Panics
/// If the tensors do not fit each other, or `table` is too small for them.
pub fn forward(
    card: &Card,
    shape: AttentionShape,
    table: &mut Table,
    sequences: &[u32],
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    out: &mut Tensor,
    lse: &mut Tensor,
) -> Result<()> {
    let call = Call::new(card, shape, sequences, q)?;
    call.expect([q, out], [k, v], [lse]);
    let tensors = [q, k, v, out, lse].map(Tensor::address);
    if let Some(passes) = groups::passes(&call) {
        table.set(sequences, groups::KEYS)?;
        return passes.forward.run(&call, table, &tensors);
    }
    table.set(sequences, KEYS)?;
    // The queries, and two tiles of keys and of values.
    let shared = call.rows(QUERIES + 4 * KEYS);
    call.tiles(Pass { source: FORWARD, name: "forward", part: Part::Queries, shared }, table, &tensors)
}

/// [`Device::attention_backward`](crate::Device::attention_backward); `delta` has room for as many f32 as `lse`.
///
/// # Panics
/// As [`forward`].
pub fn backward(
    card: &Card,
    shape: AttentionShape,
    table: &mut Table,
    sequences: &[u32],
    dout: &Tensor,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    out: &Tensor,
    lse: &Tensor,
    delta: &mut Tensor,
    dq: &mut Tensor,
    dk: &mut Tensor,
    dv: &mut Tensor,
) -> Result<()> {
    let call = Call::new(card, shape, sequences, q)?;
    call.expect([q, dout, out, dq], [k, v, dk, dv], [lse, delta]);
    call.delta([dout, out, delta].map(Tensor::address))?;
    let read = [q, k, v, dout, lse, delta].map(Tensor::address);
    let with = |outputs: &[Arg]| [&read[..], outputs].concat();
    if let Some(passes) = groups::passes(&call) {
        table.set(sequences, groups::KEYS)?;
        passes.dq.run(&call, table, &with(&[dq.address()]))?;
        return passes.dkv.run(&call, table, &with(&[dk.address(), dv.address()]));
    }
    table.set(sequences, KEYS)?;
    // The queries and their gradients, and two spans of keys and of values.
    let shared = call.rows(2 * QUERIES + 4 * SPAN);
    let pass = Pass { source: BACKWARD, name: "dq", part: Part::Queries, shared };
    call.tiles(pass, table, &with(&[dq.address()]))?;
    // The keys and values, two tiles of queries and of gradients, and two statistics of each query.
    let shared = call.rows(6 * KEYS) + 4 * KEYS * size_of::<f32>();
    let pass = Pass { source: BACKWARD, name: "dkv", part: Part::Keys, shared };
    call.tiles(pass, table, &with(&[dk.address(), dv.address()]))
}
