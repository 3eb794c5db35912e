//! What data sheets say that a card can do: dense products with f32 sums, and memory.

use serde::Serialize;

/// 10¹² operations a second of FP8 and of bf16 operands, 10¹² bytes a second of memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sheet {
    fp8_tflops: f64,
    bf16_tflops: f64,
    tbps: f64,
}

const fn sheet(fp8_tflops: f64, bf16_tflops: f64, tbps: f64) -> Sheet {
    Sheet { fp8_tflops, bf16_tflops, tbps }
}

/// Words that are all in the name of a card; the first row that fits is the card's.
///
/// The driver calls the SXM module of the H100 `NVIDIA H100 80GB HBM3`, the card `NVIDIA H100 PCIe`. GeForce cards have half
/// the rate with f32 sums, which is what we sum in.
const SHEETS: [(&[&str], Sheet); 6] = [
    (&["H100", "PCIe"], sheet(1513.0, 756.0, 2.0)),
    (&["H100", "HBM3"], sheet(1979.0, 989.0, 3.35)),
    (&["H200", "NVL"], sheet(1671.0, 835.0, 4.8)),
    (&["H200"], sheet(1979.0, 989.0, 4.8)),
    (&["L40S"], sheet(733.0, 362.0, 0.864)),
    (&["RTX 4090"], sheet(330.0, 165.0, 1.008)),
];

/// Cards whose names hold those of others, and which are not those.
const OTHERS: [&str; 4] = ["4090 D", "4090 Laptop", "H100 NVL", "H100 64GB"];

impl Sheet {
    /// That of the card called `name`, if it is known here.
    pub fn of(name: &str) -> Option<Self> {
        if OTHERS.iter().any(|other| name.contains(other)) {
            return None;
        }
        let (_, sheet) = SHEETS.iter().find(|(words, _)| words.iter().all(|word| name.contains(word)))?;
        Some(*sheet)
    }

    /// Operations a second on FP8 operands.
    pub fn fp8(self) -> f64 {
        1e12 * self.fp8_tflops
    }

    /// Operations a second on bf16 operands.
    pub fn bf16(self) -> f64 {
        1e12 * self.bf16_tflops
    }

    /// Bytes a second, read and written.
    pub fn bytes(self) -> f64 {
        1e12 * self.tbps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_known_by_the_name_that_its_driver_gives_it() {
        let fp8 = |name| Sheet::of(name).map(|sheet| sheet.fp8_tflops);
        for (name, tflops) in [
            ("NVIDIA H100 80GB HBM3", 1979.0),
            ("NVIDIA H100 PCIe", 1513.0),
            ("NVIDIA H200", 1979.0),
            ("NVIDIA H200 NVL", 1671.0),
            ("NVIDIA L40S", 733.0),
            ("NVIDIA GeForce RTX 4090", 330.0),
        ] {
            assert_eq!(fp8(name), Some(tflops), "{name}");
        }
        for name in ["NVIDIA L40", "NVIDIA GeForce RTX 4090 D", "NVIDIA H100 NVL", "NVIDIA GeForce RTX 4060"]
        {
            assert_eq!(fp8(name), None, "{name}");
        }
    }
}
