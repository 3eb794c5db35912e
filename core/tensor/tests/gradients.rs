//! Every backward against central differences of its forward, and every op's bits over instruction sets and threads.

use std::sync::Arc;

use fp8flow_kernels::{Isa, Parallel, Serial, philox::Philox};
use fp8flow_tensor::{AttentionShape, CpuDevice, DType, Device, RopeTable, Rotation, Tensor};

fn device() -> CpuDevice {
    CpuDevice::new(Isa::best(), Arc::new(Serial))
}

fn random(stream: u64, rows: usize, cols: usize) -> Tensor {
    let philox = Philox::new(1, "test");
    let x = (0..rows * cols).map(|i| philox.normal_pair(stream, i as u64)[0]).collect();
    Tensor::from_f32(x, rows, cols)
}

fn copy(x: &Tensor) -> Tensor {
    Tensor::from_f32(x.f32().to_vec(), x.rows(), x.cols())
}

fn zeros(rows: usize, cols: usize) -> Tensor {
    Tensor::zeros(DType::F32, rows, cols)
}

fn inner(a: &Tensor, b: &Tensor) -> f64 {
    a.f32().iter().zip(b.f32()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Checks `gradient` = ∂⟨f(x), weights⟩/∂x on every 7th element.
fn check(what: &str, x: &Tensor, gradient: &Tensor, f: impl Fn(&Tensor) -> f64) {
    let step = 1e-2_f32;
    let largest = gradient.f32().iter().fold(0.0_f32, |a, g| a.max(g.abs()));
    assert!(largest > 0.0, "{what}: the gradient is zero");
    for i in (0..x.f32().len()).step_by(7) {
        let at = |d: f32| {
            let mut x = copy(x);
            x.f32_mut()[i] += d;
            f(&x)
        };
        // Two step widths cancel the cubic term (Richardson).
        let slope = |h: f32| (at(h) - at(-h)) / (2.0 * f64::from(h));
        let expected = (4.0 * slope(step / 2.0) - slope(step)) / 3.0;
        let found = f64::from(gradient.f32()[i]);
        assert!(
            (expected - found).abs() < 2e-3 * f64::from(largest),
            "{what}[{i}]: differences {expected}, backward {found}"
        );
    }
}

#[test]
fn rms_norm() {
    let (d, x, w, g) = (device(), random(1, 5, 35), random(2, 1, 35), random(3, 5, 35));
    let forward = |x: &Tensor, w: &Tensor| {
        let (mut y, mut rstd) = (zeros(5, 35), zeros(1, 5));
        d.rms_norm(x, w, 1e-5, &mut y, &mut rstd);
        (y, rstd)
    };
    let (_, rstd) = forward(&x, &w);
    let (mut dx, mut dw) = (zeros(5, 35), zeros(1, 35));
    d.rms_norm_backward(&g, &x, &w, &rstd, &mut dx, &mut dw);
    check("dx", &x, &dx, |x| inner(&forward(x, &w).0, &g));
    check("dweight", &w, &dw, |w| inner(&forward(&x, w).0, &g));
}

#[test]
fn swiglu() {
    let (d, gate, up, g) = (device(), random(1, 3, 33), random(2, 3, 33), random(3, 3, 33));
    let forward = |gate: &Tensor, up: &Tensor| {
        let mut out = zeros(3, 33);
        d.swiglu(gate, up, &mut out);
        inner(&out, &g)
    };
    let (mut dgate, mut dup) = (zeros(3, 33), zeros(3, 33));
    d.swiglu_backward(&g, &gate, &up, &mut dgate, &mut dup);
    check("dgate", &gate, &dgate, |x| forward(x, &up));
    check("dup", &up, &dup, |x| forward(&gate, x));
}

#[test]
fn linear_and_bias() {
    let (d, x, w, b, g) = (device(), random(1, 6, 20), random(2, 9, 20), random(4, 1, 9), random(3, 6, 9));
    let forward = |x: &Tensor, w: &Tensor, b: &Tensor| {
        let mut y = zeros(6, 9);
        d.linear(x, w, &mut y);
        d.bias(b, &mut y);
        inner(&y, &g)
    };
    let (mut dx, mut dw, mut db) = (zeros(6, 20), zeros(9, 20), zeros(1, 9));
    d.linear_backward(&g, &x, &w, Some(&mut dx), false, &mut dw, false);
    d.bias_backward(&g, &mut db);
    check("dx", &x, &dx, |x| forward(x, &w, &b));
    check("dweight", &w, &dw, |w| forward(&x, w, &b));
    check("dbias", &b, &db, |b| forward(&x, &w, b));
}

#[test]
fn rope_is_a_rotation_and_backward_turns_back() {
    let (d, x) = (device(), random(1, 7, 24));
    let table = RopeTable::new(&[1.0, 0.1, 0.01, 0.001], 8, 1.0);
    let mut y = copy(&x);
    d.rope(&mut y, 8, &[0, 3, 7], &table, Rotation::Forward);
    assert_eq!(&y.f32()[..24], &x.f32()[..24], "position 0 is not turned");
    assert_eq!(&y.f32()[3 * 24..4 * 24], &x.f32()[3 * 24..4 * 24], "positions restart with a sequence");
    let (angle, at) = (f64::from(2.0_f32 * 0.1), 2 * 24);
    let expected = f64::from(x.f32()[at + 1]) * angle.cos() - f64::from(x.f32()[at + 5]) * angle.sin();
    assert!((f64::from(y.f32()[at + 1]) - expected).abs() < 1e-6);
    d.rope(&mut y, 8, &[0, 3, 7], &table, Rotation::Backward);
    for (a, b) in y.f32().iter().zip(x.f32()) {
        assert!((a - b).abs() < 1e-6);
    }
}

#[test]
fn embedding() {
    let d = device();
    let (table, g) = (random(1, 6, 10), random(2, 4, 10));
    let ids = [3, 0, 3, 5];
    let mut out = zeros(4, 10);
    d.embedding(&ids, &table, &mut out);
    for (t, id) in ids.iter().enumerate() {
        assert_eq!(&out.f32()[t * 10..][..10], &table.f32()[*id as usize * 10..][..10]);
    }
    let mut dtable = zeros(6, 10);
    d.embedding_backward(&ids, &g, &mut dtable);
    check("dtable", &table, &dtable, |table| {
        let mut out = zeros(4, 10);
        d.embedding(&ids, table, &mut out);
        inner(&out, &g)
    });
}

/// Softmax attention written down plainly, in f64.
fn plain_attention(s: AttentionShape, sequences: &[u32], q: &Tensor, k: &Tensor, v: &Tensor) -> Vec<f64> {
    let (dim, group) = (s.head_dim, s.heads / s.kv_heads);
    let mut out = vec![0.0; q.f32().len()];
    for ends in sequences.windows(2) {
        for t in ends[0] as usize..ends[1] as usize {
            for h in 0..s.heads {
                let row = |x: &Tensor, t: usize, heads: usize, h: usize| {
                    x.f32()[(t * heads + h) * dim..][..dim].iter().map(|x| f64::from(*x)).collect::<Vec<_>>()
                };
                let query = row(q, t, s.heads, h);
                let scores: Vec<f64> = (ends[0] as usize..=t)
                    .map(|u| {
                        let key = row(k, u, s.kv_heads, h / group);
                        f64::from(s.scale) * query.iter().zip(&key).map(|(a, b)| a * b).sum::<f64>()
                    })
                    .collect();
                let top = scores.iter().copied().fold(f64::MIN, f64::max);
                let total: f64 = scores.iter().map(|x| (x - top).exp()).sum();
                for (u, score) in scores.iter().enumerate() {
                    let value = row(v, ends[0] as usize + u, s.kv_heads, h / group);
                    for (i, value) in value.iter().enumerate() {
                        out[(t * s.heads + h) * dim + i] += (score - top).exp() / total * value;
                    }
                }
            }
        }
    }
    out
}

#[test]
fn attention_equals_plain_softmax_and_its_differences() {
    let d = device();
    for (heads, kv_heads, dim, sequences) in [
        (4, 2, 8, vec![0, 5, 6, 13]),
        (2, 1, 24, vec![0, 65]),
        (1, 1, 16, vec![0, 64, 193]),
        (2, 2, 6, vec![0, 1]),
    ] {
        let shape = AttentionShape { heads, kv_heads, head_dim: dim, scale: 0.4 };
        let tokens = *sequences.last().expect("offsets") as usize;
        let (q, k) = (random(1, tokens, heads * dim), random(2, tokens, kv_heads * dim));
        let (v, g) = (random(3, tokens, kv_heads * dim), random(4, tokens, heads * dim));
        let forward = |q: &Tensor, k: &Tensor, v: &Tensor| {
            let (mut out, mut lse) = (zeros(tokens, heads * dim), zeros(heads, tokens));
            d.attention(shape, &sequences, q, k, v, &mut out, &mut lse);
            (out, lse)
        };
        let (out, lse) = forward(&q, &k, &v);
        for (found, expected) in out.f32().iter().zip(plain_attention(shape, &sequences, &q, &k, &v)) {
            assert!((f64::from(*found) - expected).abs() < 2e-6, "{found} {expected}");
        }
        let (mut dq, mut dk) = (zeros(tokens, heads * dim), zeros(tokens, kv_heads * dim));
        let mut dv = zeros(tokens, kv_heads * dim);
        d.attention_backward(shape, &sequences, &g, &q, &k, &v, &out, &lse, &mut dq, &mut dk, &mut dv);
        if tokens > 100 {
            continue;
        }
        if tokens > 1 {
            check("dq", &q, &dq, |q| inner(&forward(q, &k, &v).0, &g));
            check("dk", &k, &dk, |k| inner(&forward(&q, k, &v).0, &g));
        }
        check("dv", &v, &dv, |v| inner(&forward(&q, &k, v).0, &g));
    }
}

#[test]
fn a_nan_key_spoils_the_queries_that_see_it_and_no_others() {
    let d = device();
    let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 8, scale: 0.3 };
    let (tokens, sequences) = (150, [0, 100, 150]);
    let (q, mut k, v) = (random(1, tokens, 8), random(2, tokens, 8), random(3, tokens, 8));
    k.f32_mut()[70 * 8 + 3] = f32::NAN;
    let (mut out, mut lse) = (zeros(tokens, 8), zeros(1, tokens));
    d.attention(shape, &sequences, &q, &k, &v, &mut out, &mut lse);
    for token in 0..tokens {
        let spoilt = (70..100).contains(&token);
        assert_eq!(lse.f32()[token].is_nan(), spoilt, "{token}");
        assert!(out.f32()[token * 8..][..8].iter().all(|x| x.is_nan() == spoilt), "{token}");
    }
}

#[test]
fn cross_entropy_equals_log_softmax_and_its_differences() {
    let (d, x, head) = (device(), random(1, 6, 12), random(2, 40, 12));
    let targets = [3, -1, 39, 0, -1, 7];
    let loss = |x: &Tensor, head: &Tensor| d.cross_entropy(x, head, &targets, None).loss_sum;
    let mut expected = 0.0;
    for (t, target) in targets.iter().enumerate().filter(|(_, target)| **target >= 0) {
        let logits: Vec<f64> = head
            .f32()
            .chunks(12)
            .map(|w| (0..12).map(|i| f64::from(w[i]) * f64::from(x.f32()[t * 12 + i])).sum())
            .collect();
        expected += logits.iter().map(|l| l.exp()).sum::<f64>().ln() - logits[*target as usize];
    }
    assert!((loss(&x, &head) - expected).abs() < 1e-5);
    let (mut dx, mut dhead) = (zeros(6, 12), zeros(40, 12));
    let result = d.cross_entropy(&x, &head, &targets, Some((&mut dx, &mut dhead, 0.25)));
    assert_eq!(result.targets, 4);
    assert!(dx.f32()[12..24].iter().all(|g| *g == 0.0), "a token without target has no gradient");
    check("dx", &x, &dx, |x| 0.25 * loss(x, &head));
    check("dhead", &head, &dhead, |head| 0.25 * loss(&x, head));
}

#[test]
fn greedy_answers_are_the_argmax_with_the_lowest_index() {
    let d = device();
    let x = Tensor::from_f32(vec![1.0; 4], 2, 2);
    let head = Tensor::from_f32(vec![0.0, 0.0, 1.0, 1.0, 1.0, 1.0], 3, 2);
    let result = d.cross_entropy(&x, &head, &[1, 2], None);
    assert_eq!((result.predicted, result.correct), (vec![1, 1], vec![true, false]));
}

struct Threads(usize);

impl Parallel for Threads {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for thread in 0..self.0 {
                scope.spawn(move || (thread..tasks).step_by(self.0).rev().for_each(body));
            }
        });
    }
}

