//! Every operation gives what the device itself gives, and is noted once, under its part.

use fp8flow_kernels::{Isa, Serial};
use fp8flow_tensor::CpuDevice;

use super::*;

/// Numbers of no pattern.
fn tensor(rows: usize, cols: usize, seed: usize) -> Tensor {
    let number = |i: usize| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0;
    Tensor::from_f32((0..rows * cols).map(number).collect(), rows, cols)
}

/// Does the same with the CPU and with the CPU timed, and returns what was noted; `call` returns all that it wrote.
fn noted(call: impl Fn(&dyn Device) -> Vec<Tensor>) -> Vec<(Part, u64, Work)> {
    let cpu = CpuDevice::new(Isa::best(), Arc::new(Serial));
    let ledger = Arc::new(Ledger::default());
    let written = |tensors: Vec<Tensor>| tensors.iter().flat_map(|x| x.f32().to_vec()).collect::<Vec<_>>();
    let expected = written(call(&cpu));
    assert!(expected.iter().any(|x| *x != 0.0));
    assert_eq!(written(call(&TimedDevice::new(&cpu, Arc::clone(&ledger)))), expected);
    ledger
        .take()
        .into_iter()
        .map(|(part, tally)| (part, tally.calls, tally.work.expect("an operation's work is known")))
        .collect()
}

/// That `call` is one call of `part` with `flops` operations over `bytes`.
fn expect(part: Part, flops: u64, bytes: u64, call: impl Fn(&dyn Device) -> Vec<Tensor>) {
    assert_eq!(noted(call), [(part, 1, Work { flops, bytes })]);
}

const T: usize = 6;
const H: usize = 8;
const IDS: [u32; T] = [3, 1, 4, 1, 0, 2];
/// Sequences of two and of four tokens: 3 and 10 pairs.
const SEQUENCES: [u32; 3] = [0, 2, 6];
const SHAPE: AttentionShape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 4, scale: 0.5 };

#[test]
fn ends_and_norms_are_delegated() {
    let (x, rows) = ((4 * T * H) as u64, (4 * T) as u64);
    let (width, table) = ((4 * H) as u64, (4 * 5 * H) as u64);
    expect(Part::EmbeddingForward, 0, 2 * x, |device| {
        let mut out = Tensor::zeros(fp8flow_tensor::DType::F32, T, H);
        device.embedding(&IDS, &tensor(5, H, 0), &mut out);
        vec![out]
    });
    expect(Part::EmbeddingBackward, 48, 3 * x, |device| {
        let mut dtable = tensor(5, H, 0);
        device.embedding_backward(&IDS, &tensor(T, H, 1), &mut dtable);
        vec![dtable]
    });
    expect(Part::RmsNormForward, 192, 2 * x + width + rows, |device| {
        let (mut y, mut rstd) = (tensor(T, H, 0), tensor(T, 1, 0));
        device.rms_norm(&tensor(T, H, 1), &tensor(1, H, 2), 1e-6, &mut y, &mut rstd);
        vec![y, rstd]
    });
    expect(Part::RmsNormBackward, 480, 4 * x + 3 * width + rows, |device| {
        let (mut dx, mut dweight) = (tensor(T, H, 0), tensor(1, H, 1));
        let [dy, x, weight, rstd] = [tensor(T, H, 2), tensor(T, H, 3), tensor(1, H, 4), tensor(T, 1, 5)];
        device.rms_norm_backward(&dy, &x, &weight, &rstd, &mut dx, &mut dweight);
        vec![dx, dweight]
    });
    // Five of six tokens have a target: three products of 5 × 8 by 8 × 5.
    let targets = [1, 4, -1, 0, 2, 3];
    expect(Part::CrossEntropy, 3 * 2 * 5 * 40, 2 * x + 3 * table, |device| {
        let (mut dx, mut dhead) = (tensor(T, H, 0), tensor(5, H, 1));
        let gradients = Some((&mut dx, &mut dhead, 0.25));
        let found = device.cross_entropy(&tensor(T, H, 2), &tensor(5, H, 3), &targets, gradients);
        vec![dx, dhead, Tensor::from_f32(vec![found.loss_sum as f32, found.targets as f32], 1, 2)]
    });
    expect(Part::CrossEntropy, 2 * 5 * 40, x + table, |device| {
        let found = device.cross_entropy(&tensor(T, H, 2), &tensor(5, H, 3), &targets, None);
        vec![Tensor::from_f32(vec![found.loss_sum as f32, found.targets as f32], 1, 2)]
    });
}

