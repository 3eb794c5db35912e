//! A parameter as it lies in a file, read as f32 a few rows at a time.

use std::ops::Range;

use fp8flow_kernels::format::E4M3_TO_F32;
use half::f16;
use half::slice::HalfFloatSliceExt;
use safetensors::Dtype as StoredType;

use crate::{BlockScales, StoredTensor};

/// Elements that one task converts.
const ELEMENTS_PER_TASK: usize = 1 << 18;

/// A stored parameter, whose types and shapes were checked.
#[derive(Clone, Copy)]
pub(crate) struct Stored<'a> {
    tensor: StoredTensor<'a>,
    /// The scales of E4M3 codes.
    scales: Option<(StoredTensor<'a>, BlockScales)>,
}

impl<'a> Stored<'a> {
    /// Numbers that are what they are.
    pub(crate) fn plain(tensor: StoredTensor<'a>) -> Self {
        Self { tensor, scales: None }
    }

    /// E4M3 codes `[N, K]` with the scales of their blocks.
    pub(crate) fn scaled(codes: StoredTensor<'a>, scales: StoredTensor<'a>, blocks: BlockScales) -> Self {
        Self { tensor: codes, scales: Some((scales, blocks)) }
    }

    /// Whether `dtype` is a type of plain numbers that can be read, which is exact for all of them.
    pub(crate) fn is_plain(dtype: StoredType) -> bool {
        matches!(dtype, StoredType::F32 | StoredType::BF16 | StoredType::F16)
    }

    /// Elements of a row; a vector is one row.
    fn cols(&self) -> usize {
        self.tensor.shape.last().copied().unwrap_or(1)
    }

    /// All rows, in parts for the tasks of a loop.
    pub(crate) fn parts(self) -> impl Iterator<Item = (Self, Range<usize>)> {
        let cols = self.cols().max(1);
        let rows = self.tensor.shape.iter().product::<usize>() / cols;
        let step = (ELEMENTS_PER_TASK / cols).max(1);
        (0..rows).step_by(step).map(move |first| (self, first..rows.min(first + step)))
    }

    /// Elements of `rows`.
    pub(crate) fn span(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start * self.cols()..rows.end * self.cols()
    }

    /// The elements of `rows` as f32.
    pub(crate) fn read(&self, rows: Range<usize>, target: &mut [f32]) {
        let span = self.span(&rows);
        let width = self.tensor.dtype.bitsize() / 8;
        let bytes = &self.tensor.bytes[span.start * width..span.end * width];
        match self.scales {
            None => widen(self.tensor.dtype, bytes, target),
            Some((scales, blocks)) => multiply(bytes, target, self.cols(), rows.start, scales, blocks),
        }
    }
}

/// `target[n,k] = code[n,k] · scale[n / blocks.rows, k / blocks.cols]`, rounded once to f32; the first row is `first` of
/// the weight.
fn multiply(
    codes: &[u8],
    target: &mut [f32],
    cols: usize,
    first: usize,
    scales: StoredTensor<'_>,
    blocks: BlockScales,
) {
    let of_a_row = cols.div_ceil(blocks.cols);
    let width = scales.dtype.bitsize() / 8;
    let mut scale = vec![0.0; of_a_row];
    let mut block_row = None;
    let rows = codes.chunks_exact(cols).zip(target.chunks_exact_mut(cols));
    for (row, (codes, target)) in (first..).zip(rows) {
        if block_row != Some(row / blocks.rows) {
            block_row = Some(row / blocks.rows);
            let start = row / blocks.rows * of_a_row * width;
            widen(scales.dtype, &scales.bytes[start..start + of_a_row * width], &mut scale);
        }
        let in_blocks = codes.chunks(blocks.cols).zip(target.chunks_mut(blocks.cols));
        for ((codes, target), scale) in in_blocks.zip(&scale) {
            for (element, &code) in target.iter_mut().zip(codes) {
                *element = E4M3_TO_F32[usize::from(code)] * scale;
            }
        }
    }
}

/// Stored elements as f32; exact.
fn widen(dtype: StoredType, source: &[u8], target: &mut [f32]) {
    const CHUNK: usize = 1024;
    match dtype {
        StoredType::F32 => {
            for (bytes, element) in source.as_chunks().0.iter().zip(target) {
                *element = f32::from_le_bytes(*bytes);
            }
        }
        StoredType::BF16 => {
            for (bytes, element) in source.as_chunks().0.iter().zip(target) {
                *element = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }
        }
        StoredType::F16 => {
            let mut aligned = [f16::ZERO; CHUNK];
            for (source, target) in source.chunks(2 * CHUNK).zip(target.chunks_mut(CHUNK)) {
                for (bytes, half) in source.as_chunks().0.iter().zip(&mut aligned) {
                    *half = f16::from_le_bytes(*bytes);
                }
                aligned[..target.len()].convert_to_f32_slice(target);
            }
        }
        other => unreachable!("the check refuses {other}"),
    }
}
