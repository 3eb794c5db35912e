//! Whether a device computes what the CPU computes: every operation of a decoder once, on small shapes.
//!
//! Asked of a card before a run trusts it. Where the bits of an operation are defined they must be those of the CPU;
//! products and attention, whose sums may be taken in another order, must lie near.

use fp8flow_cuda::Result;
use fp8flow_kernels::{bf16, philox::Philox};

use crate::{AdamW, AttentionShape, DType, Device, RopeTable, Rotation, Tensor, cuda, digest};

/// Tokens of the micro-batch.
const TOKENS: usize = 70;
/// Its sequences.
const SEQUENCES: [u32; 3] = [0, 5, TOKENS as u32];
/// Tokens of attention: three tiles of any kernel.
const ATTENDED: usize = 270;
/// Its sequences: a short one, and one that goes through tiles.
const ATTENDED_SEQUENCES: [u32; 3] = [0, 5, ATTENDED as u32];
/// Query heads, which share one head of keys and values.
const HEADS: usize = 2;
/// Rows of the embedding and the output head; no multiple of 16.
const VOCABULARY: usize = 100;
/// Width of the MLP.
const WIDE: usize = 48;
const EPS: f32 = 1e-5;

/// One result of an operation on both devices.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// The operation and which of its results: `attention_backward dq`.
    pub result: &'static str,
    /// The largest difference, as a part of the largest element.
    pub off: f32,
    /// How much that may be; 0: the bits must be the same.
    pub bound: f32,
}

impl Compared {
    /// Whether the device has computed what the CPU has.
    pub fn holds(&self) -> bool {
        self.off <= self.bound
    }
}

/// Every operation on activations of `dtype` in heads of `head_dim`, on `device` beside `cpu`. Takes milliseconds once
/// kernels are compiled; an error if the device fails.
pub fn check(device: &dyn Device, cpu: &dyn Device, head_dim: usize, dtype: DType) -> Result<Vec<Compared>> {
    let mut expected = Bench::new(cpu, head_dim, dtype);
    expected.run()?;
    let mut found = Bench::new(device, head_dim, dtype);
    found.run()?;
    device.settle()?;
    let pairs = found.results.iter().zip(&expected.results);
    Ok(pairs.map(|(found, expected)| found.beside(expected)).collect())
}

/// What an operation has left behind.
struct Kept {
    result: &'static str,
    numbers: Vec<f32>,
    bound: f32,
}

impl Kept {
    fn beside(&self, expected: &Self) -> Compared {
        let largest = expected.numbers.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let same = self.numbers.len() == expected.numbers.len();
        let pairs = || self.numbers.iter().zip(&expected.numbers);
        let off = if !same || largest.is_nan() {
            f32::INFINITY
        } else if pairs().all(|(a, b)| a.to_bits() == b.to_bits()) {
            0.0
        } else {
            // A NaN is as far off as can be; other bits of the same number are off, too.
            let part = |(a, b): (&f32, &f32)| ((a - b).abs() / largest).max(f32::MIN_POSITIVE);
            pairs().map(part).fold(0.0, |most, x| if x.is_nan() { f32::INFINITY } else { x.max(most) })
        };
        Compared { result: self.result, off, bound: self.bound }
    }
}

/// The operations on one device.
struct Bench<'a> {
    device: &'a dyn Device,
    dtype: DType,
    shape: AttentionShape,
    /// Operands so far: each has numbers of its own.
    operands: u64,
    results: Vec<Kept>,
}

impl<'a> Bench<'a> {
    fn new(device: &'a dyn Device, head_dim: usize, dtype: DType) -> Self {
        let scale = (head_dim as f32).sqrt().recip();
        let shape = AttentionShape { heads: HEADS, kv_heads: HEADS / 2, head_dim, scale };
        Self { device, dtype, shape, operands: 0, results: Vec::new() }
    }

    fn hidden(&self) -> usize {
        self.shape.heads * self.shape.head_dim
    }

    /// How far the sums of another order may be off.
    fn near(&self) -> f32 {
        match self.dtype {
            DType::Bf16 => 1.0 / 32.0,
            DType::F32 => 1e-4,
        }
    }

    fn put(&self, tensor: Tensor) -> Result<Tensor> {
        match self.device.card() {
            Some(card) => tensor.copy_to(card),
            None => Ok(tensor),
        }
    }

    /// Normal numbers, the same on every device.
    fn operand(&mut self, dtype: DType, rows: usize, cols: usize) -> Result<Tensor> {
        self.operands += 1;
        let philox = Philox::new(1, "check");
        let number = |i: usize| philox.normal_pair(self.operands, i as u64)[0];
        let mut tensor = Tensor::zeros(dtype, rows, cols);
        match dtype {
            DType::F32 => tensor.f32_mut().iter_mut().enumerate().for_each(|(i, x)| *x = number(i)),
            DType::Bf16 => {
                let numbers = tensor.bf16_mut().iter_mut().enumerate();
                numbers.for_each(|(i, x)| *x = bf16::from_f32(number(i)));
            }
        }
        self.put(tensor)
    }

