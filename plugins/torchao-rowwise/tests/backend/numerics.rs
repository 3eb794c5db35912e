//! How good the results are, and what happens to numbers at the edge.

use fp8flow_sdk::kernels::{Elements, ElementsMut, Fp8, bf16};
use fp8flow_sdk::{Backend, Pass, Quantize, ScaleAxis, ScaledGemm, TensorMut, TensorRef};
use fp8flow_testkit::{Activations, Layers, Reference, Values, normal, snr_db};
use torchao_rowwise::TorchaoRowwise;

use crate::common::{RECIPES, here, layer, quantize, recipe};

/// `y`, `dx` and `dW` of one micro-batch as f32, with their reference.
struct Products {
    y: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
    exact: Reference,
}

fn products(name: &str, x: &Values, weight: &[f32], dy: &Values) -> Products {
    let mut layers = Layers::new(recipe(name), x.cols(), vec![weight.to_vec()]).unwrap();
    let (y, saved) = layers.forward(Pass::Train, x).unwrap();
    let gradients = layers.gradients(0, &saved, x, dy).unwrap();
    let exact = Reference::new(&x.to_f32(), weight, &dy.to_f32(), x.cols());
    Products { y: y[0].to_f32(), dx: gradients.dx.unwrap().to_f32(), dw: gradients.dw, exact }
}

/// What torchao measures on normal data (dB): an e4m3 pair, an e4m3 with an e5m2, high precision.
const E4M3: (f64, f64) = (28.5, 0.7);
const E5M2: (f64, f64) = (24.6, 0.7);
const HIGH: (f64, f64) = (55.6, 1.5);

#[test]
fn noise_is_that_of_the_formats_and_no_more() {
    let (m, k, n) = (192, 256, 320);
    let x = Values::normal(Activations::Bf16, m, k, 1.0, 11);
    let dy = Values::normal(Activations::Bf16, m, n, 1e-3, 13);
    // bf16 weights, as in the measurement the bands come from.
    let weight = Values::normal(Activations::Bf16, n, k, 0.02, 12).to_f32();
    for (name, bands) in [
        ("rowwise", [E4M3, E4M3, E4M3]),
        ("tensorwise", [E4M3, E5M2, E5M2]),
        ("rowwise_with_gw_hp", [E4M3, E4M3, HIGH]),
    ] {
        let Products { y, dx, dw, exact } = products(name, &x, &weight, &dy);
        // torchao rounds dW to bf16; the band for high precision is that rounding's.
        let dw: Vec<_> = dw.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
        let found = [snr_db(&exact.y, &y), snr_db(&exact.dx, &dx), snr_db(&exact.dw, &dw)];
        println!("{name}: y {:.2} dB, dx {:.2} dB, dW {:.2} dB", found[0], found[1], found[2]);
        for ((product, found), (expected, band)) in ["y", "dx", "dW"].iter().zip(found).zip(bands) {
            assert!(
                (found - expected).abs() <= band,
                "{name}: {product}: {found:.2} dB, expected {expected} ± {band}"
            );
        }
    }
}

