//! Products on a card against sums in f64, every format, factor, order and way of storing; plans that are kept.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod case;

use case::{Case, FP8, bound};
use fp8flow_card_tests::{ada, card, hoppers_with_less};
use fp8flow_cuda::gemm::{Addresses, Factors, Format, Gemm, Operand, Output, Product, Way, way};
use fp8flow_cuda::{Architecture, Card};
use fp8flow_kernels::{Fp8, Store};

const E4M3: Format = Format::Fp8(Fp8::E4m3);
const E5M2: Format = Format::Fp8(Fp8::E5m2);
const OUTPUTS: [Output; 2] = [Output::Bf16, Output::F32];
const STORES: [Store; 2] = [Store::Overwrite, Store::Accumulate];

fn products(card: &Card) -> Gemm {
    Gemm::keeping(card, None).unwrap()
}

/// Every product of `operands` in both results, both ways of storing and both of summing.
fn every(shape: [usize; 3], a: Operand, b: Operand) -> Vec<Product> {
    let [_, n, _] = shape;
    let mut all = Vec::new();
    for output in OUTPUTS {
        for store in STORES {
            let product = Product { store, ..Product::new(shape, a, b, output) }.into_rows(n + 16);
            all.extend([product, product.fast()]);
        }
    }
    all
}

#[test]
fn fp8_products_have_the_values_of_their_codes_and_factors() {
    let Some(card) = card() else { return };
    let gemm = products(&card);
    let mut seen = 0;
    for (a, b) in FP8 {
        for factors in [
            [Factors::One, Factors::One],
            [Factors::One, Factors::Tensor],
            [Factors::Tensor, Factors::Tensor],
            [Factors::PerRow, Factors::PerRow],
            [Factors::Block1x128, Factors::Block1x128],
            [Factors::Block1x128, Factors::Block128x128],
            [Factors::Block128x128, Factors::Block1x128],
        ] {
            let [fa, fb] = factors;
            let (a, b) = (Operand::rows(a, 288).times(fa), Operand::rows(b, 304).times(fb));
            for product in every([52, 144, 272], a, b) {
                if way(&product, card.properties().architecture).is_err() {
                    continue;
                }
                let case = Case::new(&card, &product);
                let plan = gemm.plan(&product).unwrap();
                case.check(&case.run(&plan), bound(&product));
                seen += 1;
            }
        }
    }
    println!("{seen} products");
    assert!(seen >= 3 * 3 * 8);
}

#[test]
fn a_product_of_any_number_of_tokens_is_taken() {
    let Some(card) = card() else { return };
    let gemm = products(&card);
    for m in [1, 15, 17, 129] {
        for factors in [Factors::Tensor, Factors::PerRow] {
            let operand = Operand::rows(E4M3, 64).times(factors);
            let product = Product::new([m, 32, 64], operand, operand, Output::Bf16);
            let case = Case::new(&card, &product);
            case.check(&case.run(&gemm.plan(&product).unwrap()), bound(&product));
        }
    }
    let operand = Operand::rows(E4M3, 64).times(Factors::Tensor);
    let none = Product::new([0, 32, 64], operand, operand, Output::Bf16);
    let nowhere = Addresses { a: 0, b: 0, d: 0, factor_a: None, factor_b: None };
    // SAFETY: nothing is read or written.
    #[allow(unsafe_code)]
    unsafe {
        gemm.plan(&none).unwrap().run(&nowhere).unwrap();
    }
}

#[test]
fn other_products_take_operands_in_either_order() {
    let Some(card) = card() else { return };
    let gemm = products(&card);
    let [m, n, k] = [33, 47, 61];
    for (format, outputs) in [(Format::Bf16, &OUTPUTS[..]), (Format::F32, &OUTPUTS[1..])] {
        for a in [Operand::rows(format, k + 3), Operand::transposed(format, m + 2)] {
            for b in [Operand::rows(format, k), Operand::transposed(format, n + 1)] {
                for &output in outputs {
                    for store in STORES {
                        let product = Product { store, ..Product::new([m, n, k], a, b, output) };
                        let case = Case::new(&card, &product);
                        case.check(&case.run(&gemm.plan(&product).unwrap()), bound(&product));
                    }
                }
            }
        }
    }
}

#[test]
fn the_kernel_of_ada_has_the_values_of_its_codes_and_factors() {
    let Some(card) = card() else { return };
    let gemm = products(&card);
    for (a, b) in FP8 {
        let [a, b] = [a, b].map(|format| Operand::rows(format, 160).times(Factors::PerRow));
        for product in every([130, 144, 144], a, b) {
            assert_eq!(way(&product, Architecture::Ada).unwrap(), Way::Rowwise);
            let case = Case::new(&card, &product);
            case.check(&case.run(&gemm.plan_as_on_ada(&product).unwrap()), bound(&product));
        }
    }
}