    fn activations(&mut self, cols: usize) -> Result<Tensor> {
        self.operand(self.dtype, TOKENS, cols)
    }

    fn zeros(&self, dtype: DType, rows: usize, cols: usize) -> Result<Tensor> {
        self.put(Tensor::zeros(dtype, rows, cols))
    }

    fn keep(&mut self, result: &'static str, tensor: &Tensor, bound: f32) -> Result<()> {
        let numbers = tensor.here()?.elements().to_f32();
        self.results.push(Kept { result, numbers, bound });
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        self.embedding()?;
        self.rms_norm()?;
        self.linear()?;
        self.bias()?;
        self.rope()?;
        self.attention()?;
        self.swiglu()?;
        self.elementwise()?;
        self.cross_entropy()?;
        self.adamw()?;
        self.digest()
    }

    fn embedding(&mut self) -> Result<()> {
        let h = self.hidden();
        let ids: Vec<u32> = (0..TOKENS as u32).map(|t| (t * t + 3 * t) % VOCABULARY as u32).collect();
        let table = self.operand(DType::F32, VOCABULARY, h)?;
        let mut out = self.zeros(self.dtype, TOKENS, h)?;
        self.device.embedding(&ids, &table, &mut out);
        self.keep("embedding", &out, 0.0)?;
        let (dout, mut dtable) = (self.activations(h)?, self.zeros(DType::F32, VOCABULARY, h)?);
        self.device.embedding_backward(&ids, &dout, &mut dtable);
        self.keep("embedding_backward", &dtable, 0.0)
    }

    fn rms_norm(&mut self) -> Result<()> {
        let h = self.hidden();
        let (x, weight) = (self.activations(h)?, self.operand(DType::F32, 1, h)?);
        let (mut y, mut rstd) = (self.zeros(self.dtype, TOKENS, h)?, self.zeros(DType::F32, TOKENS, 1)?);
        self.device.rms_norm(&x, &weight, EPS, &mut y, &mut rstd);
        self.keep("rms_norm", &y, 0.0)?;
        let (dy, mut dx) = (self.activations(h)?, self.activations(h)?);
        let mut dweight = self.zeros(DType::F32, 1, h)?;
        self.device.rms_norm_backward(&dy, &x, &weight, &rstd, &mut dx, &mut dweight);
        self.keep("rms_norm_backward dx", &dx, 0.0)?;
        self.keep("rms_norm_backward dweight", &dweight, 0.0)
    }

    fn linear(&mut self) -> Result<()> {
        let (h, near) = (self.hidden(), self.near());
        let (x, weight) = (self.activations(h)?, self.operand(self.dtype, WIDE, h)?);
        let mut y = self.zeros(self.dtype, TOKENS, WIDE)?;
        self.device.linear(&x, &weight, &mut y);
        self.keep("linear", &y, near)?;
        let (dy, mut dx) = (self.activations(WIDE)?, self.activations(h)?);
        let mut dw = self.operand(DType::F32, WIDE, h)?;
        self.device.linear_backward(&dy, &x, &weight, Some(&mut dx), true, &mut dw, false);
        self.keep("linear_backward dx", &dx, near)?;
        self.keep("linear_backward dW", &dw, near)
    }

    fn bias(&mut self) -> Result<()> {
        let (bias, mut y) = (self.operand(DType::F32, 1, WIDE)?, self.activations(WIDE)?);
        self.device.bias(&bias, &mut y);
        self.keep("bias", &y, 0.0)?;
        let (dy, mut dbias) = (self.activations(WIDE)?, self.zeros(DType::F32, 1, WIDE)?);
        self.device.bias_backward(&dy, &mut dbias);
        self.keep("bias_backward", &dbias, 0.0)
    }

    fn rope(&mut self) -> Result<()> {
        let (h, head_dim) = (self.hidden(), self.shape.head_dim);
        let frequencies: Vec<f32> = (0..head_dim / 2).map(|i| 1.0 / (1.0 + i as f32)).collect();
        let table = RopeTable::new(&frequencies, TOKENS, 1.0).copy_to(self.device.card())?;
        for (result, rotation) in [("rope", Rotation::Forward), ("rope_backward", Rotation::Backward)] {
            let mut x = self.activations(h)?;
            self.device.rope(&mut x, head_dim, &SEQUENCES, &table, rotation);
            self.keep(result, &x, 0.0)?;
        }
        Ok(())
    }