#[test]
fn linear_layers_and_their_biases_are_delegated() {
    let (x, y, weight) = (4 * 48, 4 * 18, 4 * 24);
    expect(Part::LinearForward, 2 * 6 * 24, x + y + weight, |device| {
        let mut y = tensor(T, 3, 0);
        device.linear(&tensor(T, H, 1), &tensor(3, H, 2), &mut y);
        vec![y]
    });
    for (accumulate, gains) in [(false, 1), (true, 2)] {
        expect(Part::LinearBackward, 4 * 6 * 24, y + x + weight + gains * (x + weight), |device| {
            let (mut dx, mut dweight) = (tensor(T, H, 0), tensor(3, H, 1));
            let [dy, x, weight] = [tensor(T, 3, 2), tensor(T, H, 3), tensor(3, H, 4)];
            device.linear_backward(&dy, &x, &weight, Some(&mut dx), accumulate, &mut dweight, accumulate);
            vec![dx, dweight]
        });
    }
    expect(Part::LinearBackward, 2 * 6 * 24, y + x + weight, |device| {
        let mut dweight = tensor(3, H, 1);
        let [dy, x, weight] = [tensor(T, 3, 2), tensor(T, H, 3), tensor(3, H, 4)];
        device.linear_backward(&dy, &x, &weight, None, false, &mut dweight, false);
        vec![dweight]
    });
    expect(Part::BiasForward, 18, 2 * y + 12, |device| {
        let mut y = tensor(T, 3, 0);
        device.bias(&tensor(1, 3, 1), &mut y);
        vec![y]
    });
    expect(Part::BiasBackward, 18, y + 24, |device| {
        let mut dbias = tensor(1, 3, 0);
        device.bias_backward(&tensor(T, 3, 1), &mut dbias);
        vec![dbias]
    });
}

#[test]
fn attention_and_swiglu_are_delegated() {
    let (q, kv, lse) = (4 * 48, 4 * 24, 4 * 12);
    let operands = || (tensor(T, 8, 0), tensor(T, 4, 1), tensor(T, 4, 2));
    // 13 pairs, two heads of four: a product is 104 multiply-adds.
    expect(Part::AttentionForward, 2 * 2 * 104, 2 * q + 2 * kv + lse, |device| {
        let ((q, k, v), mut out, mut lse) = (operands(), tensor(T, 8, 3), tensor(T, 2, 4));
        device.attention(SHAPE, &SEQUENCES, &q, &k, &v, &mut out, &mut lse);
        vec![out, lse]
    });
    expect(Part::AttentionBackward, 5 * 2 * 104, 4 * q + 4 * kv + lse, |device| {
        let ((q, k, v), out, lse, dout) = (operands(), tensor(T, 8, 3), tensor(T, 2, 4), tensor(T, 8, 5));
        let (mut dq, mut dk, mut dv) = operands();
        device
            .attention_backward(SHAPE, &SEQUENCES, &dout, &q, &k, &v, &out, &lse, &mut dq, &mut dk, &mut dv);
        vec![dq, dk, dv]
    });
    for rotation in [Rotation::Forward, Rotation::Backward] {
        // Four positions of two cosines and two sines.
        expect(Part::Rope, 144, 2 * q + 64, |device| {
            let mut x = tensor(T, 8, 0);
            let table = RopeTable::new(&[1.0, 0.5], 9, 1.0);
            device.rope(&mut x, 4, &SEQUENCES, &table, rotation);
            vec![x]
        });
    }
    expect(Part::SwigluForward, 240, 3 * q, |device| {
        let mut out = tensor(T, H, 0);
        device.swiglu(&tensor(T, H, 1), &tensor(T, H, 2), &mut out);
        vec![out]
    });
    expect(Part::SwigluBackward, 528, 5 * q, |device| {
        let (mut dgate, mut dup) = (tensor(T, H, 0), tensor(T, H, 1));
        let [dout, gate, up] = [tensor(T, H, 2), tensor(T, H, 3), tensor(T, H, 4)];
        device.swiglu_backward(&dout, &gate, &up, &mut dgate, &mut dup);
        vec![dgate, dup]
    });
}

#[test]
fn sums_and_the_optimizer_are_delegated() {
    let x = (4 * T * H) as u64;
    expect(Part::Residual, 48, 3 * x, |device| {
        let mut x = tensor(T, H, 0);
        device.add(&mut x, &tensor(T, H, 1));
        vec![x]
    });
    expect(Part::Convert, 0, 2 * x, |device| {
        let mut dst = tensor(T, H, 0);
        device.convert(&tensor(T, H, 1), &mut dst);
        vec![dst]
    });
    expect(Part::Accumulate, 48, 3 * x, |device| {
        let mut dst = tensor(T, H, 0);
        device.accumulate(&mut dst, &tensor(T, H, 1));
        vec![dst]
    });
    expect(Part::GradientNorm, 96, x, |device| {
        vec![Tensor::from_f32(vec![device.sum_of_squares(&tensor(T, H, 0)) as f32], 1, 1)]
    });
    expect(Part::Adamw, 720, 7 * x, |device| {
        let step = AdamW {
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            weight_decay: 0.01,
            bias_correction1: 0.5,
            bias_correction2: 0.25,
            grad_scale: 0.5,
        };
        let [mut weight, mut m] = [tensor(T, H, 0), tensor(T, H, 2)];
        let mut v = Tensor::from_f32(vec![0.5; T * H], T, H);
        device.adamw(step, &mut weight, &tensor(T, H, 1), &mut m, &mut v);
        vec![weight, m, v]
    });
}

#[test]
fn logits_are_delegated_and_no_part() {
    let parts = noted(|device| {
        let mut out = tensor(T, 5, 0);
        device.logits(&tensor(T, H, 1), &tensor(5, H, 2), &mut out);
        vec![out]
    });
    assert!(parts.is_empty());
    let cpu = CpuDevice::new(Isa::best(), Arc::new(Serial));
    let timed = TimedDevice::new(&cpu, Arc::default());
    assert_eq!((timed.name(), timed.cpu().isa), (cpu.name(), cpu.cpu().isa));
}
