//! `trainer_log.jsonl` as LLaMA-Factory writes it, for the dashboards that read it.

use serde_json::{Value, json};

use crate::export::{Clock, Line};

/// A line of the file.
pub(crate) fn line(line: &Line, clock: &Clock) -> String {
    let step = line.step();
    let Clock { total, per_epoch, elapsed, tokens, .. } = *clock;
    let (total, share) = (total.max(step), step as f64 / total.max(step).max(1) as f64);
    let remaining = if step == 0 { 0.0 } else { elapsed / step as f64 * (total - step) as f64 };
    let mut object = json!({ "current_steps": step, "total_steps": total });
    match line {
        Line::Step(step) => {
            object["loss"] = number(step.loss);
            object["lr"] = number(step.lr);
        }
        Line::HeldOut(found) => object["eval_loss"] = number(found.loss),
    }
    if let Some(per_epoch) = per_epoch.filter(|steps| *steps > 0) {
        object["epoch"] = json!(rounded(step as f64 / per_epoch as f64, 1e4));
    }
    object["percentage"] = json!(rounded(100.0 * share, 1e2));
    object["elapsed_time"] = json!(time(elapsed));
    object["remaining_time"] = json!(time(remaining));
    if let Line::Step(step) = line {
        object["throughput"] = json!(rounded(step.tokens_per_s, 1e2));
        object["total_tokens"] = json!(tokens);
    }
    object.to_string() + "\n"
}

/// JSON has no infinity: `null` stands for it.
fn number(x: f64) -> Value {
    json!(x)
}

fn rounded(x: f64, to: f64) -> f64 {
    (x * to).round() / to
}

/// `0:03:48`, `2 days, 1:00:05`: as Python prints a time.
fn time(seconds: f64) -> String {
    let whole = seconds as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    let days = match days {
        0 => String::new(),
        1 => "1 day, ".into(),
        n => format!("{n} days, "),
    };
    format!("{days}{hours}:{minutes:02}:{:02}", whole % 60)
}

#[cfg(test)]
mod tests {
    use fp8flow_train::StepMetrics;

    use super::*;
    use crate::HeldOut;

    #[test]
    fn lines_have_the_keys_and_words_that_readers_of_them_know() {
        let step = StepMetrics {
            step: 10,
            loss: 2.31,
            lr: 5e-5,
            grad_norm: 1.5,
            tokens: 512,
            tokens_per_s: 426.666_666,
            precision: None,
        };
        let clock = Clock { start: 0.0, total: 200, per_epoch: Some(200), elapsed: 12.0, tokens: 5120 };
        assert_eq!(
            line(&Line::Step(step), &clock),
            "{\"current_steps\":10,\"total_steps\":200,\"loss\":2.31,\"lr\":0.00005,\"epoch\":0.05,\
             \"percentage\":5.0,\"elapsed_time\":\"0:00:12\",\"remaining_time\":\"0:03:48\",\"throughput\":426.67,\
             \"total_tokens\":5120}\n"
        );
        let clock = Clock { total: 0, per_epoch: None, elapsed: 200_000.0, ..clock };
        assert_eq!(
            line(&Line::HeldOut(HeldOut { step: 0, loss: f64::NAN }), &clock),
            "{\"current_steps\":0,\"total_steps\":0,\"eval_loss\":null,\"percentage\":0.0,\
             \"elapsed_time\":\"2 days, 7:33:20\",\"remaining_time\":\"0:00:00\"}\n"
        );
    }
}
