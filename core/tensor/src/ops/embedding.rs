//! Rows of a table by token, and their gradients.

use fp8flow_kernels::parallel::for_each;
use fp8flow_kernels::{Cpu, Element};

use super::ROWS_PER_TASK;

pub(crate) fn forward<A: Element>(cpu: Cpu<'_>, ids: &[u32], table: &[f32], h: usize, out: &mut [A]) {
    for_each(cpu.pool, out.chunks_mut(ROWS_PER_TASK * h).zip(ids.chunks(ROWS_PER_TASK)), |(out, ids)| {
        for (out, &id) in out.chunks_exact_mut(h).zip(ids) {
            let row = &table[id as usize * h..][..h];
            for (out, x) in out.iter_mut().zip(row) {
                *out = A::narrow(*x);
            }
        }
    });
}

/// Rows of the table a task of the backward owns.
const TABLE_ROWS_PER_TASK: usize = 512;

/// Each task owns a range of the table and walks all tokens, so a row gains its tokens in ascending order.
pub(crate) fn backward<A: Element>(cpu: Cpu<'_>, ids: &[u32], dout: &[A], h: usize, dtable: &mut [f32]) {
    for_each(cpu.pool, dtable.chunks_mut(TABLE_ROWS_PER_TASK * h).enumerate(), |(task, rows)| {
        let first = task * TABLE_ROWS_PER_TASK;
        let own = first..first + rows.len() / h;
        for (id, dout) in ids.iter().zip(dout.chunks_exact(h)) {
            let id = *id as usize;
            if own.contains(&id) {
                let row = &mut rows[(id - first) * h..][..h];
                for (row, dout) in row.iter_mut().zip(dout) {
                    *row += dout.widen();
                }
            }
        }
    });
}
