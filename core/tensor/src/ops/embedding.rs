//! Rows of a table by token, and their gradients.

use fp8flow_kernels::Cpu;

use super::ROWS_PER_TASK;
use crate::element::Element;
use crate::parts::Parts;

pub(crate) fn forward<A: Element>(cpu: Cpu<'_>, ids: &[u32], table: &[f32], h: usize, out: &mut [A]) {
    let outs = Parts::new(out, ROWS_PER_TASK * h);
    cpu.pool.run(ids.len().div_ceil(ROWS_PER_TASK), &|task| {
        let ids = &ids[task * ROWS_PER_TASK..];
        for (out, &id) in outs.claim(task).chunks_exact_mut(h).zip(ids) {
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
    let parts = Parts::new(dtable, TABLE_ROWS_PER_TASK * h);
    cpu.pool.run(parts.count(), &|task| {
        let rows = parts.claim(task);
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