/// Runs every op once and returns all bits.
fn all_bits(d: &dyn Device, dtype: DType) -> Vec<u32> {
    let sequences = [0, 1, 70, 133];
    let t = 133;
    let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 16, scale: 0.25 };
    let activation = |stream, cols| {
        let mut x = Tensor::zeros(dtype, t, cols);
        d.convert(&random(stream, t, cols), &mut x);
        x
    };
    let like = |cols| Tensor::zeros(dtype, t, cols);
    let ids: Vec<u32> = (0..t as u32).map(|i| i * 7 % 50).collect();
    let targets: Vec<i32> = (0..t as i32).map(|i| if i % 3 == 0 { -1 } else { i % 50 }).collect();
    let (table, weight, bias) = (random(1, 50, 64), random(2, 1, 64), random(9, 1, 64));
    let mut out = Vec::new();
    let mut keep = |x: &Tensor| {
        let mut wide = Tensor::zeros(DType::F32, x.rows(), x.cols());
        d.convert(x, &mut wide);
        out.extend(wide.f32().iter().map(|x| x.to_bits()));
    };
    let mut x = like(64);
    d.embedding(&ids, &table, &mut x);
    let (mut y, mut rstd) = (like(64), zeros(1, t));
    d.rms_norm(&x, &weight, 1e-5, &mut y, &mut rstd);
    let (mut dx, mut dw) = (activation(3, 64), random(4, 1, 64));
    d.rms_norm_backward(&y, &x, &weight, &rstd, &mut dx, &mut dw);
    d.bias(&bias, &mut y);
    d.bias_backward(&y, &mut dw);
    d.add(&mut y, &dx);
    let mut dtable = zeros(50, 64);
    d.embedding_backward(&ids, &dx, &mut dtable);
    [&y, &rstd, &dx, &dw, &dtable].into_iter().for_each(&mut keep);
    let (mut q, k, v, g) = (activation(5, 64), activation(6, 32), activation(7, 32), activation(8, 64));
    d.rope(&mut q, 16, &sequences, &RopeTable::new(&[1.0; 8], 100, 1.0), Rotation::Forward);
    let (mut a, mut lse) = (like(64), zeros(4, t));
    d.attention(shape, &sequences, &q, &k, &v, &mut a, &mut lse);
    let (mut dq, mut dk, mut dv) = (like(64), like(32), like(32));
    d.attention_backward(shape, &sequences, &g, &q, &k, &v, &a, &lse, &mut dq, &mut dk, &mut dv);
    [&a, &lse, &dq, &dk, &dv].into_iter().for_each(&mut keep);
    let (mut s, mut ds, mut du) = (like(64), like(64), like(64));
    d.swiglu(&q, &g, &mut s);
    d.swiglu_backward(&a, &q, &g, &mut ds, &mut du);
    [&s, &ds, &du].into_iter().for_each(&mut keep);
    let mut head = Tensor::zeros(dtype, 50, 64);
    d.convert(&table, &mut head);
    let (mut dx, mut dhead) = (like(64), zeros(50, 64));
    let loss = d.cross_entropy(&s, &head, &targets, Some((&mut dx, &mut dhead, 0.01)));
    let (mut w, mut m, mut v) = (random(1, 50, 64), zeros(50, 64), zeros(50, 64));
    let step = fp8flow_tensor::AdamW {
        lr: 1e-3,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        bias_correction1: 0.1,
        bias_correction2: 0.05,
        grad_scale: 0.5,
    };
    d.adamw(step, &mut w, &dhead, &mut m, &mut v);
    [&dx, &dhead, &w, &m, &v].into_iter().for_each(&mut keep);
    for x in [loss.loss_sum, d.sum_of_squares(&dhead)] {
        out.extend([x.to_bits() as u32, (x.to_bits() >> 32) as u32]);
    }
    out
}

#[test]
fn bits_do_not_depend_on_threads_or_instruction_set() {
    for isa in Isa::ALL {
        if !isa.is_available() {
            println!("skipped {}: this CPU lacks it", isa.name());
        }
    }
    for dtype in [DType::F32, DType::Bf16] {
        let expected = all_bits(&CpuDevice::new(Isa::Scalar, Arc::new(Serial)), dtype);
        for isa in Isa::available() {
            for threads in [1, 2, 3] {
                let found = all_bits(&CpuDevice::new(isa, Arc::new(Threads(threads))), dtype);
                assert!(found == expected, "{dtype:?} {isa:?} {threads} threads");
            }
        }
    }
}
