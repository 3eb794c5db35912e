//! The table as the page of the book.

use std::fmt::Write as _;

use super::{
    CHECKED_ON, DeviceClass, ELSEWHERE, Feature, GW_HP, MATRIX, OLDEST_CUDA, ONLY_SFT_AND_PT, QUANTIZED_BASE,
    Row,
};

/// The page `docs/src/reference/support.md`.
pub fn markdown() -> String {
    let mut out = String::from(
        "# What goes with what\n\n\
         The recipes of the plugins that come with fp8flow, on each class of devices. This page is written from the table \
         that the checks of a workflow and `fp8flow doctor` use: `fp8flow schema --format support`.\n",
    );
    for (device, title) in [(DeviceClass::Cpu, "On a CPU"), (DeviceClass::Cuda, "On an NVIDIA card")] {
        let _ = write!(out, "\n## {title}\n\n");
        if device == DeviceClass::Cuda {
            let _ = write!(
                out,
                "What NVIDIA's libraries ask for. fp8flow is {CHECKED_ON}. A card of Hopper (compute capability 9.0) or Ada (8.9) with \
                 24 GB or more is recommended, CUDA {OLDEST_CUDA} or later is needed.\n\n"
            );
        }
        recipes(&mut out, device);
        if device == DeviceClass::Cpu {
            features(&mut out);
        }
    }
    let _ = write!(
        out,
        "\n## In every case\n\n\
         * Layers whose dimensions do not fit stay in high precision, and the plan says why; if no layer is left, the \
         workflow is an error.\n\
         * `layers.filter` asks for multiples of 16 by itself; `multiple_of` changes that, not what a recipe needs.\n\
         * {ONLY_SFT_AND_PT}; {} are errors.\n\
         * A base whose `config.json` says `quantization_config` is an error with FP8 (\"{QUANTIZED_BASE}\") and \
         without it, since codes cannot be trained. FP8 in blocks (`quant_method = \"fp8\"` with `weight_block_size`) \
         is loaded with `dequantize = true`.\n\
         * A plugin of somebody else is not in these tables: `fp8flow plan` asks it about every layer.\n",
        ELSEWHERE.map(|(name, _)| format!("`{name}`")).join(", "),
    );
    out
}

fn recipes(out: &mut String, device: DeviceClass) {
    let card = device == DeviceClass::Cuda;
    let more = if card { [" compute capability | CUDA |", " --- | --- |"] } else { ["", ""] };
    let _ = writeln!(
        out,
        "| plugin | recipe | scales | activations, weights | gradients | dimensions | tokens |{}",
        more[0]
    );
    let _ = writeln!(out, "| --- | --- | --- | --- | --- | --- | --- |{}", more[1]);
    let multiple = |n: usize| if n == 1 { "any".into() } else { format!("multiples of {n}") };
    for row in MATRIX.iter().filter(|row| row.device == device) {
        let Row { plugin, recipe, granularity, formats: [forward, backward], dimensions, tokens, .. } = row;
        let gradients = if *recipe == GW_HP.recipe {
            format!("{backward}; the weight's in high precision")
        } else {
            (*backward).into()
        };
        let _ = write!(
            out,
            "| `{plugin}` | `{recipe}` | {granularity} | {forward} | {gradients} | {} | {} |",
            multiple(*dimensions),
            multiple(*tokens)
        );
        if let Some(needs) = row.card {
            let hopper = match needs.cuda_on_hopper {
                same if same == needs.cuda => String::new(),
                other => format!("; on Hopper {other}"),
            };
            let _ = write!(out, " {} | {} or later{hopper} |", needs.range(), needs.cuda);
        }
        out.push('\n');
    }
}

fn features(out: &mut String) {
    let rows: Vec<&Row> = MATRIX.iter().filter(|row| row.device == DeviceClass::Cpu).collect();
    let heads: Vec<String> = rows.iter().map(|row| format!("`{}`", row.recipe)).collect();
    let _ = writeln!(out, "\n| | {} |\n| --- |{}", heads.join(" | "), " --- |".repeat(rows.len()));
    let mut reasons: Vec<&str> = Vec::new();
    for feature in Feature::ALL {
        let mut cells = String::new();
        for row in &rows {
            match row.verdict(feature) {
                Ok(()) => cells.push_str(" yes |"),
                Err(reason) => {
                    let known = reasons.iter().position(|known| *known == reason);
                    let number = known.unwrap_or_else(|| {
                        reasons.push(reason);
                        reasons.len() - 1
                    });
                    let _ = write!(cells, " no ({}) |", number + 1);
                }
            }
        }
        let _ = writeln!(out, "| {} |{cells}", feature.about());
    }
    out.push('\n');
    for (number, reason) in (1..).zip(reasons) {
        let _ = writeln!(out, "{number}. {reason}");
    }
}
