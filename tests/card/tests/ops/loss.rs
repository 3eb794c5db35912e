//! Losses and gradients of logits.

use fp8flow_cuda::Card;
use fp8flow_kernels::{LANES, bf16, math};
use fp8flow_tensor::{CpuDevice, DType, Device, Tensor, cuda};

use super::{DTYPES, POISON, bits, copied, first_difference, random, room, setup};

/// Statistics of rows of logits, and their gradients.
#[derive(Debug, PartialEq)]
struct Found {
    lse: Vec<u32>,
    loss: Vec<u32>,
    best: Vec<u32>,
    gradient: Vec<u32>,
}

/// As the card finds them, in rows of `ld` logits and `out_ld` gradients; what is behind the logits is not theirs.
fn on_card(
    card: &Card,
    logits: &Tensor,
    ld: usize,
    out_ld: usize,
    targets: &[u32],
    factor: f32,
    dtype: DType,
) -> Found {
    let (rows, n) = (logits.rows(), logits.cols());
    let mut padded = Tensor::zeros(DType::F32, rows, ld);
    padded.f32_mut().fill(f32::INFINITY);
    for (to, from) in padded.f32_mut().chunks_exact_mut(ld).zip(logits.f32().chunks_exact(n)) {
        to[..n].copy_from_slice(from);
    }
    let padded = copied(card, &padded);
    let memory = card.take(2 * cuda::Indices::bytes(rows)).unwrap();
    memory.fill(0, memory.bytes(), POISON).unwrap();
    let targets = cuda::Indices::upload(&memory, 0, targets).unwrap();
    let place = cuda::Indices::bytes(rows);
    let (mut lse, mut loss) = (room(card, DType::F32, 1, rows), room(card, DType::F32, 1, rows));
    cuda::cross_entropy::statistics(card, &padded, n, targets, &mut lse, &mut loss, (&memory, place))
        .unwrap();
    let mut gradient = room(card, dtype, rows, out_ld);
    cuda::cross_entropy::gradient(card, &padded, n, targets, &lse, factor, &mut gradient).unwrap();
    let mut best = vec![[0; 4]; rows];
    memory.read(place, best.as_flattened_mut()).unwrap();
    let best = best.into_iter().map(u32::from_le_bytes).collect();
    Found { lse: numbers(&lse), loss: numbers(&loss), best, gradient: bits(&gradient) }
}

/// Bits, one of all that are no numbers.
fn numbers(x: &Tensor) -> Vec<u32> {
    bits(x).into_iter().map(|x| quiet(f32::from_bits(x))).collect()
}

fn quiet(x: f32) -> u32 {
    if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }
}

/// As the definition says, element by element.
fn defined(logits: &Tensor, out_ld: usize, targets: &[u32], factor: f32, dtype: DType) -> Found {
    let mut found = Found { lse: Vec::new(), loss: Vec::new(), best: Vec::new(), gradient: Vec::new() };
    for (row, &target) in logits.f32().chunks_exact(logits.cols()).zip(targets) {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut lanes = [0.0_f32; LANES];
        row.iter().enumerate().for_each(|(i, x)| lanes[i % LANES] += math::exp(x - top));
        for width in [8, 4, 2, 1] {
            (0..width).for_each(|j| lanes[j] += lanes[j + width]);
        }
        let lse = top + math::ln(lanes[0]);
        found.lse.push(quiet(lse));
        found.loss.push(quiet(lse - row[target as usize]));
        found.best.push(row.iter().position(|x| *x == top).unwrap_or(0) as u32);
        for i in 0..out_ld {
            let p = |x: f32| math::exp(x - lse) - if i == target as usize { 1.0 } else { 0.0 };
            let x = row.get(i).map_or(0.0, |x| p(*x) * factor);
            found.gradient.push(match dtype {
                DType::F32 => quiet(x),
                DType::Bf16 if x.is_nan() => u32::from(bf16::NAN.to_bits()),
                DType::Bf16 => u32::from(bf16::from_f32(x).to_bits()),
            });
        }
    }
    found
}

