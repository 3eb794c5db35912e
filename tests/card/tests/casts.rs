//! Casts on the card have the codes, scales and counts of the CPU's, bit for bit.

#![allow(clippy::unwrap_used, reason = "a card that fails fails the test")]

mod casts {
    pub(crate) mod checked;
    pub(crate) mod values;
}

use std::collections::HashSet;

use casts::checked::{Case, Checked, FORMATS, Wanted};
use casts::values::{Values, specials};
use fp8flow_card_tests::card;
use fp8flow_cuda::Memory;
use fp8flow_cuda::cast::{self, Counters, Element, Face, Granularity, Input, Scale, Target, Zeros};
use fp8flow_kernels::Fp8;
use fp8flow_kernels::scale::ScaleRule;

const GRANULARITIES: [Granularity; 6] = [
    Granularity::Tensor,
    Granularity::Row,
    Granularity::Col,
    Granularity::RowBlocks,
    Granularity::ColBlocks,
    Granularity::Squares,
];

const ELEMENTS: [Element; 2] = [Element::Bf16, Element::F32];

#[test]
fn every_rule_and_format_has_the_bits_of_the_cpu() {
    let Some(card) = card() else { return };
    let [rows, cols] = [65, 144];
    for values in Values::ALL {
        for element in ELEMENTS {
            let checked = Checked::new(&card, values, element, rows, cols);
            for rule in ScaleRule::ALL {
                for format in FORMATS {
                    for granularity in GRANULARITIES {
                        checked.cast(&[Wanted::all(format, granularity, Some(rule))], Case::Counted);
                    }
                    checked.cast(&[Wanted::all(format, Granularity::Tensor, None)], Case::Counted);
                }
            }
        }
    }
}

#[test]
fn any_number_of_tokens_is_padded_with_zeros() {
    let Some(card) = card() else { return };
    let (values, rule) = (Values::Special, Some(ScaleRule::Linear));
    for rows in [1, 15, 16, 17, 63, 64, 127, 128, 129, 200, 513] {
        for (cols, element) in [(16, Element::Bf16), (256, Element::Bf16), (48, Element::F32)] {
            let checked = Checked::new(&card, values, element, rows, cols);
            for granularity in GRANULARITIES {
                checked.cast(&[Wanted::all(Fp8::E4m3, granularity, rule)], Case::Counted);
            }
            checked.cast(&[Wanted::all(Fp8::E5m2, Granularity::Tensor, None)], Case::Counted);
        }
    }
}

#[test]
fn wide_rows_are_read_again() {
    let Some(card) = card() else { return };
    for (rows, cols, element) in [
        (3, 4096, Element::F32),
        (2, 4112, Element::Bf16),
        (1, 33_792, Element::Bf16),
        (2, 8208, Element::F32),
        (1, 16_400, Element::F32),
    ] {
        let checked = Checked::new(&card, Values::Normal, element, rows, cols);
        for granularity in [Granularity::Row, Granularity::Col, Granularity::Tensor] {
            checked
                .cast(&[Wanted::all(Fp8::E4m3, granularity, Some(ScaleRule::FiniteLinear))], Case::Counted);
        }
    }
}

#[test]
fn two_casts_of_a_matrix_are_those_of_each() {
    use Granularity::{Col, ColBlocks, Row, RowBlocks, Tensor};
    let Some(card) = card() else { return };
    let (linear, finite) = (Some(ScaleRule::Linear), Some(ScaleRule::FinitePowerOfTwo));
    for (values, element) in [
        (Values::Normal, Element::Bf16),
        (Values::Special, Element::Bf16),
        (Values::Special, Element::F32),
        (Values::Wild, Element::F32),
    ] {
        let checked = Checked::new(&card, values, element, 200, 272);
        for ([first, second], rules) in [
            ([Row, Col], [linear, linear]),
            ([Col, Row], [finite, finite]),
            ([Row, Col], [linear, finite]),
            ([RowBlocks, ColBlocks], [finite, finite]),
            ([ColBlocks, RowBlocks], [linear, linear]),
            ([RowBlocks, ColBlocks], [finite, linear]),
            ([Tensor, Row], [None, linear]),
        ] {
            for formats in [[Fp8::E4m3, Fp8::E4m3], [Fp8::E4m3, Fp8::E5m2]] {
                let wanted =
                    [Wanted::all(formats[0], first, rules[0]), Wanted::all(formats[1], second, rules[1])];
                checked.cast(&wanted, Case::Counted);
            }
        }
        let alike = [Row, Col].map(|granularity| Wanted::all(Fp8::E5m2, granularity, linear));
        checked.cast(&alike, Case::Uncounted);
    }
}

#[test]
fn a_layout_that_is_not_wanted_is_not_written_and_not_counted_twice() {
    let Some(card) = card() else { return };
    let checked = Checked::new(&card, Values::Special, Element::Bf16, 130, 144);
    for granularity in [Granularity::Tensor, Granularity::Squares] {
        let both = Wanted::all(Fp8::E4m3, granularity, Some(ScaleRule::FiniteLinear));
        checked.cast(&[Wanted { turned: false, ..both }], Case::Counted);
        checked.cast(&[Wanted { rows: false, ..both }], Case::Counted);
    }
    let given = Wanted::all(Fp8::E5m2, Granularity::Tensor, None);
    checked.cast(&[Wanted { rows: false, ..given }], Case::Counted);
}