#[test]
fn the_kernel_of_ada_takes_every_shape_within_the_rules() {
    let Some(card) = card() else { return };
    let gemm = products(&card);
    let shapes = [
        [1, 16, 16],
        [128, 128, 64],
        [127, 128, 128],
        [129, 112, 192],
        [16, 272, 48],
        // Ten tiles down: a whole band and the start of the next.
        [1153, 144, 16],
    ];
    for [m, n, k] in shapes {
        let operand = Operand::rows(E4M3, k).times(Factors::PerRow);
        let product = Product::new([m, n, k], operand, operand, Output::F32);
        for product in [product, product.fast()] {
            let case = Case::new(&card, &product);
            case.check(&case.run(&gemm.plan_as_on_ada(&product).unwrap()), bound(&product));
        }
    }
}

#[test]
fn an_ada_takes_a_factor_a_row_by_the_kernel_and_no_blocks() {
    let Some(card) = ada() else { return };
    let gemm = products(&card);
    for factors in [Factors::PerRow, Factors::Tensor] {
        let operand = Operand::rows(E4M3, 96).times(factors);
        let product = Product::new([40, 32, 96], operand, operand, Output::Bf16);
        let plan = gemm.plan(&product).unwrap();
        assert_eq!(plan.algorithm().is_some(), factors == Factors::Tensor);
        let case = Case::new(&card, &product);
        case.check(&case.run(&plan), bound(&product));
    }
    let operand = Operand::rows(E4M3, 256).times(Factors::Block1x128);
    let error = gemm.plan(&Product::new([32, 32, 256], operand, operand, Output::Bf16)).unwrap_err();
    assert!(error.to_string().contains("need Hopper"), "{error}");
}

#[test]
fn a_product_that_cublaslt_does_not_take_goes_to_the_kernel_where_there_is_one() {
    let Some([old, adding_no_rows]) = hoppers_with_less() else { return };
    let gemm = products(&old);
    for factors in [Factors::PerRow, Factors::Tensor] {
        let operand = Operand::rows(E4M3, 96).times(factors);
        for product in every([40, 32, 96], operand, operand) {
            assert_eq!(way(&product, old.properties().architecture).unwrap(), Way::Lt);
            let plan = gemm.plan(&product).unwrap();
            assert_eq!(plan.algorithm().is_some(), factors == Factors::Tensor);
            let case = Case::new(&old, &product);
            case.check(&case.run(&plan), bound(&product));
        }
    }
    let operand = Operand::rows(E4M3, 256).times(Factors::Block1x128);
    let error = gemm.plan(&Product::new([32, 32, 256], operand, operand, Output::Bf16)).unwrap_err();
    assert!(error.to_string().contains("SCALE_MODE"), "{error}");

    let gemm = products(&adding_no_rows);
    let operand = Operand::rows(E4M3, 96).times(Factors::PerRow);
    for product in every([40, 32, 96], operand, operand) {
        let plan = gemm.plan(&product).unwrap();
        assert!(plan.algorithm().is_some());
        let case = Case::new(&adding_no_rows, &product);
        // SAFETY: the case's own memory.
        #[allow(unsafe_code)]
        let times = unsafe { plan.tune(&case.addresses()) }.unwrap();
        let refused = product.store == Store::Accumulate;
        assert!(times.iter().all(|ms| ms.is_infinite() == refused), "{times:?}");
        for _ in 0..2 {
            case.check(&case.run(&plan), bound(&product));
            assert_eq!(plan.algorithm().is_none(), refused);
        }
    }
}

#[test]
fn a_plan_may_be_the_last_that_holds_a_card() {
    let Some(card) = ada() else { return };
    let operand = Operand::rows(E4M3, 96).times(Factors::PerRow);
    let plan = products(&card).plan(&Product::new([40, 32, 96], operand, operand, Output::Bf16)).unwrap();
    drop(card);
    drop(plan);
}

