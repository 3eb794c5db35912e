//! The recipes as data: which operand of which GEMM is cast how. Table 1.1 of the specification; everything else in
//! this crate follows it.
//!
//! torchao states the same in nine fields of `Float8LinearConfig`.

use fp8flow_sdk::kernels::Fp8;
use fp8flow_sdk::kernels::scale::ScaleRule;
use fp8flow_sdk::scaled::{Cast, Dgrad, Fprop, Gemms, Granularity, Source, Wgrad};

/// The one option: torchao's field of this name.
pub const POWER_OF_TWO: &str = "round_scales_to_power_of_2";

/// The recipes by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecipeName {
    /// `Float8LinearRecipeName.ROWWISE`.
    Rowwise,
    /// `Float8LinearRecipeName.TENSORWISE`.
    Tensorwise,
    /// `Float8LinearRecipeName.ROWWISE_WITH_GW_HP`.
    RowwiseWithGwHp,
}

impl RecipeName {
    /// All of them, as they are listed to users.
    pub const ALL: [Self; 3] = [Self::Rowwise, Self::Tensorwise, Self::RowwiseWithGwHp];

    /// The name in a workflow, which is torchao's.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rowwise => "rowwise",
            Self::Tensorwise => "tensorwise",
            Self::RowwiseWithGwHp => "rowwise_with_gw_hp",
        }
    }

    /// The recipe called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|recipe| recipe.as_str() == name)
    }

    /// What it does, for the list of recipes.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Rowwise => {
                "One scale for each row of every GEMM operand; e4m3 throughout. The most accurate with all GEMMs in FP8."
            }
            Self::Tensorwise => "One scale for each tensor; e4m3 activations and weights, e5m2 gradients.",
            Self::RowwiseWithGwHp => {
                "As rowwise, with the weight gradient in high precision; keeps the layer's input for backward."
            }
        }
    }

    /// torchao's default for [`POWER_OF_TWO`].
    pub const fn rounds_scales_to_power_of_2(self) -> bool {
        !matches!(self, Self::Tensorwise)
    }
}

/// The casts of recipe `name`.
pub fn gemms(name: RecipeName, power_of_two: bool) -> Gemms {
    use Fp8::{E4m3, E5m2};
    use Granularity::{Col, Row, Tensor};
    let rule = if power_of_two { ScaleRule::PowerOfTwo } else { ScaleRule::Linear };
    let cast = |format, granularity| Cast { format, granularity, source: Source::Current(rule) };
    match name {
        // `cast_config_input`, `cast_config_weight`;
        // `cast_config_grad_output`, `cast_config_weight_for_grad_input`;
        // `cast_config_grad_output_for_grad_weight`, `cast_config_input_for_grad_weight`.
        RecipeName::Rowwise => Gemms {
            fprop: Fprop { x: cast(E4m3, Row), w: cast(E4m3, Row) },
            dgrad: Dgrad { dy: cast(E4m3, Row), w: cast(E4m3, Col) },
            wgrad: Some(Wgrad { dy: cast(E4m3, Col), x: cast(E4m3, Col) }),
        },
        RecipeName::Tensorwise => Gemms {
            fprop: Fprop { x: cast(E4m3, Tensor), w: cast(E4m3, Tensor) },
            dgrad: Dgrad { dy: cast(E5m2, Tensor), w: cast(E4m3, Tensor) },
            wgrad: Some(Wgrad { dy: cast(E5m2, Tensor), x: cast(E4m3, Tensor) }),
        },
        RecipeName::RowwiseWithGwHp => Gemms {
            fprop: Fprop { x: cast(E4m3, Row), w: cast(E4m3, Row) },
            dgrad: Dgrad { dy: cast(E4m3, Row), w: cast(E4m3, Tensor) },
            wgrad: None,
        },
    }
}
