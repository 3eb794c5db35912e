//! The recipes as data: which operand of which GEMM is cast how. Table 1.1 of the specification; everything else in
//! this crate follows it.
//!
//! torchao states the same in nine fields of `Float8LinearConfig`; the names beside the rows are its own.

use fp8flow_sdk::ScaleAxis;
use fp8flow_sdk::kernels::Fp8;
use fp8flow_sdk::kernels::scale::ScaleRule;

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

/// How one operand is cast: always dynamically, from its own absolute maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    /// The format of the codes.
    pub format: Fp8,
    /// Which elements of the tensor as it lies in memory share a scale.
    pub axis: ScaleAxis,
    /// From an absolute maximum to a scale.
    pub rule: ScaleRule,
}

impl Cast {
    /// How many scales a tensor of `rows × cols` gets.
    pub const fn scales(self, rows: usize, cols: usize) -> usize {
        match self.axis {
            ScaleAxis::Row => rows,
            ScaleAxis::Col => cols,
            ScaleAxis::Tensor => 1,
        }
    }
}

/// The casts of a layer's three GEMMs, with `x: [M, K]`, `W: [N, K]`, `dy: [M, N]`.
///
/// A tensor whose two casts are equal is cast once: the codes lie as the tensor does, and GEMM reads either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gemms {
    /// `y = x·Wᵀ`, over K.
    pub fprop: Fprop,
    /// `dx = dy·W`, over N.
    pub dgrad: Dgrad,
    /// `dW = dyᵀ·x`, over M; none: in high precision, from `dy` and `x` themselves.
    pub wgrad: Option<Wgrad>,
}

/// Operands of `y = x·Wᵀ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fprop {
    /// `cast_config_input`.
    pub x: Cast,
    /// `cast_config_weight`.
    pub w: Cast,
}

/// Operands of `dx = dy·W`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dgrad {
    /// `cast_config_grad_output`.
    pub dy: Cast,
    /// `cast_config_weight_for_grad_input`.
    pub w: Cast,
}

/// Operands of `dW = dyᵀ·x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wgrad {
    /// `cast_config_grad_output_for_grad_weight`.
    pub dy: Cast,
    /// `cast_config_input_for_grad_weight`.
    pub x: Cast,
}

impl Gemms {
    /// The casts of recipe `name`.
    pub fn of(name: RecipeName, power_of_two: bool) -> Self {
        use Fp8::{E4m3, E5m2};
        use ScaleAxis::{Col, Row, Tensor};
        let rule = if power_of_two { ScaleRule::PowerOfTwo } else { ScaleRule::Linear };
        let cast = |format, axis| Cast { format, axis, rule };
        match name {
            RecipeName::Rowwise => Self {
                fprop: Fprop { x: cast(E4m3, Row), w: cast(E4m3, Row) },
                dgrad: Dgrad { dy: cast(E4m3, Row), w: cast(E4m3, Col) },
                wgrad: Some(Wgrad { dy: cast(E4m3, Col), x: cast(E4m3, Col) }),
            },
            RecipeName::Tensorwise => Self {
                fprop: Fprop { x: cast(E4m3, Tensor), w: cast(E4m3, Tensor) },
                dgrad: Dgrad { dy: cast(E5m2, Tensor), w: cast(E4m3, Tensor) },
                wgrad: Some(Wgrad { dy: cast(E5m2, Tensor), x: cast(E4m3, Tensor) }),
            },
            RecipeName::RowwiseWithGwHp => Self {
                fprop: Fprop { x: cast(E4m3, Row), w: cast(E4m3, Row) },
                dgrad: Dgrad { dy: cast(E4m3, Row), w: cast(E4m3, Tensor) },
                wgrad: None,
            },
        }
    }

    /// The second cast of `x`, if backward needs another one than forward.
    pub fn x_again(&self) -> Option<Cast> {
        self.wgrad.map(|wgrad| wgrad.x).filter(|&cast| cast != self.fprop.x)
    }

    /// The second cast of `W`, if dgrad needs another one than fprop.
    pub fn w_again(&self) -> Option<Cast> {
        Some(self.dgrad.w).filter(|&cast| cast != self.fprop.w)
    }

    /// The second cast of `dy`, if wgrad needs another one than dgrad.
    pub fn dy_again(&self) -> Option<Cast> {
        self.wgrad.map(|wgrad| wgrad.dy).filter(|&cast| cast != self.dgrad.dy)
    }

    /// Whether what fprop reads of `x` is what wgrad reads.
    pub fn x_serves_both(&self) -> bool {
        self.wgrad.is_some_and(|wgrad| wgrad.x == self.fprop.x)
    }

    /// Whether what dgrad reads of `dy` is what wgrad reads.
    pub fn dy_serves_both(&self) -> bool {
        self.wgrad.is_some_and(|wgrad| wgrad.dy == self.dgrad.dy)
    }
}
