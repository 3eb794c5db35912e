//! `[workflow] device`: where the model runs.

use fp8flow_flow::{Class, Field, PlanCx, Planned, Section};

use crate::support::CPU_ONLY;

pub(crate) struct WorkflowDevice;

impl Section for WorkflowDevice {
    fn name(&self) -> &'static str {
        "workflow"
    }

    fn about(&self) -> &'static str {
        "The workflow as a whole."
    }

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::text("device")
                .default("auto")
                .about("Where the model runs: auto, cpu, cuda or cuda:N; auto takes the best there is."),
        ]
    }

    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let device: &str = cx.params().get("device");
        let number = device.strip_prefix("cuda:").map(|ordinal| ordinal.parse::<u32>().is_ok());
        match device {
            "auto" | "cpu" => {}
            _ if device == "cuda" || number == Some(true) => {
                cx.error("device", CPU_ONLY)
                    .class(Class::Missing)
                    .help("Set `device = \"cpu\"` or `\"auto\"`.");
            }
            _ => {
                cx.error("device", format!("unknown device `{device}`"))
                    .help("Use auto, cpu, cuda or cuda:N with the number of a card.")
                    .did_you_mean(device, ["auto", "cpu", "cuda"]);
            }
        }
        Planned::default()
    }
}