/// Logits with ties, rows that are spoilt, and rows of nothing but minus infinity.
fn logits(rows: usize, n: usize) -> Tensor {
    let mut x = random(n as u64, DType::F32, rows, n, false);
    for (r, row) in x.f32_mut().chunks_exact_mut(n).enumerate() {
        for x in row.iter_mut() {
            *x *= 4.0;
        }
        match r % 8 {
            1 => row[n / 2] = f32::NAN,
            2 => row[n - 1] = f32::INFINITY,
            3 => row.fill(f32::NEG_INFINITY),
            4 => {
                row.fill(f32::NEG_INFINITY);
                row[0] = f32::NAN;
            }
            5 => row.iter_mut().step_by(7).for_each(|x| *x = 50.0),
            6 => row.iter_mut().for_each(|x| *x = if x.is_sign_negative() { -0.0 } else { 0.0 }),
            7 => row.iter_mut().for_each(|x| *x *= 30.0),
            _ => (),
        }
    }
    x
}

fn agree(card: &Card, rows: usize, n: usize, ld: usize, out_ld: usize, dtype: DType) {
    let what = format!("{dtype:?} {rows}×{n} in {ld} and {out_ld}");
    let logits = logits(rows, n);
    let targets: Vec<u32> = (0..rows).map(|r| (r * 31 % n) as u32).collect();
    let found = on_card(card, &logits, ld, out_ld, &targets, 0.37, dtype);
    let expected = defined(&logits, out_ld, &targets, 0.37, dtype);
    first_difference(&format!("lse {what}"), &found.lse, &expected.lse);
    first_difference(&format!("loss {what}"), &found.loss, &expected.loss);
    first_difference(&format!("best {what}"), &found.best, &expected.best);
    first_difference(&format!("gradient {what}"), &found.gradient, &expected.gradient);
}

#[test]
fn statistics_and_gradients_are_as_defined_for_any_vocabulary_and_padding() {
    let Some((card, _)) = setup() else { return };
    for dtype in DTYPES {
        for n in [1, 2, 15, 16, 17, 63, 64, 65, 100, 1000, 3839, 3840, 3841, 7681] {
            agree(&card, 9, n, n, n, dtype);
            agree(&card, 9, n, n.next_multiple_of(8), n.next_multiple_of(16), dtype);
            agree(&card, 1, n, n + 3, n + 1, dtype);
        }
        agree(&card, 0, 100, 100, 104, dtype);
        agree(&card, 2, 50_257, 50_264, 50_264, dtype);
    }
}

/// A head that passes its input on: the logits are x, and the gradient of x is that of the logits.
fn through_the_cpu(cpu: &CpuDevice, dtype: DType, targets: &[i32]) -> (Tensor, Found) {
    let (rows, n, factor) = (targets.len(), 200, 0.5);
    let x = random(7, dtype, rows, n, false);
    let mut head = Tensor::zeros(DType::F32, n, n);
    head.f32_mut().iter_mut().step_by(n + 1).for_each(|x| *x = 1.0);
    let mut converted = Tensor::zeros(dtype, n, n);
    cpu.convert(&head, &mut converted);
    let (mut dx, mut dhead) = (Tensor::zeros(dtype, rows, n), Tensor::zeros(DType::F32, n, n));
    cpu.cross_entropy(&x, &converted, targets, Some((&mut dx, &mut dhead, factor)));
    // One target at a time, so that the sum is the loss.
    let mut found = Found { lse: Vec::new(), loss: Vec::new(), best: Vec::new(), gradient: bits(&dx) };
    for (t, &target) in targets.iter().enumerate() {
        let mut alone = vec![-1; rows];
        alone[t] = target;
        let one = cpu.cross_entropy(&x, &converted, &alone, None);
        found.loss.push((one.loss_sum as f32).to_bits());
        found.best.push(one.predicted[0]);
    }
    let mut logits = Tensor::zeros(DType::F32, rows, n);
    cpu.logits(&x, &converted, &mut logits);
    (logits, found)
}

#[test]
fn losses_and_gradients_have_the_bits_of_the_cpu() {
    let Some((card, cpu)) = setup() else { return };
    for dtype in DTYPES {
        let targets: Vec<i32> = (0..65).map(|t| t * 3 % 200).collect();
        let (logits, expected) = through_the_cpu(&cpu, dtype, &targets);
        let targets: Vec<u32> = targets.iter().map(|&target| target as u32).collect();
        let found = on_card(&card, &logits, 200, 200, &targets, 0.5, dtype);
        first_difference("loss", &found.loss, &expected.loss);
        first_difference("best", &found.best, &expected.best);
        first_difference("gradient", &found.gradient, &expected.gradient);
    }
}
