//! RMSNorm.

use fp8flow_tensor::{DType, Device, Tensor, cuda};

use super::{DTYPES, cases, copied, random, room, same, same_numbers, setup};

fn agree(dtype: DType, rough: bool, tokens: usize, h: usize) {
    let Some((card, cpu)) = setup() else { return };
    let what = format!("{dtype:?} {tokens}×{h}");
    let (x, weight) = (random(1, dtype, tokens, h, rough), random(2, DType::F32, 1, h, rough));
    let (x_card, weight_card) = (copied(&card, &x), copied(&card, &weight));
    let (mut y, mut rstd) = (Tensor::zeros(dtype, tokens, h), Tensor::zeros(DType::F32, 1, tokens));
    let (mut found_y, mut found_rstd) = (room(&card, dtype, tokens, h), room(&card, DType::F32, 1, tokens));
    cuda::rms_norm::forward(&card, &x_card, &weight_card, 1e-5, &mut found_y, &mut found_rstd).unwrap();
    cpu.rms_norm(&x, &weight, 1e-5, &mut y, &mut rstd);
    same(&format!("y {what}"), &found_y, &y);
    same_numbers(&format!("rstd {what}"), &found_rstd, &rstd);

    let dy = random(3, dtype, tokens, h, rough);
    let (mut dx, mut dweight) = (random(4, dtype, tokens, h, rough), random(5, DType::F32, 1, h, false));
    let (mut found_dx, mut found_dweight) = (copied(&card, &dx), copied(&card, &dweight));
    let mut partial = room(&card, DType::F32, 1, cuda::reduce::partial_floats(tokens, h));
    let dy_card = copied(&card, &dy);
    cuda::rms_norm::backward(
        &card,
        &dy_card,
        &x_card,
        &weight_card,
        &found_rstd,
        &mut found_dx,
        &mut found_dweight,
        &mut partial,
    )
    .unwrap();
    cpu.rms_norm_backward(&dy, &x, &weight, &rstd, &mut dx, &mut dweight);
    same(&format!("dx {what}"), &found_dx, &dx);
    same_numbers(&format!("dweight {what}"), &found_dweight, &dweight);
}

#[test]
fn rows_are_scaled_by_their_statistics_in_the_order_of_the_lanes() {
    for (dtype, rough, tokens, h) in cases() {
        agree(dtype, rough, tokens, h);
    }
}

#[test]
fn rows_of_models() {
    for dtype in DTYPES {
        agree(dtype, false, 66, 4096);
        agree(dtype, false, 3, 8192);
    }
}