    fn attention(&mut self) -> Result<()> {
        let (shape, near) = (self.shape, self.near());
        let [h, kv] = [shape.heads, shape.kv_heads].map(|heads| heads * shape.head_dim);
        let mut operand = |cols| self.operand(self.dtype, ATTENDED, cols);
        let [q, k, v, dout] = [operand(h)?, operand(kv)?, operand(kv)?, operand(h)?];
        let [mut dq, mut dk, mut dv] = [operand(h)?, operand(kv)?, operand(kv)?];
        let mut out = self.zeros(self.dtype, ATTENDED, h)?;
        let mut lse = self.zeros(DType::F32, shape.heads, ATTENDED)?;
        let sequences = &ATTENDED_SEQUENCES;
        self.device.attention(shape, sequences, &q, &k, &v, &mut out, &mut lse);
        self.keep("attention", &out, near)?;
        self.keep("attention lse", &lse, near)?;
        self.device
            .attention_backward(shape, sequences, &dout, &q, &k, &v, &out, &lse, &mut dq, &mut dk, &mut dv);
        self.keep("attention_backward dq", &dq, near)?;
        self.keep("attention_backward dk", &dk, near)?;
        self.keep("attention_backward dv", &dv, near)
    }

    fn swiglu(&mut self) -> Result<()> {
        let [gate, up] = [self.activations(WIDE)?, self.activations(WIDE)?];
        let mut out = self.zeros(self.dtype, TOKENS, WIDE)?;
        self.device.swiglu(&gate, &up, &mut out);
        self.keep("swiglu", &out, 0.0)?;
        let dout = self.activations(WIDE)?;
        let [mut dgate, mut dup] = [self.activations(WIDE)?, self.activations(WIDE)?];
        self.device.swiglu_backward(&dout, &gate, &up, &mut dgate, &mut dup);
        self.keep("swiglu_backward dgate", &dgate, 0.0)?;
        self.keep("swiglu_backward dup", &dup, 0.0)
    }

    fn elementwise(&mut self) -> Result<()> {
        let (mut x, y) = (self.activations(WIDE)?, self.activations(WIDE)?);
        self.device.add(&mut x, &y);
        self.keep("add", &x, 0.0)?;
        let (master, mut rounded) =
            (self.operand(DType::F32, TOKENS, WIDE)?, self.zeros(self.dtype, TOKENS, WIDE)?);
        self.device.convert(&master, &mut rounded);
        self.keep("convert", &rounded, 0.0)?;
        let mut sum = self.operand(DType::F32, TOKENS, WIDE)?;
        self.device.accumulate(&mut sum, &master);
        self.keep("accumulate", &sum, 0.0)?;
        let square = self.device.sum_of_squares(&sum).to_bits();
        // All of its bits, as numbers that f32 holds.
        let parts = [48, 32, 16, 0].map(|shift| ((square >> shift) & 0xffff) as f32);
        self.results.push(Kept { result: "sum_of_squares", numbers: parts.into(), bound: 0.0 });
        self.device.fill(&mut sum, 0.5);
        self.keep("fill", &sum, 0.0)
    }

    fn cross_entropy(&mut self) -> Result<()> {
        let (h, near) = (self.hidden(), self.near());
        let (x, head) = (self.activations(h)?, self.operand(self.dtype, VOCABULARY, h)?);
        let target = |t: usize| if t.is_multiple_of(5) { -1 } else { (t * 11 % VOCABULARY) as i32 };
        let targets: Vec<i32> = (0..TOKENS).map(target).collect();
        let (mut dx, mut dhead) = (self.activations(h)?, self.zeros(DType::F32, VOCABULARY, h)?);
        let gradients = Some((&mut dx, &mut dhead, 0.25));
        let found = self.device.cross_entropy(&x, &head, &targets, gradients);
        let numbers = vec![found.loss_sum as f32, found.targets as f32];
        self.results.push(Kept { result: "cross_entropy", numbers, bound: near });
        self.keep("cross_entropy dx", &dx, near)?;
        self.keep("cross_entropy dhead", &dhead, near)
    }

    fn adamw(&mut self) -> Result<()> {
        let step = AdamW {
            lr: 1e-2,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            weight_decay: 0.1,
            bias_correction1: 0.19,
            bias_correction2: 0.0199,
            grad_scale: 0.5,
        };
        let [mut weight, grad, mut m] = [
            self.operand(DType::F32, TOKENS, WIDE)?,
            self.operand(DType::F32, TOKENS, WIDE)?,
            self.operand(DType::F32, TOKENS, WIDE)?,
        ];
        let mut v = self.zeros(DType::F32, TOKENS, WIDE)?;
        self.device.fill(&mut v, 0.25);
        self.device.adamw(step, &mut weight, &grad, &mut m, &mut v);
        self.keep("adamw weight", &weight, 0.0)?;
        self.keep("adamw m", &m, 0.0)?;
        self.keep("adamw v", &v, 0.0)
    }

    /// Of the chain by which runs are told apart: whole pieces, and one that is cut short.
    fn digest(&mut self) -> Result<()> {
        let tensors = [self.operand(DType::F32, TOKENS, WIDE)?, self.operand(DType::F32, 1, WIDE)?];
        let (pool, mut on_card) = (self.device.cpu().pool, cuda::Digester::default());
        let found = digest::of_tensors(&tensors, 4 << 10, pool, &mut on_card)?;
        let numbers = found.as_flattened().iter().copied().map(f32::from).collect();
        self.results.push(Kept { result: "digest", numbers, bound: 0.0 });
        Ok(())
    }
}
