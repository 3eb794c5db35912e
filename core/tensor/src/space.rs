//! What the CPU works in beside tensors.
//!
//! Every thread keeps the buffers it has once borrowed ([`fp8flow_kernels::Buffer`]). The thread that runs an operation
//! has one for the whole of it, which serves all operations in turn; a task of attention has another, on whatever thread.

use fp8flow_kernels::{Cpu, gemm_space};

use crate::Workload;
use crate::ops::{attention, cross_entropy, rms_norm};

/// Bytes for micro-batches of `work`.
pub(crate) fn bytes(cpu: Cpu<'_>, work: &Workload) -> usize {
    let Workload { dtype, tokens, hidden, vocabulary, attention, .. } = *work;
    let chunk = cross_entropy::chunk(tokens, vocabulary);
    let linears = work.linears.iter().map(|&shape| (tokens, shape)).chain([(chunk, [vocabulary, hidden])]);
    let products = linears.flat_map(|(m, [n, k])| [[m, n, k], [m, k, n], [n, k, m]]);
    let gemm = products.map(|product| gemm_space(cpu.isa, product)).max().unwrap_or(0);
    let operation = gemm.max(attention::floats(attention, tokens)).max(rms_norm::floats(tokens, hidden));
    let tasks = attention::task_floats(attention, tokens, cpu.pool.threads());
    size_of::<f32>() * (operation + tasks) + cross_entropy::bytes(tokens, vocabulary, hidden, dtype)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AttentionShape, DType};
    use fp8flow_kernels::{Isa, Serial};

    fn work(dtype: DType, tokens: usize) -> Workload {
        let attention = AttentionShape { heads: 8, kv_heads: 4, head_dim: 64, scale: 0.125 };
        Workload { dtype, tokens, hidden: 512, vocabulary: 4096, attention, linears: Vec::new() }
    }

    #[test]
    fn it_is_the_chunk_of_the_loss_the_largest_product_and_the_tiles_of_attention() {
        // 1024 tokens are one chunk: logits, and two times its rows of the stream.
        let loss = 1024 * (4 * 4096 + 2 * 2 * 512);
        // dlogitsᵀ·x: 2048 rows of the head and 512 columns in strips of 192, all 1024 steps at a time.
        let product = 4 * (2112 + 576) * 1024;
        let tiles = 4 * 64 * (7 * 64 + 2 * 64);
        // Sums over a sequence, which may be all tokens and fills its last tile, of keys and of values.
        let sums = |tokens: usize| 4 * 2 * 64 * (tokens + 64);
        if Isa::Avx512.is_available() {
            let found = bytes(Cpu::new(Isa::Avx512, &Serial), &work(DType::Bf16, 1024));
            assert_eq!(found, loss + product + tiles + sums(1024));
        }
        let cpu = Cpu::new(Isa::Scalar, &Serial);
        let [one, many] = [1024, 9999].map(|tokens| bytes(cpu, &work(DType::Bf16, tokens)));
        assert_eq!(many - one, sums(9999) - sums(1024), "chunks");
        assert_eq!(
            bytes(cpu, &work(DType::F32, 1024)) - bytes(cpu, &work(DType::Bf16, 1024)),
            1024 * 2 * 2 * 512
        );
        let linears = vec![[14336, 4096]];
        assert!(
            bytes(cpu, &Workload { linears, ..work(DType::Bf16, 4096) })
                > bytes(cpu, &work(DType::Bf16, 4096))
        );
    }
}
