//! Residual addition, conversion, bias, rotary embedding, SwiGLU, AdamW.

use std::sync::Arc;

use fp8flow_tensor::{AdamW, DType, Device, RopeTable, Rotation, Tensor, cuda};

use super::{DTYPES, cases, copied, random, room, same, same_numbers, setup};

#[test]
fn residuals_and_gradients_are_added() {
    let Some((card, cpu)) = setup() else { return };
    for (dtype, rough, rows, cols) in cases() {
        let (mut x, y) = (random(1, dtype, rows, cols, rough), random(2, dtype, rows, cols, rough));
        let mut on_card = copied(&card, &x);
        cuda::elementwise::add(&card, &mut on_card, &copied(&card, &y)).unwrap();
        cpu.add(&mut x, &y);
        same(&format!("{dtype:?} {rows}×{cols}"), &on_card, &x);
        if dtype == DType::F32 {
            cuda::elementwise::accumulate(&card, &mut on_card, &copied(&card, &y)).unwrap();
            cpu.accumulate(&mut x, &y);
            same("accumulated", &on_card, &x);
        }
        cuda::elementwise::clear(&mut on_card).unwrap();
        same("cleared", &on_card, &Tensor::zeros(dtype, rows, cols));
    }
}

#[test]
fn elements_are_converted_from_each_type_to_each() {
    let Some((card, cpu)) = setup() else { return };
    for (dtype, rough, rows, cols) in cases() {
        for to in DTYPES {
            let src = random(3, dtype, rows, cols, rough);
            let (mut found, mut expected) = (room(&card, to, rows, cols), Tensor::zeros(to, rows, cols));
            cuda::elementwise::convert(&card, &copied(&card, &src), &mut found).unwrap();
            cpu.convert(&src, &mut expected);
            same(&format!("{dtype:?} to {to:?} {rows}×{cols}"), &found, &expected);
        }
    }
}

#[test]
fn a_bias_is_rounded_and_added_and_its_gradient_is_a_sum_of_blocks() {
    let Some((card, cpu)) = setup() else { return };
    for (dtype, rough, tokens, n) in cases() {
        let what = format!("{dtype:?} {tokens}×{n}");
        let (bias, mut y) = (random(4, DType::F32, 1, n, rough), random(5, dtype, tokens, n, rough));
        let mut on_card = copied(&card, &y);
        cuda::bias::forward(&card, &copied(&card, &bias), &mut on_card).unwrap();
        cpu.bias(&bias, &mut y);
        same(&what, &on_card, &y);

        let (dy, mut dbias) = (random(6, dtype, tokens, n, rough), random(7, DType::F32, 1, n, false));
        let mut on_card = copied(&card, &dbias);
        let mut partial = room(&card, DType::F32, 1, cuda::reduce::partial_floats(tokens, n));
        cuda::bias::backward(&card, &copied(&card, &dy), &mut on_card, &mut partial).unwrap();
        cpu.bias_backward(&dy, &mut dbias);
        same_numbers(&what, &on_card, &dbias);
    }
}

#[test]
fn heads_are_turned_by_the_positions_in_their_sequences() {
    let Some((card, cpu)) = setup() else { return };
    let lists: [&[u32]; 4] = [&[0], &[0, 1], &[0, 5, 5, 17, 18], &[0, 64, 65, 131]];
    for (sequences, dtype) in lists.into_iter().flat_map(|list| DTYPES.map(|dtype| (list, dtype))) {
        for (head_dim, heads) in [(1, 2), (2, 3), (6, 1), (7, 2), (16, 5), (64, 3), (128, 2)] {
            let tokens = *sequences.last().unwrap() as usize;
            let inv_freq: Vec<f32> = (0..head_dim / 2).map(|i| 0.3_f32.powi(i as i32)).collect();
            let table = RopeTable::new(&inv_freq, 80, 1.25);
            let (cos, sin) = (copied(&card, &table.cos), copied(&card, &table.sin));
            let positions = cuda::rope::positions(sequences);
            let memory = card.take(cuda::Indices::bytes(positions.len())).unwrap();
            let positions = cuda::Indices::upload(&memory, 0, &positions).unwrap();
            for rotation in [Rotation::Forward, Rotation::Backward] {
                let mut x = random(8, dtype, tokens, heads * head_dim, true);
                let mut on_card = copied(&card, &x);
                cuda::rope::rotate(&card, &mut on_card, head_dim, positions, &cos, &sin, rotation).unwrap();
                cpu.rope(&mut x, head_dim, sequences, &table, rotation);
                same(&format!("{dtype:?} {sequences:?} {heads}×{head_dim} {rotation:?}"), &on_card, &x);
            }
        }
    }
}