#[test]
fn exact_sums_leave_the_tensor_core_every_128_of_k() {
    let Some(card) = card() else { return };
    let gemm = products(&card);
    let (m, n, k) = (16, 16, 256);
    // 448² · 128 = 49 · 2^19, next to which 32 products of 2^-6 are lost; 128 of them, added apart, are 2.
    let [large, small] = [448.0, 0.125].map(|x| Fp8::E4m3.encode(x));
    let codes: Vec<u8> = (0..m * k).map(|i| if i % k < 128 { large } else { small }).collect();
    let [a, factors, d] = [m * k, m * 4, m * n * 4].map(|bytes| card.take(bytes).unwrap());
    a.write(0, &codes).unwrap();
    factors.write(0, &1.0_f32.to_le_bytes().repeat(m)).unwrap();
    let factor = Some(factors.address());
    let addresses =
        Addresses { a: a.address(), b: a.address(), d: d.address(), factor_a: factor, factor_b: factor };
    let operand = Operand::rows(E4M3, k).times(Factors::PerRow);
    let product = Product::new([m, n, k], operand, operand, Output::F32);
    for (product, sum) in [(product, 25_690_114.0_f32), (product.fast(), 25_690_112.0)] {
        let plan = gemm.plan_as_on_ada(&product).unwrap();
        let mut found = vec![0; m * n * 4];
        // SAFETY: memory as large as the product says.
        #[allow(unsafe_code)]
        unsafe {
            plan.run(&addresses).unwrap();
        }
        d.read(0, &mut found).unwrap();
        assert_eq!(found, sum.to_le_bytes().repeat(m * n), "{product}");
    }
}

#[test]
fn a_product_has_the_same_bits_again() {
    let Some(card) = card() else { return };
    let gemm = products(&card);
    let operand = Operand::rows(E4M3, 512).times(Factors::PerRow);
    let product = Product::new([96, 80, 512], operand, operand, Output::F32);
    let case = Case::new(&card, &product);
    for plan in [gemm.plan(&product).unwrap(), gemm.plan_as_on_ada(&product).unwrap().into()] {
        assert_eq!(case.run(&plan), case.run(&plan));
    }
}

#[test]
fn a_refusal_comes_before_the_card_is_asked() {
    let Some(card) = card() else { return };
    let gemm = products(&card);
    let operand = Operand::rows(E5M2, 64).times(Factors::Tensor);
    let product = Product::new([32, 32, 64], operand, operand, Output::Bf16);
    let error = gemm.plan(&product).unwrap_err().to_string();
    assert!(error.contains("e5m2 by e5m2"), "{error}");

    let product = Product { a: Operand { format: E4M3, ..operand }, ..product };
    let case = Case::new(&card, &product);
    let plan = gemm.plan(&product).unwrap();
    let good = case.addresses();
    for (wrong, words) in [
        (Addresses { a: good.a + 8, ..good }, "a lies at"),
        (Addresses { factor_b: None, ..good }, "no factors are given for b"),
    ] {
        // SAFETY: it is refused before anything is asked.
        #[allow(unsafe_code)]
        let error = unsafe { plan.run(&wrong) }.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn algorithms_are_kept_recorded_and_asked_for_again_where_they_are_not_taken() {
    let Some(card) = card() else { return };
    let folder = tempfile::tempdir().unwrap();
    let keeping = || Gemm::keeping(&card, Some(folder.path().to_owned())).unwrap();
    let operand = Operand::rows(E4M3, 256).times(Factors::Tensor);
    let product = Product::new([64, 48, 256], operand, operand, Output::Bf16);
    let case = Case::new(&card, &product);

    let gemm = keeping();
    let plan = gemm.plan(&product).unwrap();
    let proposed = plan.algorithm().unwrap();
    // SAFETY: the case's own memory.
    #[allow(unsafe_code)]
    let times = unsafe { plan.tune(&case.addresses()) }.unwrap();
    assert!(!times.is_empty() && times.iter().all(|ms| *ms >= 0.0), "{times:?}");
    let tuned = plan.algorithm().unwrap();
    case.check(&case.run(&plan), bound(&product));

    assert_eq!(keeping().plan(&product).unwrap().algorithm(), Some(tuned));
    assert_eq!(products(&card).plan(&product).unwrap().algorithm(), Some(proposed));

    let record = gemm.describe();
    assert!(record.starts_with("cuBLASLt ") && record.contains(&product.to_string()), "{record}");
    let again = products(&card);
    again.import(&record).unwrap();
    assert_eq!(again.plan(&product).unwrap().algorithm(), Some(tuned));
    assert_eq!(again.describe(), record);

    let (head, _) = record.rsplit_once(": ").unwrap();
    let untaken = format!("{head}: {}", "f".repeat(128));
    again.import(&untaken).unwrap();
    let plan = again.plan(&product).unwrap();
    assert_eq!(plan.algorithm(), Some(proposed));
    case.check(&case.run(&plan), bound(&product));
}
