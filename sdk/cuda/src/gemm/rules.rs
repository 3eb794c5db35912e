//! What the hardware and cuBLASLt take, checked before either sees it, so that a refusal says what to do.
//!
//! From cuBLAS 12.9's documentation of `cublasLtMatmul` (data types, scaling modes) and PyTorch's checks of the same calls.

use fp8flow_kernels::Fp8;

use super::plan::Addresses;
use super::product::{Factors, Format, Operand, Order, Output, Product};
use crate::{Architecture, Error, Result};

/// Who carries out a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nobody: the result has no elements.
    Nothing,
    /// cuBLASLt.
    Lt,
    /// `gemm_rowwise.cu`.
    Rowwise,
}

/// FP8 reads 16 bytes at a time.
const ALIGNED: usize = 16;

/// Who carries out `product` on `architecture`; an error in words if nobody does.
pub fn way(product: &Product, architecture: Architecture) -> Result<Way> {
    let refuse = |reason: String| Err(Error::Unsupported(format!("no product {product}: {reason}")));
    if let Some(reason) = shapes(product) {
        return refuse(reason);
    }
    if let Some(reason) = formats(product) {
        return refuse(reason);
    }
    let way = match factors(product, architecture) {
        Ok(way) => way,
        Err(reason) => return refuse(reason),
    };
    Ok(if product.m == 0 || product.n == 0 { Way::Nothing } else { way })
}

