//! One attention: checked, and put to the card kernel by kernel.

#![allow(unsafe_code)]

use fp8flow_cuda::{Arg, Card, Error, Kernel, Result, Shape, Source};

use super::table::{Part, Table};
use super::{DELTA, PLAIN};
use crate::{AttentionShape, DType, Tensor};

/// Elements of a head for which there are kernels under bf16.
const DIMS: [usize; 6] = [16, 32, 64, 80, 96, 128];
/// Elements of a head that the kernels under f32 have room for.
const MOST_PLAIN: usize = 256;

/// Why a card has no attention of heads of `dim` elements of `dtype`, if so.
pub fn obstacle(dim: usize, dtype: DType) -> Option<String> {
    let (taken, precision) = match dtype {
        DType::Bf16 if !DIMS.contains(&dim) => (format!("{DIMS:?}"), "bf16"),
        DType::F32 if dim > MOST_PLAIN => (format!("at most {MOST_PLAIN}"), "f32"),
        _ => return None,
    };
    Some(format!("attention in {precision} on a card takes a head_dim of {taken}, not {dim}"))
}

/// A kernel that goes through tiles.
#[derive(Clone, Copy)]
pub(super) struct Pass {
    /// Where it is under bf16.
    pub(super) source: Source,
    pub(super) name: &'static str,
    pub(super) part: Part,
    /// Bytes of shared memory of a block, under bf16.
    pub(super) shared: usize,
}

/// What all kernels of an attention take beside tensors.
pub(super) struct Call<'a> {
    pub(super) card: &'a Card,
    pub(super) shape: AttentionShape,
    pub(super) dtype: DType,
    pub(super) tokens: usize,
}

impl<'a> Call<'a> {
    /// An attention in the type of `q`, if there are kernels for it.
    pub(super) fn new(card: &'a Card, shape: AttentionShape, sequences: &[u32], q: &Tensor) -> Result<Self> {
        let AttentionShape { heads, head_dim: dim, scale, .. } = shape;
        let (dtype, tokens) = (q.dtype(), sequences.last().map_or(0, |&end| end as usize));
        let unsupported = |text| Err(Error::Unsupported(text));
        if let Some(reason) = obstacle(dim, dtype) {
            return unsupported(reason);
        }
        // Kernels look for the maximum before they scale.
        if !(scale > 0.0 && scale.is_finite()) {
            return unsupported(format!("attention on a card takes a positive scale, not {scale}"));
        }
        if heads * tokens > u32::MAX as usize {
            return unsupported(format!(
                "attention on a card does not count {heads} heads of {tokens} tokens"
            ));
        }
        Ok(Self { card, shape, dtype, tokens })
    }

    /// Holds tensors of all heads, of the key-value heads, and of statistics to their sizes.
    pub(super) fn expect<const N: usize, const M: usize, const K: usize>(
        &self,
        wide: [&Tensor; N],
        narrow: [&Tensor; M],
        statistics: [&Tensor; K],
    ) {
        let AttentionShape { heads, kv_heads, head_dim: dim, .. } = self.shape;
        assert!(heads.is_multiple_of(kv_heads), "{heads} heads for {kv_heads} of keys and values");
        let here = |x: &Tensor| x.card().is_some_and(|card| card.ordinal() == self.card.ordinal());
        let fits = |x: &Tensor, cols| {
            here(x) && x.rows() == self.tokens && x.cols() == cols && x.dtype() == self.dtype
        };
        let fit = wide.iter().all(|x| fits(x, heads * dim)) && narrow.iter().all(|x| fits(x, kv_heads * dim));
        let sizes = |x: &Tensor| (x.dtype(), x.rows(), x.cols());
        let (wide, narrow) = (wide.map(sizes), narrow.map(sizes));
        assert!(fit, "{} tokens on the card were expected, found {wide:?} and {narrow:?}", self.tokens);
        let fits =
            |x: &&Tensor| here(x) && x.dtype() == DType::F32 && x.rows() * x.cols() >= heads * self.tokens;
        assert!(
            statistics.iter().all(fits),
            "statistics of {heads} heads were expected, found {statistics:?}"
        );
    }

    /// Bytes of `rows` rows of a head.
    pub(super) fn rows(&self, rows: usize) -> usize {
        rows * self.shape.head_dim * self.dtype.size()
    }

    /// `delta[head][token] = ⟨dout, out⟩`, given the addresses of the three.
    pub(super) fn delta(&self, tensors: [Arg; 3]) -> Result<()> {
        const THREADS: u32 = 256;
        let AttentionShape { heads, head_dim: dim, .. } = self.shape;
        let (kernel, threads, sizes) = match self.dtype {
            DType::F32 => {
                (self.card.kernel(PLAIN, "attention_delta_f32")?, 16, vec![heads, dim, self.tokens])
            }
            DType::Bf16 => {
                let entry = format!("attention_delta_{dim}_bf16");
                (self.card.kernel(DELTA, &entry)?, 2, vec![heads, self.tokens])
            }
        };
        let arguments = [&tensors[..], &sizes.into_iter().map(count).collect::<Vec<_>>()].concat();
        let shape = Shape::each(heads * self.tokens * threads, THREADS);
        // SAFETY: `expect` has held the tensors to their sizes; a row has as many threads as the kernel takes for it.
        unsafe { kernel.launch(self.card, shape, &arguments) }
    }

    /// Runs `pass` over all its tiles, given the addresses of its tensors.
    pub(super) fn tiles(&self, pass: Pass, table: &Table, tensors: &[Arg]) -> Result<()> {
        const THREADS: u32 = 128;
        let AttentionShape { heads, kv_heads, head_dim: dim, scale } = self.shape;
        let (kernel, shared) = self.kernel(pass)?;
        let across = match pass.part {
            Part::Queries => heads,
            Part::Keys => kv_heads,
        };
        for (work, tiles) in table.launches(pass.part) {
            let mut arguments = [tensors, &[work], &[heads, kv_heads].map(count)].concat();
            if self.dtype == DType::F32 {
                arguments.push(count(dim));
            }
            arguments.extend([count(self.tokens), scale.into()]);
            let shape = Shape { blocks: [across, tiles, 1], threads: THREADS, shared };
            // SAFETY: `expect` has held the tensors to their sizes; the table has so many tiles, which lie within their
            // sequences; the shared memory is what a block of this pass works in.
            unsafe { kernel.launch(self.card, shape, &arguments)? };
        }
        Ok(())
    }

    fn kernel(&self, pass: Pass) -> Result<(Kernel, u32)> {
        let Pass { source, name, shared, .. } = pass;
        let dim = self.shape.head_dim;
        Ok(match self.dtype {
            DType::F32 => (self.card.kernel(PLAIN, &format!("attention_{name}_f32"))?, 0),
            DType::Bf16 => {
                (self.card.kernel(source, &format!("attention_{name}_{dim}_bf16"))?, shared as u32)
            }
        })
    }
}

/// A count below 2³², as the kernels take them.
pub(super) fn count(n: usize) -> Arg {
    Arg::U32(n as u32)
}
