//! What is looked at on the card without being fetched.

use fp8flow_tensor::inspect::{count_bits, elements_at, largest_of_stretches};
use fp8flow_tensor::{DType, Tensor};

use super::{copied, random, setup};

/// A row of `n` numbers with equal magnitudes, zeros of both signs and NaNs among them.
fn numbers(n: usize) -> Tensor {
    let mut x = random(1, DType::F32, 1, n, false);
    for (i, x) in x.f32_mut().iter_mut().enumerate() {
        match i % 37 {
            0 | 5 => *x = f32::NAN,
            1 | 9 | 30 => *x = if i % 2 == 0 { 7.5 } else { -7.5 },
            2 => *x = -0.0,
            _ => {}
        }
    }
    x
}

#[test]
fn what_is_looked_at_on_the_card_is_what_the_cpu_sees() {
    let Some((card, _)) = setup() else { return };
    for n in [1, 2, 64, 1000, 5000] {
        let x = numbers(n);
        let there = copied(&card, &x);
        for bits in [f32::NAN, -0.0, 0.0, 7.5].map(f32::to_bits) {
            assert_eq!(count_bits(&there, bits).unwrap(), count_bits(&x, bits).unwrap(), "{n}: {bits:x}");
        }
        for stretch in [1, 37, 300, n] {
            let places = largest_of_stretches(&x, stretch).unwrap();
            assert_eq!(largest_of_stretches(&there, stretch).unwrap(), places, "{n} by {stretch}");
            let bits = |x: &Tensor| {
                elements_at(x, &places).unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            assert_eq!(bits(&there), bits(&x), "{n} by {stretch}");
        }
    }
}
