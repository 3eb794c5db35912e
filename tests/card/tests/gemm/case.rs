//! A product on a card, with random operands, and what it must come to.

use fp8flow_card_tests::is_real;
use fp8flow_cuda::gemm::{Addresses, Factors, Format, Operand, Order, Output, Plan, Product};
use fp8flow_cuda::{Card, Memory};
use fp8flow_kernels::{Fp8, Store, bf16};

/// The pairs of formats that there are.
pub(crate) const FP8: [(Format, Format); 3] = [
    (Format::Fp8(Fp8::E4m3), Format::Fp8(Fp8::E4m3)),
    (Format::Fp8(Fp8::E4m3), Format::Fp8(Fp8::E5m2)),
    (Format::Fp8(Fp8::E5m2), Format::Fp8(Fp8::E4m3)),
];

/// How far an element may be off, in parts of the sum of magnitudes: what adding in f32 in any order may lose; tensor
/// cores keep about 13 bits of a sum of FP8 products.
pub(crate) fn bound(product: &Product) -> f64 {
    let in_f32 = (product.k + 4) as f64 * f64::from(f32::EPSILON) / 2.0;
    if product.a.format.is_fp8() && is_real() { in_f32.max(1.0 / 4096.0) } else { in_f32 }
}

/// One side, on the card and decoded: what element `(row, step)` counts.
struct Side {
    memory: Memory,
    factors: Memory,
    values: Vec<f64>,
}

/// A product with its operands on a card.
pub(crate) struct Case {
    product: Product,
    a: Side,
    b: Side,
    d: Memory,
    before: Vec<u8>,
}

/// Numbers without a pattern, from -1 to 1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

fn put(format: Format, x: f32, bytes: &mut [u8]) -> f32 {
    match format {
        Format::Fp8(format) => {
            bytes[0] = format.encode(x);
            format.decode(bytes[0])
        }
        Format::Bf16 => {
            let x = bf16::from_f32(x);
            bytes.copy_from_slice(&x.to_le_bytes());
            x.to_f32()
        }
        Format::F32 => {
            bytes.copy_from_slice(&x.to_le_bytes());
            x
        }
    }
}

fn on_card(card: &Card, bytes: &[u8]) -> Memory {
    let memory = card.take(bytes.len()).unwrap();
    memory.write(0, bytes).unwrap();
    memory
}

fn side(card: &Card, operand: &Operand, rows: usize, k: usize, random: &mut Random) -> Side {
    let factors: Vec<f32> = (0..operand.factors.count(rows, k)).map(|_| 0.5 + random.next().abs()).collect();
    let size = operand.format.bytes();
    // What lies between the lines is NaN in every format.
    let mut bytes = vec![0xff; operand.elements(rows, k) * size];
    let mut values = vec![0.0; rows * k];
    for row in 0..rows {
        for step in 0..k {
            let at = match operand.order {
                Order::Rows => row * operand.stride + step,
                Order::Transposed => step * operand.stride + row,
            };
            let x = put(operand.format, random.next() * 8.0, &mut bytes[at * size..][..size]);
            let factor = match operand.factors {
                Factors::One => 1.0,
                kind => factors[kind.index(row, step, rows, k)],
            };
            values[row * k + step] = f64::from(x) * f64::from(factor);
        }
    }
    let factors: Vec<u8> = factors.iter().flat_map(|x| x.to_le_bytes()).collect();
    Side { memory: on_card(card, &bytes), factors: on_card(card, &factors), values }
}

impl Case {
    /// Random operands for `product`; where `d` is overwritten it holds NaN before.
    pub(crate) fn new(card: &Card, product: &Product) -> Self {
        let &Product { m, n, k, stride, .. } = product;
        let mut random = Random((m * 7919 + n * 104729 + k) as u64);
        let a = side(card, &product.a, m, k, &mut random);
        let b = side(card, &product.b, n, k, &mut random);
        let size = product.output.bytes();
        let mut before = vec![0xff; ((m - 1) * stride + n) * size];
        if product.store == Store::Accumulate {
            let format = match product.output {
                Output::Bf16 => Format::Bf16,
                Output::F32 => Format::F32,
            };
            for at in 0..m * n {
                put(format, random.next(), &mut before[(at / n * stride + at % n) * size..][..size]);
            }
        }
        Self { product: *product, a, b, d: on_card(card, &before), before }
    }

    pub(crate) fn addresses(&self) -> Addresses {
        let factors = |operand: &Operand, side: &Side| {
            (operand.factors != Factors::One).then(|| side.factors.address())
        };
        Addresses {
            a: self.a.memory.address(),
            b: self.b.memory.address(),
            d: self.d.address(),
            factor_a: factors(&self.product.a, &self.a),
            factor_b: factors(&self.product.b, &self.b),
        }
    }

    /// The bytes of `d` after `plan` was carried out.
    pub(crate) fn run(&self, plan: &Plan) -> Vec<u8> {
        self.d.write(0, &self.before).unwrap();
        // SAFETY: memory of this case, as large as its product says.
        #[allow(unsafe_code)]
        unsafe {
            plan.run(&self.addresses()).unwrap();
        }
        let mut after = vec![0; self.before.len()];
        self.d.read(0, &mut after).unwrap();
        after
    }

    fn element(&self, bytes: &[u8], at: usize) -> f64 {
        match self.product.output {
            Output::Bf16 => bf16::from_le_bytes([bytes[at * 2], bytes[at * 2 + 1]]).to_f64(),
            Output::F32 => f64::from(f32::from_le_bytes(bytes[at * 4..][..4].try_into().unwrap())),
        }
    }

    /// Holds `after` to the sums in f64, to `bound` of the sum of magnitudes and one rounding, or two where a real card adds
    /// to what is there: of the product, and of the sum. Nothing is written between rows.
    pub(crate) fn check(&self, after: &[u8], bound: f64) {
        let &Product { m, n, k, stride, output, store, .. } = &self.product;
        let rounding = match output {
            Output::Bf16 => 1.0 / 256.0,
            Output::F32 => f64::from(f32::EPSILON),
        };
        for at in 0..(m - 1) * stride + n {
            let (row, col) = (at / stride, at % stride);
            let size = output.bytes();
            if col >= n {
                assert_eq!(
                    after[at * size..][..size],
                    self.before[at * size..][..size],
                    "{}: between rows",
                    self.product
                );
                continue;
            }
            let terms = self.a.values[row * k..][..k].iter().zip(&self.b.values[col * k..][..k]);
            let (mut sum, mut magnitude) = (0.0, 0.0);
            for (x, y) in terms {
                sum += x * y;
                magnitude += (x * y).abs();
            }
            let mut most = bound * magnitude;
            if store == Store::Accumulate {
                most += if is_real() { rounding * sum.abs() } else { 0.0 };
                sum += self.element(&self.before, at);
            }
            let found = self.element(after, at);
            most += rounding * sum.abs();
            let off = (found - sum).abs();
            assert!(
                off <= most,
                "{}: d[{row},{col}] is {found}, not {sum}: off by {off}, of {most}",
                self.product
            );
        }
    }
}