#[test]
fn a_card_knows_the_positions_of_each_micro_batch() {
    let Some((card, cpu)) = setup() else { return };
    let device = cuda::CudaDevice::new(card.clone(), Arc::new(setup().unwrap().1)).unwrap();
    let table = RopeTable::new(&[1.0, 0.3, 0.1, 0.02], 80, 1.0);
    let on_card = RopeTable { cos: copied(&card, &table.cos), sin: copied(&card, &table.sin) };
    for sequences in [&[0, 5, 18][..], &[0, 5, 18], &[0, 18], &[0, 64], &[0, 7, 18]] {
        let tokens = *sequences.last().unwrap() as usize;
        let mut x = random(20, DType::Bf16, tokens, 16, false);
        let mut found = copied(&card, &x);
        device.rope(&mut found, 8, sequences, &on_card, Rotation::Forward);
        cpu.rope(&mut x, 8, sequences, &table, Rotation::Forward);
        same(&format!("{sequences:?}"), &found, &x);
    }
    device.settle().unwrap();
}

#[test]
fn swiglu_and_its_gradients() {
    let Some((card, cpu)) = setup() else { return };
    for (dtype, rough, rows, cols) in cases() {
        let what = format!("{dtype:?} {rows}×{cols}");
        let of = |stream| random(stream, dtype, rows, cols, rough);
        let zeros = || Tensor::zeros(dtype, rows, cols);
        let (gate, up, dout) = (of(9), of(10), of(11));
        let on_card = [&gate, &up, &dout].map(|x| copied(&card, x));
        let (mut found, mut expected) = (room(&card, dtype, rows, cols), zeros());
        cuda::swiglu::forward(&card, &on_card[0], &on_card[1], &mut found).unwrap();
        cpu.swiglu(&gate, &up, &mut expected);
        same(&what, &found, &expected);

        let (mut dgate, mut dup) = (room(&card, dtype, rows, cols), room(&card, dtype, rows, cols));
        cuda::swiglu::backward(&card, &on_card[2], &on_card[0], &on_card[1], &mut dgate, &mut dup).unwrap();
        let (mut expected_gate, mut expected_up) = (zeros(), zeros());
        cpu.swiglu_backward(&dout, &gate, &up, &mut expected_gate, &mut expected_up);
        same(&what, &dgate, &expected_gate);
        same(&what, &dup, &expected_up);
    }
}

#[test]
fn a_step_of_adamw_moves_weights_and_moments() {
    let Some((card, cpu)) = setup() else { return };
    let step = AdamW {
        lr: 3e-4,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        bias_correction1: 1.0 - 0.9_f32.powi(3),
        bias_correction2: 1.0 - 0.95_f32.powi(3),
        grad_scale: 0.73,
    };
    for n in [0, 1, 3, 4, 5, 1023, 4096, 70_001] {
        for rough in [false, true] {
            let of = |stream| random(stream, DType::F32, 1, n, rough);
            let (mut weight, grad, mut m, mut v) = (of(12), of(13), of(14), of(15));
            v.f32_mut().iter_mut().for_each(|v| *v = *v * *v);
            let mut found = [&weight, &m, &v].map(|x| copied(&card, x));
            let [w, first, second] = &mut found;
            cuda::adamw::step(&card, step, w, &copied(&card, &grad), first, second).unwrap();
            cpu.adamw(step, &mut weight, &grad, &mut m, &mut v);
            for (found, expected) in found.iter().zip([&weight, &m, &v]) {
                same_numbers(&format!("{n} parameters"), found, expected);
            }
        }
    }
}
