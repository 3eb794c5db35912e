//! Attention on a card, beside that of the CPU.

#![allow(clippy::unwrap_used, reason = "a card that fails fails the test")]

use std::sync::Arc;

use fp8flow_card_tests::card;
use fp8flow_cuda::{Card, Error};
use fp8flow_kernels::philox::Philox;
use fp8flow_kernels::{Elements, Isa, Serial, bf16};
use fp8flow_tensor::cuda::attention::{self, Table};
use fp8flow_tensor::{AttentionShape, CpuDevice, DType, Device, Tensor};

/// Attention over sequences of these lengths.
#[derive(Clone)]
struct Case {
    shape: AttentionShape,
    dtype: DType,
    sequences: Vec<u32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

/// All that attention gives, and `delta`, which only the card hands out.
struct Given {
    out: Vec<f32>,
    lse: Vec<f32>,
    delta: Vec<f32>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

fn case(dtype: DType, [heads, kv_heads, head_dim]: [usize; 3], lengths: &[u32]) -> Case {
    let ends = lengths.iter().scan(0, |end, len| {
        *end += len;
        Some(*end)
    });
    let sequences: Vec<u32> = [0].into_iter().chain(ends).collect();
    let tokens = *sequences.last().expect("an end") as usize;
    let philox = Philox::new(7, "attention on a card");
    let random = |stream: u64, heads: usize| -> Vec<f32> {
        let x = (0..tokens * heads * head_dim).map(|i| philox.normal_pair(stream, i as u64)[0]);
        match dtype {
            DType::F32 => x.collect(),
            DType::Bf16 => x.map(|x| bf16::from_f32(x).to_f32()).collect(),
        }
    };
    let shape = AttentionShape { heads, kv_heads, head_dim, scale: (head_dim as f32).sqrt().recip() };
    let (q, k, v, dout) = (random(1, heads), random(2, kv_heads), random(3, kv_heads), random(4, heads));
    Case { shape, dtype, sequences, q, k, v, dout }
}

impl Case {
    fn tokens(&self) -> usize {
        *self.sequences.last().expect("an end") as usize
    }

    /// A tensor of the case's type on the CPU.
    fn tensor(&self, x: &[f32], heads: usize) -> Tensor {
        let mut tensor = Tensor::zeros(self.dtype, self.tokens(), heads * self.shape.head_dim);
        match self.dtype {
            DType::F32 => tensor.f32_mut().copy_from_slice(x),
            DType::Bf16 => {
                tensor.bf16_mut().iter_mut().zip(x).for_each(|(to, x)| *to = bf16::from_f32(*x));
            }
        }
        tensor
    }

    fn on_cpu(&self) -> Given {
        let cpu = CpuDevice::new(Isa::best(), Arc::new(Serial));
        let AttentionShape { heads, kv_heads, .. } = self.shape;
        let [q, dout] = [&self.q, &self.dout].map(|x| self.tensor(x, heads));
        let [k, v] = [&self.k, &self.v].map(|x| self.tensor(x, kv_heads));
        let zeros = |x: &Tensor| Tensor::zeros(self.dtype, x.rows(), x.cols());
        let (mut out, mut dq, mut dk, mut dv) = (zeros(&q), zeros(&q), zeros(&k), zeros(&v));
        let mut lse = Tensor::zeros(DType::F32, self.shape.heads, self.tokens());
        cpu.attention(self.shape, &self.sequences, &q, &k, &v, &mut out, &mut lse);
        cpu.attention_backward(
            self.shape,
            &self.sequences,
            &dout,
            &q,
            &k,
            &v,
            &out,
            &lse,
            &mut dq,
            &mut dk,
            &mut dv,
        );
        let [out, lse, dq, dk, dv] = [out, lse, dq, dk, dv].map(|x| numbers(&x));
        Given { out, lse, delta: Vec::new(), dq, dk, dv }
    }

    /// On the card; backward from the output and the statistics that `saved` holds.
    fn on_card(&self, card: &Card, saved: &Given) -> Given {
        self.on_card_by(&mut table(card, self.tokens()), card, saved)
    }

