//! What faults do to codes and results.

use fp8flow_sdk::kernels::{ElementsMut, Fp8, bf16};
use fp8flow_sdk::{Counters, Pass};

#[allow(clippy::wildcard_imports)]
use crate::fault::*;

/// What a fault does to the code of `x`, which is scaled.
pub(crate) fn spoil_code<const FAULT: Fault>(code: &mut u8, x: f32) {
    let decode = |code: u8| Fp8::E4m3.decode(code).abs();
    let is_nan = *code & 0x7f == 0x7f;
    match FAULT {
        // Codes are a sign and a magnitude, neighbours differ by one.
        TRUNCATES if decode(*code) > x.abs() => *code -= 1,
        ROUNDS_TIES_AWAY
            if *code & 0x7f < 0x7e
                && decode(*code) < x.abs()
                && x.abs() * 2.0 == decode(*code) + decode(*code + 1) =>
        {
            *code += 1;
        }
        ROUNDS_TWICE if x.is_finite() => {
            *code = Fp8::E4m3.encode(bf16::from_f32(x).to_f32());
        }
        OVERFLOWS_TO_NAN if x.abs() > Fp8::E4m3.max() => *code = 0x7f,
        LOSES_SUBNORMALS if *code & 0x78 == 0 => *code &= 0x80,
        HIDES_NAN if is_nan => *code = 0,
        _ => {}
    }
}

/// What a fault does to the output, which has `k` terms of `codes` times `weight` in each sum.
pub(crate) fn spoil_output<const FAULT: Fault>(
    out: ElementsMut<'_>,
    [rows, n, k]: [usize; 3],
    [codes, weight]: [&[u8]; 2],
    undo: f32,
) {
    let sum = |i: usize, round: fn(f32) -> f32| {
        let terms = codes[i / n * k..][..k].iter().zip(&weight[i % n * k..][..k]);
        let term = |(&x, &w): (&u8, &u8)| Fp8::E4m3.decode(x) * Fp8::E4m3.decode(w);
        terms.fold(0.0, |sum, pair| round(sum + term(pair))) * undo
    };
    match (FAULT, out) {
        (WRONG_WHERE_NARROW, ElementsMut::F32(out)) if k > n => out.fill(0.0),
        (TRUNCATES_OUTPUTS, ElementsMut::Bf16(out)) => {
            for (i, out) in out.iter_mut().enumerate().take(rows * n) {
                *out = bf16::from_bits((sum(i, |x| x).to_bits() >> 16) as u16);
            }
        }
        (ADDS_IN_BF16, ElementsMut::F32(out)) if k > 1000 => {
            for (i, out) in out.iter_mut().enumerate() {
                *out = sum(i, |x| bf16::from_f32(x).to_f32());
            }
        }
        _ => {}
    }
}

/// How many GEMMs a fault counts for a forward.
pub(crate) fn forwards<const FAULT: Fault>(rows: usize, pass: Pass) -> u64 {
    match FAULT {
        FORGETS_RECOMPUTATIONS if pass == Pass::Recompute => 0,
        COUNTS_WITHOUT_TOKENS => 1,
        _ => u64::from(rows > 0),
    }
}

/// What a fault tells of numbers of `role` that became zero.
pub(crate) fn told<const FAULT: Fault>(role: usize, underflowed: u64) -> u64 {
    match (FAULT, role) {
        (LYING_COUNTER, _) => underflowed / 2,
        (HIDES_LOST_WEIGHTS, 1) | (HIDES_LOST_GRADIENTS, 2) => 0,
        _ => underflowed,
    }
}

/// Counters as a fault tells them.
pub(crate) fn counters<const FAULT: Fault>(counters: Counters, asked_before: bool) -> Counters {
    match FAULT {
        COUNTERS_START_AGAIN if asked_before => Counters::default(),
        STOPS_COUNTING => Counters { wgrad: counters.wgrad.min(50), ..counters },
        _ => counters,
    }
}
