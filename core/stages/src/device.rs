//! `[workflow] device`: where the model runs.

use fp8flow_flow::{Class, Field, Plan, PlanCx, Planned, Section, code};
use fp8flow_host::machine::Cuda;
use fp8flow_host::machine::cuda::Card;
use serde_json::json;

use crate::Engine;
use crate::support::{ADA, CHECKED_ON, HOPPER, Version};

/// The device that is chosen where nobody says.
pub(crate) const AUTO: &str = "auto";
/// What a backend's manifest calls NVIDIA's cards.
pub(crate) const CUDA: &str = "cuda";

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Cpu,
    /// The card of this number.
    Card(usize),
}

impl Place {
    /// What the value of the key says; none if it says nothing. `auto` is the CPU until [`WorkflowDevice`] has looked.
    pub(crate) fn parse(device: &str) -> Option<Self> {
        match device {
            AUTO | "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Card(0)),
            _ => device.strip_prefix("cuda:")?.parse().ok().map(Self::Card),
        }
    }

    /// Where `plan` runs: on the card that its section names, if it names one.
    pub(crate) fn of(plan: &Plan) -> Self {
        let name = plan.section("workflow").and_then(|section| section.facts.get("device")?.as_str());
        name.and_then(|name| Self::parse(name.split(' ').next()?)).unwrap_or(Self::Cpu)
    }
}

pub(crate) struct WorkflowDevice(pub(crate) Engine);

impl Section for WorkflowDevice {
    fn name(&self) -> &'static str {
        "workflow"
    }

    fn about(&self) -> &'static str {
        "The workflow as a whole."
    }

    fn fields(&self) -> Vec<Field> {
        vec![Field::text("device").default(AUTO).about(
            "Where the model runs: auto, cpu, cuda or cuda:N; auto is the first Hopper card that can be used, else the CPU.",
        )]
    }

    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let device: &str = cx.params().get("device");
        let found = (device == AUTO).then(usable).flatten();
        let place = match &found {
            Some((number, card)) if Version::from(card.capability) == HOPPER => Some(Place::Card(*number)),
            _ => Place::parse(device),
        };
        let Some(place) = place else {
            cx.error("device", format!("unknown device `{device}`"))
                .help("Use auto, cpu, cuda or cuda:N with the number of a card.")
                .did_you_mean(device, ["auto", "cpu", "cuda"]);
            return Planned::default();
        };
        if let Err(error) = self.0.move_to(place) {
            cx.error("device", format!("the card cannot be used: {error}"))
                .class(Class::Missing)
                .code(code::NO_DEVICE)
                .help("`fp8flow doctor` shows what was found. Set `device = \"cpu\"` to run without a card.");
            return Planned::default();
        }
        match place {
            Place::Cpu if device == AUTO => Planned::default().line(found.map_or_else(
                || "the CPU: no card that can be used was found".to_owned(),
                |(number, card)| hint(number, &card),
            )),
            Place::Cpu => Planned::default(),
            Place::Card(_) => {
                let name = self.0.device().name();
                // What the bits depend on: the kind of card, not which of them.
                let kind = name.split_once(' ').map_or("cuda", |(_, kind)| kind);
                Planned::new(json!({ "device": name, "kind": kind })).line(name.clone())
            }
        }
    }
}

/// The number of the first Hopper, or else of the first Ada, where there are signs of a card: it is looked for in a
/// process of its own.
fn usable() -> Option<(usize, Card)> {
    let signs = Cuda::kernel_module().is_some() || std::env::var_os("FP8FLOW_CUDA_DIR").is_some();
    let cuda = signs.then(Cuda::look)?.ok()?;
    let whole = cuda.driver.is_usable() && cuda.cublas_lt.is_usable() && cuda.nvrtc.is_usable();
    let cards: Vec<_> = cuda.cards.into_iter().enumerate().filter(|_| whole).collect();
    [HOPPER, ADA]
        .into_iter()
        .find_map(|kind| cards.iter().find(|(_, card)| Version::from(card.capability) == kind).cloned())
}

fn hint(number: usize, card: &Card) -> String {
    let name = &card.name;
    let device = if number == 0 { "cuda".into() } else { format!("cuda:{number}") };
    format!("the CPU, although {name} is here: fp8flow is {CHECKED_ON}; `device = \"{device}\"` uses it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_the_key_says() {
        let parse = |text| Place::parse(text);
        assert_eq!(["auto", "cpu"].map(parse), [Some(Place::Cpu); 2]);
        assert_eq!(["cuda", "cuda:0", "cuda:3"].map(parse), [0, 0, 3].map(|n| Some(Place::Card(n))));
        assert_eq!(["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA"].map(parse), [None; 6]);
    }

    #[test]
    fn the_device_that_a_hint_names_is_the_card_that_it_names() {
        let card = Card { name: "an Ada".into(), capability: (8, 9), memory: 0 };
        for (number, named) in [(0, "cuda"), (1, "cuda:1"), (12, "cuda:12")] {
            let hint = hint(number, &card);
            let device = hint.split('"').nth(1).unwrap();
            assert!(hint.contains("an Ada is here"), "{hint}");
            assert_eq!((device, Place::parse(device)), (named, Some(Place::Card(number))));
        }
    }
}