    fn on_card_by(&self, table: &mut Table, card: &Card, saved: &Given) -> Given {
        let AttentionShape { heads, kv_heads, .. } = self.shape;
        let up = |x: &[f32], heads: usize| upload(card, &self.tensor(x, heads));
        let [q, dout, saved_out] = [&self.q, &self.dout, &saved.out].map(|x| up(x, heads));
        let [k, v] = [&self.k, &self.v].map(|x| up(x, kv_heads));
        let room = |x: &Tensor| unwritten(card, x.dtype(), x.rows(), x.cols());
        let statistic = || unwritten(card, DType::F32, self.shape.heads, self.tokens());
        let (mut out, mut lse, mut delta) = (room(&q), statistic(), statistic());
        let (mut dq, mut dk, mut dv) = (room(&q), room(&k), room(&v));
        let (shape, sequences) = (self.shape, &self.sequences[..]);
        attention::forward(card, shape, table, sequences, &q, &k, &v, &mut out, &mut lse).expect("forward");
        let saved_lse = Tensor::from_f32(saved.lse.clone(), shape.heads, self.tokens());
        let saved_lse = upload(card, &saved_lse);
        attention::backward(
            card, shape, table, sequences, &dout, &q, &k, &v, &saved_out, &saved_lse, &mut delta, &mut dq,
            &mut dk, &mut dv,
        )
        .expect("backward");
        let [out, lse, delta, dq, dk, dv] = [out, lse, delta, dq, dk, dv].map(|x| numbers(&download(&x)));
        Given { out, lse, delta, dq, dk, dv }
    }

