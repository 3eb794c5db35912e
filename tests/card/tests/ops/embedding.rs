//! Rows of a table by token, and rows by number.

use fp8flow_kernels::philox::Philox;
use fp8flow_tensor::cuda::embedding::Groups;
use fp8flow_tensor::{DType, Device, Tensor, cuda};

use super::{cases, copied, random, room, same, same_numbers, setup};

/// Ids of which some come often, one of them in every fifth token, and some not at all.
fn ids(tokens: usize, rows: usize) -> Vec<u32> {
    let philox = Philox::new(1, "ids");
    let any = |t: usize| (philox.normal_pair(0, t as u64)[0].abs() * 10.0) as usize % rows;
    (0..tokens).map(|t| if t % 5 == 2 { rows - 1 } else { any(t) } as u32).collect()
}

#[test]
fn tokens_take_their_rows_and_give_their_gradients_back_in_order() {
    const ROWS: usize = 40;
    let Some((card, cpu)) = setup() else { return };
    for (dtype, rough, tokens, h) in cases() {
        let what = format!("{dtype:?} {tokens}×{h}");
        let ids = ids(tokens, ROWS);
        let memory = card.take(Groups::bytes(tokens)).unwrap();
        let groups = Groups::upload(&memory, 0, &ids).unwrap();
        let table = random(1, DType::F32, ROWS, h, rough);
        let (mut found, mut expected) = (room(&card, dtype, tokens, h), Tensor::zeros(dtype, tokens, h));
        cuda::embedding::forward(&card, groups.ids(), &copied(&card, &table), &mut found).unwrap();
        cpu.embedding(&ids, &table, &mut expected);
        same(&what, &found, &expected);

        let (dout, mut dtable) = (random(2, dtype, tokens, h, rough), random(3, DType::F32, ROWS, h, false));
        let mut on_card = copied(&card, &dtable);
        cuda::embedding::backward(&card, groups, &copied(&card, &dout), &mut on_card).unwrap();
        cpu.embedding_backward(&ids, &dout, &mut dtable);
        same_numbers(&what, &on_card, &dtable);
    }
}

#[test]
fn an_id_beyond_the_table_is_refused() {
    let Some((card, _)) = setup() else { return };
    let memory = card.take(cuda::Indices::bytes(1)).unwrap();
    let ids = cuda::Indices::upload(&memory, 0, &[3]).unwrap();
    let (table, mut out) = (room(&card, DType::F32, 3, 4), room(&card, DType::F32, 1, 4));
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cuda::embedding::forward(&card, ids, &table, &mut out)
    }));
    assert!(refused.is_err());
}

#[test]
fn rows_are_gathered_and_scattered_as_they_are() {
    let Some((card, _)) = setup() else { return };
    for (dtype, rough, tokens, h) in cases() {
        let x = random(4, dtype, tokens, h, rough);
        let rows: Vec<u32> = (0..tokens as u32).rev().filter(|t| t % 3 != 1).collect();
        let memory = card.take(cuda::Indices::bytes(rows.len())).unwrap();
        let numbers = cuda::Indices::upload(&memory, 0, &rows).unwrap();
        let on_card = copied(&card, &x);
        let mut gathered = room(&card, dtype, rows.len(), h);
        cuda::gather::gather(&card, &on_card, numbers, &mut gathered).unwrap();
        let mut back = room(&card, dtype, tokens, h);
        cuda::elementwise::clear(&mut back).unwrap();
        cuda::gather::scatter(&card, &gathered, numbers, &mut back).unwrap();

        let (x, gathered, back) = (super::bits(&x), super::bits(&gathered), super::bits(&back));
        let expected: Vec<u32> =
            rows.iter().flat_map(|&t| x[t as usize * h..][..h].iter().copied()).collect();
        super::first_difference("gathered", &gathered, &expected);
        let expected: Vec<u32> = (0..tokens * h).map(|i| if i / h % 3 == 1 { 0 } else { x[i] }).collect();
        super::first_difference("scattered", &back, &expected);
    }
}