#[test]
fn scales_that_came_from_an_infinity_or_a_nan_are_counted_unasked_other_losses_are_not() {
    let Some(card) = card() else { return };
    for element in ELEMENTS {
        let checked = Checked::new(&card, Values::Special, element, 130, 144);
        for granularity in GRANULARITIES {
            for rule in ScaleRule::ALL {
                checked.cast(&[Wanted::all(Fp8::E4m3, granularity, Some(rule))], Case::Uncounted);
            }
        }
        checked.cast(&[Wanted::all(Fp8::E4m3, Granularity::Tensor, None)], Case::Uncounted);
    }
}

#[test]
fn a_matrix_without_rows_is_left_alone() {
    let Some(card) = card() else { return };
    let checked = Checked::new(&card, Values::Normal, Element::Bf16, 0, 64);
    checked.cast(&[Wanted::all(Fp8::E4m3, Granularity::Row, Some(ScaleRule::Linear))], Case::Counted);
}

#[test]
fn maxima_pass_over_nans() {
    let Some(card) = card() else { return };
    for values in Values::ALL {
        for element in ELEMENTS {
            for [rows, cols] in [[1, 16], [3, 48], [200, 144], [513, 64]] {
                Checked::new(&card, values, element, rows, cols).amax();
            }
        }
    }
}

#[test]
fn scales_are_the_rules_for_any_maximum() {
    const COLS: usize = 16;
    let Some(card) = card() else { return };
    let dense = (0..6000_u32).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9) & 0x7fff_ffff));
    let maxima: Vec<f32> = specials().into_iter().map(f32::abs).chain(dense).collect();
    let rows = maxima.len();
    let matrix: Vec<u8> = maxima.iter().flat_map(|x| [x.to_le_bytes(); COLS]).flatten().collect();
    let sizes = [matrix.len(), cast::codes(rows, COLS), 4 * rows, Counters::BYTES];
    let [elements, codes, factors, counters] = sizes.map(|bytes| card.take(bytes).unwrap());
    elements.write(0, &matrix).unwrap();
    let input = Input { address: elements.address(), element: Element::F32, rows, cols: COLS };
    for rule in ScaleRule::ALL {
        for format in FORMATS {
            let face = Face { codes: codes.address(), factors: factors.address() };
            let scale = Scale::Current { rule, space: 0 };
            let granularity = Granularity::Row;
            let target = Target { format, granularity, scale, rows: Some(face), turned: None };
            // SAFETY: memory of the sizes that the docs of a cast ask for.
            #[allow(unsafe_code)]
            unsafe {
                cast::cast(&card, &input, [Some(&target), None], counters.address(), false).unwrap();
            }
            let found = casts::checked::floats(&factors, 0, rows);
            for (amax, found) in maxima.iter().zip(found) {
                let expected = 1.0 / rule.scale(*amax, format);
                let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
                assert!(same, "{rule:?} {format:?} of {amax:e}: {found:e}, not {expected:e}");
            }
        }
    }
}

#[test]
fn what_no_product_could_read_is_refused_with_the_reason() {
    let Some(card) = card() else { return };
    let input = Input { address: 256, element: Element::Bf16, rows: 16, cols: 32 };
    let face = Some(Face { codes: 512, factors: 1024 });
    let target = |granularity| Target {
        format: Fp8::E4m3,
        granularity,
        scale: Scale::Current { rule: ScaleRule::Linear, space: 2048 },
        rows: None,
        turned: None,
    };
    let says = |input: &Input, target: &Target| {
        // SAFETY: what is refused is refused before anything is asked of the card.
        #[allow(unsafe_code)]
        let refused = unsafe { cast::cast(&card, input, [Some(target), None], 4096, false) };
        refused.unwrap_err().to_string()
    };
    let rows = Target { rows: face, ..target(Granularity::Row) };
    assert!(says(&Input { cols: 40, ..input }, &rows).contains("40 columns are no multiple of 16"));
    assert!(says(&Input { address: 258, ..input }, &rows).contains("elements lie at 0x102"));
    let turned = Target { turned: face, ..target(Granularity::Row) };
    assert!(says(&input, &turned).contains("a scale a row cannot be undone after a sum over rows"));
    let given = Target { scale: Scale::Given { scale: 4.0, amax: 8 }, ..rows };
    assert!(says(&input, &given).contains("is never given"));
    let crooked = Face { codes: 512, factors: 1028 };
    let blocks = Target { rows: Some(crooked), ..target(Granularity::RowBlocks) };
    assert!(says(&input, &blocks).contains("factors lie at 0x404, no multiple of 16"));
    assert_eq!(Granularity::blocks(1, 128), Some(Granularity::RowBlocks));
    assert_eq!(Granularity::blocks(32, 32), None);
}

#[test]
fn zeros_are_zeros_however_often_they_were_used() {
    let Some(card) = card() else { return };
    let zeros = Zeros::default();
    assert_eq!(zeros.take(&card, 0).unwrap(), 0);
    let (mut places, mut again) = (HashSet::new(), 0);
    for bytes in [4, 300_000, 90_112].into_iter().cycle().take(60).chain([5_000_000, 4_000_000, 4]) {
        let address = zeros.take(&card, bytes).unwrap();
        assert!(address.is_multiple_of(256));
        again += usize::from(!places.insert(address));
        // SAFETY: they are used before the next are taken.
        #[allow(unsafe_code)]
        let taken = unsafe { Memory::lent(&card, address, bytes) };
        let mut found = vec![0xAA; bytes];
        taken.read(0, &mut found).unwrap();
        assert!(found.iter().all(|byte| *byte == 0), "{bytes} bytes");
        taken.fill(0, bytes, 0xFF).unwrap();
    }
    assert!(again > 0, "none lay where others had lain");
}
