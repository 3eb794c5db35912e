//! Sums of squares.

use fp8flow_cuda::Memory;
use fp8flow_tensor::{DType, Device, cuda};

use super::{copied, random, setup};

fn numbers(memory: &Memory, n: usize) -> Vec<f64> {
    let mut bytes = vec![[0; 8]; n];
    memory.read(0, bytes.as_flattened_mut()).unwrap();
    bytes.into_iter().map(f64::from_le_bytes).collect()
}

fn same(what: &str, found: f64, expected: f64) {
    let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
    assert!(same, "{what}: {found}, not {expected}");
}

#[test]
fn squares_are_added_by_chunks_those_of_all_tensors_at_once() {
    let Some((card, cpu)) = setup() else { return };
    // The last has more chunks than are added in a piece.
    let sizes = [0, 1, 15, 16, 17, 4095, 4096, 4097, 20_000, 0, 300 * 4096 + 3];
    let mut tensors: Vec<_> = sizes.iter().map(|&n| random(n as u64, DType::F32, 1, n, false)).collect();
    tensors.push(random(1, DType::F32, 3, 5000, true));
    tensors.push(cpu_zeros(100));
    let expected: Vec<f64> = tensors.iter().map(|x| cpu.sum_of_squares(x)).collect();
    let chunks: Vec<usize> = tensors.iter().map(|x| cuda::reduce::chunks(x.rows() * x.cols())).collect();

    let partial = card.take(8 * chunks.iter().sum::<usize>()).unwrap();
    let totals = card.take(8 * tensors.len()).unwrap();
    totals.fill(0, totals.bytes(), super::POISON).unwrap();
    let mut starts = vec![0];
    for (x, chunks) in tensors.iter().zip(&chunks) {
        let first = starts.last().copied().unwrap();
        cuda::reduce::square_chunks(&card, &copied(&card, x), &partial, first as usize).unwrap();
        starts.push(first + *chunks as u32);
    }
    let memory = card.take(cuda::Indices::bytes(starts.len())).unwrap();
    let starts = cuda::Indices::upload(&memory, 0, &starts).unwrap();
    cuda::reduce::add_chunks(&card, &partial, starts, &totals).unwrap();
    for (found, expected) in numbers(&totals, tensors.len()).into_iter().zip(expected) {
        same("all at once", found, expected);
    }
}

fn cpu_zeros(n: usize) -> fp8flow_tensor::Tensor {
    fp8flow_tensor::Tensor::zeros(DType::F32, 1, n)
}