/// The two operands by name, with their rows.
fn operands(product: &Product) -> [(&'static str, &Operand, usize); 2] {
    [("a", &product.a, product.m), ("b", &product.b, product.n)]
}

fn shapes(product: &Product) -> Option<String> {
    let &Product { m, n, k, stride, .. } = product;
    if k == 0 {
        return Some("a contraction over nothing; fill the result instead".into());
    }
    let strides = [product.a.stride, product.b.stride, stride];
    if [m, n, k].into_iter().chain(strides).any(|size| size > i32::MAX as usize) {
        return Some("a side is longer than 2^31 - 1; cut it into parts".into());
    }
    for (name, operand, rows) in operands(product) {
        let (line, width) = match operand.order {
            Order::Rows => ("k", k),
            Order::Transposed => ("rows", rows),
        };
        if operand.stride < width {
            let stride = operand.stride;
            return Some(format!("lines of {name} are {stride} apart and have {width} elements ({line})"));
        }
    }
    (stride < n).then(|| format!("rows of d are {stride} apart and have {n} elements"))
}

fn formats(product: &Product) -> Option<String> {
    let (a, b) = (product.a.format, product.b.format);
    match (a, b) {
        (Format::Fp8(Fp8::E5m2), Format::Fp8(Fp8::E5m2)) => {
            return Some("e5m2 by e5m2 is not there in hardware; cast a or b to e4m3".into());
        }
        (Format::Fp8(_), Format::Fp8(_)) => return fp8(product),
        (Format::Bf16, Format::Bf16) => {}
        (Format::F32, Format::F32) if product.output == Output::F32 => {}
        (Format::F32, Format::F32) => {
            return Some(
                "f32 operands have an f32 result; convert it afterwards, or cast a and b to bf16".into(),
            );
        }
        _ => {
            let (a, b) = (a.name(), b.name());
            return Some(format!("a is {a} and b is {b}; cast one to the other's format"));
        }
    }
    None
}

fn fp8(product: &Product) -> Option<String> {
    for (name, operand, _) in operands(product) {
        if operand.order == Order::Transposed {
            return Some(format!(
                "{name} lies transposed, and FP8 operands are read along the contraction; let the cast that makes \
                 {name} write its transpose"
            ));
        }
        if !operand.stride.is_multiple_of(ALIGNED) {
            let (stride, next) = (operand.stride, operand.stride.next_multiple_of(ALIGNED));
            return Some(format!("rows of {name} are {stride} bytes apart; lay them {next} apart"));
        }
    }
    for (name, size, cure) in [
        ("k", product.k, "pad a and b with zero codes"),
        ("n", product.n, "pad b with rows of zero codes, or leave this layer in high precision"),
    ] {
        if !size.is_multiple_of(ALIGNED) {
            return Some(format!("{name} = {size} is no multiple of 16, as FP8 needs; {cure}"));
        }
    }
    let bytes = product.stride * product.output.bytes();
    (!bytes.is_multiple_of(ALIGNED)).then(|| {
        format!("rows of d are {bytes} bytes apart; lay them {} apart", bytes.next_multiple_of(ALIGNED))
    })
}

fn factors(product: &Product, architecture: Architecture) -> std::result::Result<Way, String> {
    use Factors::{Block1x128, Block128x128, One, PerRow, Tensor};
    for (name, operand, _) in operands(product) {
        if operand.factors != One && !operand.format.is_fp8() {
            let format = operand.format.name();
            return Err(format!(
                "{name} is {format} and has factors, which only FP8 has; multiply when casting"
            ));
        }
    }
    match (product.a.factors, product.b.factors) {
        (One | Tensor, One | Tensor) => Ok(Way::Lt),
        (PerRow, PerRow) if architecture == Architecture::Hopper => Ok(Way::Lt),
        (PerRow, PerRow) => Ok(Way::Rowwise),
        (Block1x128, Block1x128 | Block128x128) | (Block128x128, Block1x128) => {
            if architecture != Architecture::Hopper {
                return Err(
                    "factors for blocks need Hopper (9.0); cast with one scale, or with one a row".into()
                );
            }
            if !product.m.is_multiple_of(4) {
                let m = product.m;
                return Err(format!(
                    "m = {m} is no multiple of 4, as factors for blocks need; pad a with rows"
                ));
            }
            Ok(Way::Lt)
        }
        (Block128x128, Block128x128) => {
            Err("both operands have factors for 128×128; cast a or b in blocks of 1×128".into())
        }
        (a, b) => {
            let (a, b) = (a.name(), b.name());
            Err(format!(
                "a has {a} and b has {b}, which do not go together; cast both with scales of one kind"
            ))
        }
    }
}

/// What the addresses of `a`, `b` and `d` are multiples of, at least: as much of 16 as from each line to the next.
pub(super) fn alignments(product: &Product) -> [u32; 3] {
    let of = |bytes: usize| 1_u32 << bytes.trailing_zeros().min(ALIGNED.trailing_zeros());
    [
        of(product.a.stride * product.a.format.bytes()),
        of(product.b.stride * product.b.format.bytes()),
        of(product.stride * product.output.bytes()),
    ]
}

/// Whether `addresses` are such as `product` needs.
pub(super) fn addresses(product: &Product, addresses: &Addresses) -> Result<()> {
    let refuse = |reason: String| Err(Error::Unsupported(format!("no product {product}: {reason}")));
    let places = [("a", addresses.a), ("b", addresses.b), ("d", addresses.d)];
    for ((name, address), alignment) in places.into_iter().zip(alignments(product)) {
        if address == 0 || !address.is_multiple_of(u64::from(alignment)) {
            return refuse(format!("{name} lies at {address:#x}, which is no multiple of {alignment}"));
        }
    }
    let given = [addresses.factor_a, addresses.factor_b];
    for ((name, operand, _), address) in operands(product).into_iter().zip(given) {
        let alignment = match operand.factors {
            Factors::One if address.is_some() => {
                return refuse(format!("factors are given for {name}, which has none"));
            }
            Factors::One => continue,
            Factors::Tensor | Factors::PerRow => 4,
            Factors::Block1x128 | Factors::Block128x128 => 16,
        };
        match address {
            None => return refuse(format!("no factors are given for {name}")),
            Some(address) if address == 0 || !address.is_multiple_of(alignment) => {
                return refuse(format!("factors of {name} lie at {address:#x}, no multiple of {alignment}"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const E4M3: Format = Format::Fp8(Fp8::E4m3);
    const E5M2: Format = Format::Fp8(Fp8::E5m2);

    fn product(a: Format, b: Format, factors: [Factors; 2], output: Output) -> Product {
        let [fa, fb] = factors;
        Product::new([100, 64, 128], Operand::rows(a, 128).times(fa), Operand::rows(b, 128).times(fb), output)
    }

    fn fp8(factors: [Factors; 2]) -> Product {
        product(E4M3, E4M3, factors, Output::Bf16)
    }

    fn refusal(product: &Product, architecture: Architecture) -> String {
        let error = way(product, architecture).unwrap_err().to_string();
        error.split_once("sums: ").map(|(_, reason)| reason.to_owned()).unwrap_or(error)
    }

    #[test]
    fn scales_choose_the_way() {
        use Architecture::{Ada, Hopper};
        let tensor = fp8([Factors::Tensor; 2]);
        let rows = fp8([Factors::PerRow; 2]);
        let blocks = fp8([Factors::Block1x128, Factors::Block128x128]);
        assert_eq!(way(&tensor, Ada).unwrap(), Way::Lt);
        assert_eq!(way(&rows, Ada).unwrap(), Way::Rowwise);
        assert_eq!(way(&rows, Hopper).unwrap(), Way::Lt);
        assert_eq!(way(&blocks, Hopper).unwrap(), Way::Lt);
        assert!(refusal(&blocks, Ada).contains("need Hopper"));
        assert_eq!(way(&Product { m: 0, ..rows }, Ada).unwrap(), Way::Nothing);
    }

    #[test]
    fn formats_go_together_or_are_refused_with_the_cure() {
        let hopper = |product: &Product| refusal(product, Architecture::Hopper);
        let one = [Factors::One; 2];
        assert!(way(&product(E4M3, E5M2, one, Output::F32), Architecture::Ada).is_ok());
        assert!(way(&product(E5M2, E4M3, one, Output::F32), Architecture::Ada).is_ok());
        assert!(hopper(&product(E5M2, E5M2, one, Output::F32)).contains("cast a or b to e4m3"));
        assert!(hopper(&product(E4M3, Format::Bf16, one, Output::F32)).contains("a is e4m3 and b is bf16"));
        assert!(hopper(&product(Format::F32, Format::F32, one, Output::Bf16)).contains("f32 result"));
        let factors = [Factors::One, Factors::Tensor];
        assert!(
            hopper(&product(Format::Bf16, Format::Bf16, factors, Output::F32)).contains("b is bf16 and has")
        );
    }

    #[test]
    fn factors_go_together_or_are_refused_with_the_cure() {
        let hopper = |factors| refusal(&fp8(factors), Architecture::Hopper);
        assert!(hopper([Factors::Block128x128; 2]).contains("1×128"));
        assert!(hopper([Factors::PerRow, Factors::Tensor]).contains("do not go together"));
        assert!(hopper([Factors::Block1x128, Factors::One]).contains("do not go together"));
        let odd = Product { m: 99, ..fp8([Factors::Block1x128; 2]) };
        assert!(refusal(&odd, Architecture::Hopper).contains("m = 99"));
        assert_eq!(
            way(&Product { m: 99, ..fp8([Factors::PerRow; 2]) }, Architecture::Hopper).unwrap(),
            Way::Lt
        );
    }

    #[test]
    fn fp8_is_read_along_the_contraction_sixteen_bytes_at_a_time() {
        let ada = |product: &Product| refusal(product, Architecture::Ada);
        let good = fp8([Factors::Tensor; 2]);
        let with = |b| Product { b, ..good };
        assert!(ada(&with(Operand::transposed(E4M3, 128))).contains("b lies transposed"));
        assert!(ada(&with(Operand::rows(E4M3, 136))).contains("lay them 144 apart"));
        assert!(ada(&Product { k: 120, ..good }).contains("k = 120"));
        assert!(ada(&Product { n: 56, ..good }).contains("n = 56"));
        assert!(ada(&good.into_rows(68)).contains("rows of d are 136 bytes apart"));
        assert!(ada(&Product { k: 0, ..good }).contains("over nothing"));
        assert!(ada(&Product { k: 256, ..good }).contains("lines of a are 128 apart and have 256"));
        assert!(ada(&good.into_rows(48)).contains("rows of d are 48 apart"));
        assert!(ada(&Product { m: 1 << 31, ..good }).contains("cut it"));
    }

    #[test]
    fn other_formats_lie_as_they_like() {
        let a = Operand::transposed(Format::Bf16, 33);
        let product = Product::new([33, 7, 5], a, Operand::rows(Format::Bf16, 6), Output::Bf16);
        assert_eq!(way(&product, Architecture::Ada).unwrap(), Way::Lt);
        assert_eq!(alignments(&product), [2, 4, 2]);
        assert_eq!(alignments(&fp8([Factors::One; 2])), [16; 3]);
    }

    #[test]
    fn addresses_are_aligned_and_factors_are_there() {
        let product = fp8([Factors::Tensor; 2]);
        let good = Addresses { a: 256, b: 512, d: 768, factor_a: Some(1024), factor_b: Some(1028) };
        assert!(addresses(&product, &good).is_ok());
        let says = |wrong: Addresses| addresses(&product, &wrong).unwrap_err().to_string();
        assert!(says(Addresses { b: 520, ..good }).contains("b lies at 0x208"));
        assert!(says(Addresses { d: 0, ..good }).contains("d lies at 0x0"));
        assert!(says(Addresses { factor_a: None, ..good }).contains("no factors are given for a"));
        assert!(says(Addresses { factor_b: Some(1026), ..good }).contains("factors of b"));
        let blocks = fp8([Factors::Block1x128; 2]);
        let error = addresses(&blocks, &good).unwrap_err().to_string();
        assert!(error.contains("factors of b lie at 0x404, no multiple of 16"), "{error}");
        let none = fp8([Factors::One; 2]);
        assert!(addresses(&none, &good).unwrap_err().to_string().contains("which has none"));
    }
}