    /// Holds the card to the CPU.
    fn check(&self, card: &Card) {
        let dim = self.shape.head_dim;
        let (cpu, found) = (self.on_cpu(), self.on_card(card, &self.on_cpu()));
        let what = format!("{:?} {:?} {:?}", self.shape, self.dtype, self.sequences);
        for (i, (found, expected)) in found.lse.iter().zip(&cpu.lse).enumerate() {
            let error = (found - expected).abs();
            assert!(error <= 1e-5 * expected.abs().max(1.0), "{what}: lse[{i}] is {found}, not {expected}");
        }
        close(&format!("{what}: out"), &found.out, &cpu.out, dim);
        close(&format!("{what}: dq"), &found.dq, &cpu.dq, dim);
        close(&format!("{what}: dk"), &found.dk, &cpu.dk, dim);
        close(&format!("{what}: dv"), &found.dv, &cpu.dv, dim);
        let rows = self.dout.chunks_exact(dim).zip(cpu.out.chunks_exact(dim));
        for (i, (dout, out)) in rows.enumerate() {
            let (token, head) = (i / self.shape.heads, i % self.shape.heads);
            let (found, expected) = (found.delta[head * self.tokens() + token], lane_sum(dout, out));
            assert_eq!(found.to_bits(), expected.to_bits(), "{what}: delta of token {token}, head {head}");
        }
    }
}

/// Every element within one unit in the last place of bf16 of the row's largest. A row that is nothing but what
/// rounding left of zero, as `dq` of a first token, is within 2⁻¹⁶ of the largest element of all.
fn close(what: &str, found: &[f32], expected: &[f32], dim: usize) {
    let largest = |x: &[f32]| x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let floor = largest(expected) * 2.0_f32.powi(-16);
    let mut worst = 0.0_f32;
    for (row, (found, expected)) in found.chunks_exact(dim).zip(expected.chunks_exact(dim)).enumerate() {
        let unit = (largest(expected).log2().floor() - 7.0).exp2();
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let error = (found - expected).abs();
            worst = worst.max(error / unit.max(floor));
            assert!(
                error <= unit.max(floor),
                "{what}[{row}][{i}] is {found}, not {expected}; a unit is {unit}"
            );
        }
    }
    println!("{what} is within {worst} units");
}

/// `⟨x, y⟩` as the CPU adds it: 16 partial sums, then a tree.
fn lane_sum(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    for (i, (x, y)) in x.iter().zip(y).enumerate() {
        lanes[i % 16] = x.mul_add(*y, lanes[i % 16]);
    }
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

fn numbers(x: &Tensor) -> Vec<f32> {
    match x.elements() {
        Elements::F32(x) => x.to_vec(),
        Elements::Bf16(x) => x.iter().map(|x| x.to_f32()).collect(),
        other => panic!("{other:?}"),
    }
}

fn bytes(x: &Tensor) -> Vec<u8> {
    match x.elements() {
        Elements::F32(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Elements::Bf16(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        other => panic!("{other:?}"),
    }
}

fn table(card: &Card, tokens: usize) -> Table {
    Table::new(card.take(Table::bytes(tokens)).expect("memory of the card"))
}

/// Room on the card, filled with NaN.
fn unwritten(card: &Card, dtype: DType, rows: usize, cols: usize) -> Tensor {
    let memory = Arc::new(card.take(rows * cols * dtype.size()).expect("memory of the card"));
    memory.fill(0, memory.bytes(), 0xff).expect("memory of the card");
    Tensor::on_card(memory, 0, dtype, rows, cols)
}

fn upload(card: &Card, x: &Tensor) -> Tensor {
    let there = unwritten(card, x.dtype(), x.rows(), x.cols());
    let (memory, at, _) = there.stretch();
    memory.write(at, &bytes(x)).expect("memory of the card");
    there
}

fn download(x: &Tensor) -> Tensor {
    let (memory, at, len) = x.stretch();
    let mut read = vec![0; len];
    memory.read(at, &mut read).expect("memory of the card");
    let mut here = Tensor::zeros(x.dtype(), x.rows(), x.cols());
    match x.dtype() {
        DType::F32 => {
            for (to, bytes) in here.f32_mut().iter_mut().zip(read.as_chunks().0) {
                *to = f32::from_le_bytes(*bytes);
            }
        }
        DType::Bf16 => {
            for (to, bytes) in here.bf16_mut().iter_mut().zip(read.as_chunks().0) {
                *to = bf16::from_le_bytes(*bytes);
            }
        }
    }
    here
}

const SHORT: [u32; 7] = [1, 63, 0, 64, 65, 2, 17];

#[test]
fn sequences_of_any_length_lie_side_by_side() {
    let Some(card) = card() else { return };
    case(DType::Bf16, [4, 2, 64], &SHORT).check(&card);
    case(DType::Bf16, [2, 1, 128], &[3, 130, 33]).check(&card);
}

#[test]
fn a_sequence_spans_tiles() {
    let Some(card) = card() else { return };
    case(DType::Bf16, [2, 2, 64], &[200]).check(&card);
    case(DType::Bf16, [1, 1, 128], &[260]).check(&card);
}

#[test]
fn query_heads_share_keys() {
    let Some(card) = card() else { return };
    case(DType::Bf16, [4, 1, 64], &[70]).check(&card);
    case(DType::Bf16, [4, 4, 128], &[40]).check(&card);
}

/// Products by warp groups, where a card has them: forward goes through more tiles there than a card has
/// multiprocessors, and the rings of all kernels go around more than once.
#[test]
fn blocks_take_one_tile_after_the_other() {
    let Some(card) = card() else { return };
    let properties = card.properties();
    if !properties.warp_groups {
        println!("skipped: {} has no products by warp groups", properties.name);
        return;
    }
    let lengths = [&[700][..], &[129; 8]].concat();
    let tiles: usize = lengths.iter().map(|&len: &u32| len.div_ceil(128) as usize).sum();
    for dim in [64, 128] {
        let case = case(DType::Bf16, [8, 2, dim], &lengths);
        assert!(tiles * case.shape.heads > properties.multiprocessors as usize, "too few tiles");
        case.check(&card);
    }
}

#[test]
fn heads_come_in_six_widths() {
    let Some(card) = card() else { return };
    for dim in [16, 32, 64, 80, 96, 128] {
        case(DType::Bf16, [2, 1, dim], &[129, 30]).check(&card);
    }
}

#[test]
fn under_f32_a_card_has_the_bits_of_the_cpu() {
    let Some(card) = card() else { return };
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    for case in [case(DType::F32, [4, 2, 24], &SHORT), case(DType::F32, [2, 1, 128], &[140])] {
        let (cpu, found) = (case.on_cpu(), case.on_card(&card, &case.on_cpu()));
        let pairs = [
            ("out", cpu.out, found.out),
            ("lse", cpu.lse, found.lse),
            ("dq", cpu.dq, found.dq),
            ("dk", cpu.dk, found.dk),
            ("dv", cpu.dv, found.dv),
        ];
        for (name, cpu, found) in pairs {
            assert!(bits(&cpu) == bits(&found), "{:?}: {name}", case.shape);
        }
    }
}

#[test]
fn peaked_weights_keep_the_bound() {
    let Some(card) = card() else { return };
    for sharpness in [4.0, 16.0] {
        let mut case = case(DType::Bf16, [2, 1, 128], &[150]);
        case.q.iter_mut().for_each(|q| *q *= sharpness);
        case.check(&card);
    }
}

#[test]
fn bytes_are_the_same_every_time_and_whatever_lies_beside() {
    let Some(card) = card() else { return };
    let both = case(DType::Bf16, [2, 1, 64], &[70, 150]);
    let saved = both.on_cpu();
    let bits = |given: &Given, from: usize| -> Vec<u32> {
        let Given { out, dq, dk, dv, .. } = given;
        let part =
            |x: &[f32], heads: usize| x[from * heads * 64..].iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        [part(out, 2), part(dq, 2), part(dk, 1), part(dv, 1)].concat()
    };
    let (first, second) = (both.on_card(&card, &saved), both.on_card(&card, &saved));
    assert!(bits(&first, 0) == bits(&second, 0), "two runs differ");
    let after = |x: &[f32], heads: usize| x[70 * heads * 64..].to_vec();
    let alone = Case {
        sequences: vec![0, 150],
        q: after(&both.q, 2),
        k: after(&both.k, 1),
        v: after(&both.v, 1),
        dout: after(&both.dout, 2),
        ..both.clone()
    };
    let alone = alone.on_card(&card, &alone.on_cpu());
    assert!(bits(&first, 70) == bits(&alone, 0), "a sequence that is alone differs");
}

#[test]
fn a_nan_spoils_the_rows_that_see_it() {
    let Some(card) = card() else { return };
    for dtype in [DType::Bf16, DType::F32] {
        let mut case = case(dtype, [2, 1, 64], &[20, 100, 20]);
        let row = |token: usize, head: usize, heads: usize| (token * heads + head) * 64;
        case.k[row(20 + 70, 0, 1)] = f32::NAN;
        case.q[row(20 + 10, 1, 2) + 5] = f32::NAN;
        let (cpu, found) = (case.on_cpu(), case.on_card(&card, &case.on_cpu()));
        let spoilt = |x: &[f32]| x.iter().map(|x| x.is_nan()).collect::<Vec<_>>();
        assert_eq!(spoilt(&found.out), spoilt(&cpu.out), "{dtype:?}: out");
        assert_eq!(spoilt(&found.lse), spoilt(&cpu.lse), "{dtype:?}: lse");
        assert_eq!(spoilt(&found.out).iter().filter(|nan| **nan).count(), (30 * 2 + 1) * 64, "{dtype:?}");
    }
}

#[test]
fn what_a_card_cannot_do_is_said() {
    let Some(card) = card() else { return };
    let refused = |case: &Case| {
        let q = upload(&card, &case.tensor(&case.q, case.shape.heads));
        let [k, v] = [&case.k, &case.v].map(|x| upload(&card, &case.tensor(x, case.shape.kv_heads)));
        let mut out = unwritten(&card, case.dtype, q.rows(), q.cols());
        let mut lse = unwritten(&card, DType::F32, case.shape.heads, case.tokens());
        let mut table = table(&card, case.tokens());
        let sequences = &case.sequences[..];
        let result =
            attention::forward(&card, case.shape, &mut table, sequences, &q, &k, &v, &mut out, &mut lse);
        match result {
            Err(Error::Unsupported(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        refused(&case(DType::Bf16, [2, 1, 144], &[3])),
        "attention in bf16 on a card takes a head_dim of [16, 32, 64, 80, 96, 128], not 144"
    );
    assert_eq!(
        refused(&case(DType::F32, [2, 1, 288], &[3])),
        "attention in f32 on a card takes a head_dim of at most 256, not 288"
    );
    let mut turned = case(DType::Bf16, [2, 1, 64], &[3]);
    turned.shape.scale = -0.125;
    assert_eq!(refused(&turned), "attention on a card takes a positive scale, not -0.125");
}

#[test]
fn a_table_serves_one_micro_batch_after_the_other() {
    let Some(card) = card() else { return };
    let cases = [[70, 10], [10, 70]].map(|lengths| case(DType::Bf16, [2, 1, 16], &lengths));
    let mut table = table(&card, 80);
    for case in [&cases[0], &cases[1], &cases[1], &cases[0]] {
        let saved = case.on_cpu();
        let (found, expected) = (case.on_card_by(&mut table, &card, &saved), case.on_card(&card, &saved));
        assert_eq!((found.out, found.dk), (expected.out, expected.dk));
    }
}

#[test]
fn no_tokens_are_no_work() {
    let Some(card) = card() else { return };
    let none = case(DType::Bf16, [2, 1, 64], &[0]);
    assert!(none.on_card(&card, &none.on_cpu()).out.is_empty());
}