/// `down(silu(up(x)))` and every gradient of it, one layer's noise on top of the other's: torchao's own floor is 20 dB.
#[test]
fn a_feed_forward_network_stays_above_twenty_decibels() {
    let (m, k, h) = (96, 128, 384);
    let x = Values::normal(Activations::Bf16, m, k, 1.0, 21);
    let dy = Values::normal(Activations::Bf16, m, k, 1e-3, 22);
    let (up, down) = (normal(h * k, 0.09, 23), normal(k * h, 0.05, 24));
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let silu = |x: f64| x * sigmoid(x);
    let slope = |x: f64| sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)));
    let bf16 = |cols, numbers: &[f64]| {
        Values::new(Activations::Bf16, m, cols, &numbers.iter().map(|&x| x as f32).collect::<Vec<_>>())
    };
    let each = |x: &[f32], f: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
        x.iter().enumerate().map(|(i, &x)| f(i, f64::from(x))).collect()
    };
    for name in RECIPES {
        let mut first = Layers::new(recipe(name), k, vec![up.clone()]).unwrap();
        let mut second = Layers::new(recipe(name), h, vec![down.clone()]).unwrap();
        let (hidden, saved_first) = first.forward(Pass::Train, &x).unwrap();
        let hidden = hidden[0].to_f32();
        let active = bf16(h, &each(&hidden, &|_, x| silu(x)));
        let (y, saved_second) = second.forward(Pass::Train, &active).unwrap();
        let of_second = second.gradients(0, &saved_second, &active, &dy).unwrap();
        let d_active = of_second.dx.unwrap().to_f32();
        let d_hidden = bf16(h, &each(&hidden, &|i, x| slope(x) * f64::from(d_active[i])));
        let of_first = first.gradients(0, &saved_first, &x, &d_hidden).unwrap();

        // The same in f64, with nothing rounded but what both start from.
        let product = |a: &[f64], b: &[f64], rows: usize, cols: usize, depth: usize| -> Vec<f64> {
            let at = |i: usize, j: usize| (0..depth).map(|l| a[i * depth + l] * b[j * depth + l]).sum();
            (0..rows * cols).map(|ij| at(ij / cols, ij % cols)).collect()
        };
        let turned = |a: &[f64], rows: usize, cols: usize| -> Vec<f64> {
            (0..rows * cols).map(|ij| a[ij % rows * cols + ij / rows]).collect()
        };
        let exact = |x: &[f32]| each(x, &|_, x| x);
        let (xs, dys, up, down) = (exact(&x.to_f32()), exact(&dy.to_f32()), exact(&up), exact(&down));
        let hidden = product(&xs, &up, m, h, k);
        let active: Vec<f64> = hidden.iter().map(|&x| silu(x)).collect();
        let d_active = product(&dys, &turned(&down, k, h), m, h, k);
        let d_hidden: Vec<f64> = hidden.iter().zip(&d_active).map(|(&x, d)| slope(x) * d).collect();
        for (what, expected, found) in [
            ("y", product(&active, &down, m, k, h), y[0].to_f32()),
            ("dx", product(&d_hidden, &turned(&up, h, k), m, k, h), of_first.dx.unwrap().to_f32()),
            ("dW down", product(&turned(&dys, m, k), &turned(&active, m, h), k, h, m), of_second.dw),
            ("dW up", product(&turned(&d_hidden, m, h), &turned(&xs, m, k), h, k, m), of_first.dw),
        ] {
            let db = snr_db(&expected, &found);
            println!("{name}: {what} {db:.1} dB");
            assert!(db > 20.0, "{name}: {what} at {db:.1} dB");
        }
    }
}

#[test]
fn a_weight_gradient_in_high_precision_is_not_rounded_to_bf16() {
    let x = Values::normal(Activations::Bf16, 64, 64, 1.0, 11);
    let dy = Values::normal(Activations::Bf16, 64, 64, 1e-3, 13);
    let found = products("rowwise_with_gw_hp", &x, &normal(64 * 64, 0.02, 12), &dy);
    assert!(snr_db(&found.exact.dw, &found.dw) > 120.0);
}

/// `rows × cols` normal numbers whose rows (or columns) are scaled by powers of two from 2⁻²⁰ to 2²⁰.
fn spread(rows: usize, cols: usize, by_row: bool, seed: u64) -> Values {
    let mut numbers = normal(rows * cols, 1.0, seed);
    for (i, x) in numbers.iter_mut().enumerate() {
        let (at, of) = if by_row { (i / cols, rows) } else { (i % cols, cols) };
        *x *= ((at * 40 / (of - 1)) as f32 - 20.0).exp2();
    }
    Values::new(Activations::Bf16, rows, cols, &numbers)
}

/// The mean over rows of a row's signal-to-noise ratio, capped at 0 dB from below, and the worst row's.
fn by_rows(exact: &[f64], found: &[f32], cols: usize) -> (f64, f64) {
    let rows: Vec<_> =
        exact.chunks(cols).zip(found.chunks(cols)).map(|(exact, found)| snr_db(exact, found)).collect();
    (rows.iter().sum::<f64>() / rows.len() as f64, rows.iter().copied().fold(f64::INFINITY, f64::min))
}

#[test]
fn rows_of_any_magnitude_keep_their_precision_where_scales_are_by_row() {
    let (m, k, n) = (96, 256, 128);
    let weight = normal(n * k, 0.02, 3);
    let plain = (spread(m, k, true, 1), spread(m, n, true, 2));
    // Contracted over tokens, a row of dW belongs to a column of dy.
    let across = (Values::normal(Activations::Bf16, m, k, 1.0, 1), spread(m, n, false, 2));
    for (name, survives) in [("rowwise", true), ("rowwise_with_gw_hp", true), ("tensorwise", false)] {
        let found = products(name, &plain.0, &weight, &plain.1);
        let turned = products(name, &across.0, &weight, &across.1);
        let mut measured =
            vec![("y", by_rows(&found.exact.y, &found.y, n)), ("dx", by_rows(&found.exact.dx, &found.dx, k))];
        if name != "rowwise_with_gw_hp" {
            measured.push(("dW", by_rows(&turned.exact.dw, &turned.dw, k)));
        }
        for (product, (mean, worst)) in measured {
            if survives {
                assert!((mean - E4M3.0).abs() < 1.0, "{name}: {product}: mean {mean:.2} dB");
            } else {
                assert!(mean < 22.0 && worst < 3.0, "{name}: {product}: mean {mean:.2}, worst {worst:.2} dB");
            }
        }
    }
}

