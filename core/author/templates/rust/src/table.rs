//! The recipe as data.

use fp8flow_sdk::kernels::Fp8;
use fp8flow_sdk::kernels::scale::ScaleRule;
use fp8flow_sdk::scaled::{Cast, Dgrad, Fprop, Gemms, Granularity, Source, Wgrad};
use fp8flow_sdk::serde_json::{Value, json};
use fp8flow_sdk::{OptionField, OptionKind, Options, RecipeInfo, Result};

/// The name in a workflow: `[backend] recipe`.
pub(crate) const NAME: &str = "rows";

/// What K and N of a layer must be multiples of; other layers stay in high precision.
pub(crate) const MULTIPLE: usize = 16;

const POWER_OF_TWO: &str = "power_of_two";

/// What `fp8flow plugin show` prints, and what the keys of `[backend.options]` are checked against.
pub(crate) fn info() -> RecipeInfo {
    RecipeInfo {
        name: NAME.into(),
        about: "One scale for each row of a GEMM's operand; e4m3 throughout.".into(),
        options: vec![OptionField {
            name: POWER_OF_TWO.into(),
            kind: OptionKind::Bool,
            default: true.into(),
            about: "Round every scale down to a power of two.".into(),
        }],
    }
}

/// The options as values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    power_of_two: bool,
}

impl Settings {
    pub(crate) fn read(options: &Options) -> Result<Self> {
        Ok(Self {
            power_of_two: options.bool(POWER_OF_TWO)?,
        })
    }

    /// As they are recorded in a run.
    pub(crate) fn describe(self) -> Value {
        json!({ POWER_OF_TWO: self.power_of_two })
    }

    /// Which operand of which GEMM is cast how, with `x: [M, K]`, `W: [N, K]`, `dy: [M, N]`.
    pub(crate) fn gemms(self) -> Gemms {
        let rule = if self.power_of_two {
            ScaleRule::PowerOfTwo
        } else {
            ScaleRule::Linear
        };
        let cast = |granularity| Cast {
            format: Fp8::E4m3,
            granularity,
            source: Source::Current(rule),
        };
        // Scales that do not vary along the contraction wait for the sum and are applied once. So an operand that is
        // contracted along its columns has a scale a row, one that is contracted along its rows a scale a column.
        let row = cast(Granularity::Row);
        let col = cast(Granularity::Col);
        Gemms {
            // y = x·Wᵀ, over K.
            fprop: Fprop { x: row, w: row },
            // dx = dy·W, over N.
            dgrad: Dgrad { dy: row, w: col },
            // dW = dyᵀ·x, over M.
            wgrad: Some(Wgrad { dy: col, x: col }),
        }
    }
}
