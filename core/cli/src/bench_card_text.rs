//! Measurements on a card for people: a paragraph on the card, then a row a case, in 100 columns.

use fp8flow_bench::card::line::{CardCase, CardLeftOut, CardLine, CardTrain, Head};
use fp8flow_bench::line::{Rate, Unit};

use crate::bench_text::{BOLD, DIM, RESET, WIDTH, extent, further};
use crate::doctor_text::wrapped;

/// What there is to print for `line`, without a newline at its end.
pub(crate) fn rows(line: &CardLine) -> String {
    match line {
        CardLine::Card(card) => head(card),
        CardLine::Case(line) => case(line),
        CardLine::LeftOut(line) => left_out(line),
        CardLine::Train(line) => train(line),
    }
}

fn head(head: &Head) -> String {
    let known = |version: &Option<String>| version.clone().unwrap_or_else(|| "unknown".into());
    let sheet = head.sheet.map_or_else(
        || "no data sheet is known for it".into(),
        |sheet| {
            let [fp8, bf16, tbps] = [sheet.fp8(), sheet.bf16(), sheet.bytes()].map(|rate| rate / 1e12);
            format!("data sheet: FP8 {fp8:.0} and bf16 {bf16:.0} TFLOP/s, {tbps} TB/s")
        },
    );
    let measured = |what: &str, rate: Option<f64>, unit: &str| {
        rate.map_or_else(|| format!("{what}: no room"), |rate| format!("{what} {} {unit}", digits(rate)))
    };
    let words = format!(
        "{} ({}, {} multiprocessors), {:.1} of {:.1} GB free; driver {} for CUDA {}, NVRTC {}, cuBLASLt {}; {sheet}; \
         measured here: {}, {}",
        head.card,
        head.architecture,
        head.multiprocessors,
        head.free_gb,
        head.memory_gb,
        known(&head.driver),
        head.cuda,
        head.nvrtc,
        head.cublaslt,
        measured("bf16 GEMM", head.bf16_tflops, "TFLOP/s"),
        measured("copy", head.copy_tbps, "TB/s"),
    );
    format!(
        "{}\n\n{BOLD}{:<20}{:<9}{:<22}{:>11}{:>17}{:>9}{:>10}{RESET}",
        wrapped(&words, WIDTH).join("\n"),
        "case",
        "scales",
        "shape",
        "µs",
        "figure",
        "of sheet",
        "of card"
    )
}

fn case(line: &CardCase) -> String {
    let CardCase { what, scales, us, rate, sheet_share, ceiling_share, .. } = line;
    row(
        [what, scales.unwrap_or_default(), &extent(line.extent), &digits(*us), &figure(*rate)],
        [*sheet_share, *ceiling_share],
    )
}

fn left_out(line: &CardLeftOut) -> String {
    let CardLeftOut { what, scales, extent: of, left_out } = line;
    let mut out = row([what, scales.unwrap_or_default(), &extent(*of), "", "left out"], [None; 2]);
    out.truncate(out.trim_end_matches([' ', '-']).len());
    further(&mut out, left_out);
    out
}

fn train(line: &CardTrain) -> String {
    let shape = format!("{} × {} tokens", line.batch, line.sequence);
    let speed = format!("{:.0} tokens/s", line.tokens_per_s);
    let name = format!("train {}", line.model);
    let mut out = row(
        [&name, "", &shape, &digits(1e3 * line.step_ms), &speed],
        [line.fp8_peak_share, line.ceiling_share],
    );
    let fp8 = match (&line.backend, &line.recipe) {
        (Some(backend), Some(recipe)) => format!("{recipe} of {backend}, {} layers in FP8", line.fp8_layers),
        _ => "no FP8".to_owned(),
    };
    let more = format!(
        "{fp8}; {} activations, recompute {}; {} of {} blocks, {:.2} G parameters; {} TFLOP/s of the model, {:.3} GFLOP a \
         token; median of {} steps; {:.2} GB of the card, planned {:.2} GB; loss {:.4}",
        line.precision,
        line.recompute,
        line.layers,
        line.of_layers,
        line.parameters as f64 / 1e9,
        digits(line.tflops),
        line.flops_per_token as f64 / 1e9,
        line.steps,
        line.used_gb,
        line.planned_gb,
        line.loss,
    );
    further(&mut out, &more);
    out
}

/// Case, scales, shape, microseconds and figure; the shares of the data sheet and of what was measured.
fn row([what, scales, shape, us, figure]: [&str; 5], shares: [Option<f64>; 2]) -> String {
    let [sheet, card] =
        shares.map(|share| share.map_or_else(|| "-".into(), |share| format!("{:.0} %", 100.0 * share)));
    format!("{what:<20}{scales:<9}{shape:<22}{us:>11}{figure:>17}{DIM}{sheet:>9}{card:>10}{RESET}")
}

fn figure(Rate(rate, unit): Rate) -> String {
    match unit {
        Unit::Gflops => format!("{} TFLOP/s", digits(rate / 1e3)),
        Unit::Gbps => format!("{} GB/s", digits(rate)),
    }
}

/// Four digits, as many as a measurement has, and none that are needed for nothing.
fn digits(number: f64) -> String {
    let before = if number > 0.0 { number.log10().floor() as i32 } else { 0 };
    let after = (3 - before).clamp(0, 4) as usize;
    format!("{number:.after$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_four_digits() {
        let numbers = [1979.0, 712.34, 2.914, 0.0123, 83_512.7, 0.0].map(digits);
        assert_eq!(numbers, ["1979", "712.3", "2.914", "0.0123", "83513", "0.000"]);
    }
}