#[test]
fn special_values_by_row() {
    const COLS: usize = 16;
    // First element, the scale's bits, the first code, whether its row of the output is NaN.
    let rows: [(f32, u32, u8, bool); 7] = [
        (0.0, 2.0_f32.powi(48).to_bits(), 0x00, false),
        (1e-13, 2.0_f32.powi(48).to_bits(), 0x5e, false),
        (f32::NAN, f32::NAN.to_bits(), 0x7f, true),
        (f32::INFINITY, 0, 0x7f, true),
        (3.3e38, 2.0_f32.powi(-120).to_bits(), 0x78, false),
        (448.0, 1.0_f32.to_bits(), 0x7e, false),
        (-1.0, 256.0_f32.to_bits(), 0xf8, false),
    ];
    let mut numbers = vec![0.0; rows.len() * COLS];
    for (row, (first, ..)) in rows.iter().enumerate() {
        numbers[row * COLS] = *first;
    }
    let x = TensorRef::new(Elements::F32(&numbers), &[rows.len(), COLS]);
    let (codes, scales) = quantize(x, Fp8::E4m3, ScaleAxis::Row, true);
    for (row, &(first, scale, code, nan)) in rows.iter().enumerate() {
        let found = f32::from_bits(scales[row]);
        assert!(
            scales[row] == scale || f32::from_bits(scale).is_nan() && found.is_nan(),
            "{first:e}: {found:e}"
        );
        let found = codes[row * COLS] as u8;
        assert!(found == code || nan && found & 0x7f == 0x7f, "{first:e}: code {found:#04x}");
        let rest = if first.is_nan() { 0x7f } else { 0x00 };
        assert!(codes[row * COLS + 1..][..COLS - 1].iter().all(|&code| code & 0x7f == rest), "{first:e}");
    }

    let weight = normal(32 * COLS, 0.02, 5);
    let mut layers = Layers::new(recipe("rowwise"), COLS, vec![weight]).unwrap();
    let (y, _) =
        layers.forward(Pass::Eval, &Values::new(Activations::F32, rows.len(), COLS, &numbers)).unwrap();
    for (row, &(first, .., nan)) in y[0].to_f32().chunks(32).zip(&rows) {
        assert!(row.iter().all(|y| y.is_nan() == nan), "{first:e}: {row:?}");
        assert!(first != 0.0 || row.iter().all(|&y| y == 0.0));
    }
    assert_eq!(layers.counters(0).non_finite, [2, 0, 0], "counted without telemetry");
}

#[test]
fn scales_of_anything_but_numbers_are_counted_where_they_are_made() {
    for name in RECIPES {
        let mut layers = layer(name, 16, 16);
        let mut numbers = normal(16 * 16, 1.0, 1);
        numbers[5] = f32::INFINITY;
        let x = Values::new(Activations::Bf16, 16, 16, &numbers);
        let (_, saved) = layers.forward(Pass::Train, &x).unwrap();
        let counted = layers.counters(0).non_finite;
        assert_eq!(
            counted,
            if name == "rowwise" { [2, 0, 0] } else { [1, 0, 0] },
            "{name}: one row, one column"
        );
        layers.gradients(0, &saved, &x, &x).unwrap();
        let more = layers.counters(0).non_finite[2];
        assert_eq!(more, if name == "rowwise" { 2 } else { 1 }, "{name}");
        layers.weight_mut(0)[7] = f32::NAN;
        layers.on(fp8flow_sdk::Event::WeightsChanged).unwrap();
        layers.forward(Pass::Eval, &x).unwrap();
        assert_eq!(layers.counters(0).non_finite[1], 1, "{name}");
    }
}

#[test]
fn the_maximum_lands_in_the_upper_half_of_the_range_for_every_bf16() {
    let numbers: Vec<_> = (0..0x7f80).map(|bits| bf16::from_bits(bits).to_f32()).collect();
    for (format, largest) in [(Fp8::E4m3, 448.0), (Fp8::E5m2, 57344.0)] {
        let x = TensorRef::new(Elements::F32(&numbers), &[numbers.len(), 1]);
        let (_, scales) = quantize(x, format, ScaleAxis::Row, true);
        for (&amax, scale) in numbers.iter().zip(scales) {
            let scale = f32::from_bits(scale);
            assert_eq!(scale.to_bits() & 0x007f_ffff, 0, "{amax:e}: {scale:e} is no power of two");
            let scaled = f64::from(amax.max(1e-12)) * f64::from(scale);
            assert!(scaled > largest / 2.0 && scaled <= largest, "{amax:e} · {scale:e}");
        }
    }
}

#[test]
fn what_is_kept_for_wgrad_is_the_cast_by_column() {
    let (m, k) = (17, 32);
    let x = Values::normal(Activations::Bf16, m, k, 1.0, 1);
    let (_, saved) = layer("rowwise", 48, k).forward(Pass::Train, &x).unwrap();
    let (codes, scales) = quantize(x.tensor(), Fp8::E4m3, ScaleAxis::Col, true);
    let region = saved.group.bytes();
    let kept: Vec<_> = region[..m * k].iter().map(|&code| u32::from(code)).collect();
    assert_eq!(kept, codes);
    let factors = region[(m * k).next_multiple_of(64)..][..4 * k].chunks(4);
    for (factor, scale) in factors.zip(scales) {
        let factor = f32::from_le_bytes(factor.try_into().unwrap());
        assert_eq!(factor, 1.0 / f32::from_bits(scale));
    }
}

/// `a·bᵀ` in bf16 with these scales, through the primitives.
fn scaled_gemm(a: &[u8], scale_a: &[f32], b: &[u8], scale_b: &[f32], k: usize) -> Vec<f32> {
    let (rows, cols) = (a.len() / k, b.len() / k);
    let mut out = vec![bf16::NAN; rows * cols];
    let host = here();
    let kernels = TorchaoRowwise::start(&host).unwrap().kernels(&host).unwrap();
    kernels
        .scaled_gemm(ScaledGemm {
            a: TensorRef::new(Elements::E4m3(a), &[rows, k]),
            transpose_a: false,
            scale_a: TensorRef::new(Elements::F32(scale_a), &[scale_a.len()]),
            b: TensorRef::new(Elements::E4m3(b), &[cols, k]),
            transpose_b: false,
            scale_b: TensorRef::new(Elements::F32(scale_b), &[scale_b.len()]),
            out: TensorMut::new(ElementsMut::Bf16(&mut out), &[rows, cols]),
            accumulate: false,
        })
        .unwrap();
    out.into_iter().map(bf16::to_f32).collect()
}

#[test]
fn scales_in_the_epilogue_equal_rounding_first_for_powers_of_two_only() {
    let (m, n, k) = (32, 48, 64);
    let (a, b) = (spread(m, k, true, 1), spread(n, k, true, 2));
    for power_of_two in [true, false] {
        let cast = |x: &Values| {
            let (codes, scales) = quantize(x.tensor(), Fp8::E4m3, ScaleAxis::Row, power_of_two);
            let codes: Vec<_> = codes.into_iter().map(|code| code as u8).collect();
            (codes, scales.into_iter().map(f32::from_bits).collect::<Vec<_>>())
        };
        let ((a, scale_a), (b, scale_b)) = (cast(&a), cast(&b));
        let fused = scaled_gemm(&a, &scale_a, &b, &scale_b, k);
        let rounded = scaled_gemm(&a, &[1.0], &b, &[1.0], k);
        let differing = fused
            .iter()
            .zip(&rounded)
            .enumerate()
            .filter(|&(i, (fused, rounded))| {
                let undo = (1.0 / scale_a[i / n]) * (1.0 / scale_b[i % n]);
                bf16::from_f32(rounded * undo).to_f32().to_bits() != fused.to_bits()
            })
            .count();
        if power_of_two {
            assert_eq!(differing, 0);
        } else {
            assert!(differing > m * n / 10, "{differing}: the comparison sees a second rounding");
        }
    }
}

#[test]
fn primitives_refuse_what_does_not_fit() {
    let host = here();
    let kernels = TorchaoRowwise::start(&host).unwrap().kernels(&host).unwrap();
    let numbers = normal(16 * 32, 1.0, 1);
    let x = TensorRef::new(Elements::F32(&numbers), &[16, 32]);
    let refused = |codes: usize, format: Fp8, scales: usize| {
        let (mut codes, mut scales) = (vec![0; codes], vec![0.0; scales]);
        let shapes = [codes.len(), scales.len()];
        kernels
            .quantize(Quantize {
                x,
                format: Fp8::E4m3,
                axis: ScaleAxis::Row,
                power_of_two: true,
                codes: TensorMut::codes(&mut codes, format, &shapes[..1]),
                scales: TensorMut::new(ElementsMut::F32(&mut scales), &shapes[1..]),
            })
            .unwrap_err()
            .message
    };
    assert_eq!(refused(16 * 31, Fp8::E4m3, 16), "codes: expected 512, found 496");
    assert_eq!(refused(16 * 32, Fp8::E5m2, 16), "codes: expected e4m3, found e5m2");
    assert_eq!(refused(16 * 32, Fp8::E4m3, 32), "scales: expected 16, found 32");
}
