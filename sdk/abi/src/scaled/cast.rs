//! The casts of a layer's operands, as data.

use serde_json::{Value, json};

use crate::{Decision, InputFormat, LayerFacts, Precision, ScaleAxis};
use fp8flow_kernels::Fp8;
use fp8flow_kernels::scale::ScaleRule;

/// Which elements of a tensor, as it lies in memory, share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// All.
    Tensor,
    /// Those of a row.
    Row,
    /// Those of a column.
    Col,
    /// Those of a block of `rows × cols`; blocks at the edges are smaller.
    Blocks {
        /// Rows of a block.
        rows: usize,
        /// Columns of a block.
        cols: usize,
    },
}

/// Where a scale comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From the absolute maximum of what is being cast.
    Current(ScaleRule),
    /// From the recipe, which knows those of earlier steps; one a tensor. See [`crate::scaled::Scales`].
    Delayed,
}

/// How one operand is cast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    /// The format of the codes.
    pub format: Fp8,
    /// Which elements share a scale.
    pub granularity: Granularity,
    /// Where the scales come from.
    pub source: Source,
}

impl Cast {
    /// How many scales a tensor of `rows × cols` gets.
    pub const fn scales(self, rows: usize, cols: usize) -> usize {
        match self.granularity {
            Granularity::Row => rows,
            Granularity::Col => cols,
            Granularity::Tensor => 1,
            Granularity::Blocks { rows: r, cols: c } => rows.div_ceil(r) * cols.div_ceil(c),
        }
    }

    /// Rows and columns of the blocks that share a scale in a tensor of `rows × cols`; scales lie as the blocks do.
    pub(crate) fn block(self, rows: usize, cols: usize) -> [usize; 2] {
        let [height, width] = match self.granularity {
            Granularity::Row => [1, cols],
            Granularity::Col => [rows, 1],
            Granularity::Tensor => [rows, cols],
            Granularity::Blocks { rows, cols } => [rows, cols],
        };
        [height.max(1), width.max(1)]
    }

    /// In the words of [`InputFormat`], if a producer could make this cast while it writes: one that goes row by row
    /// or column by column. A maximum over everything is only known when everything is done.
    pub(crate) fn input_format(self) -> Option<InputFormat> {
        let Source::Current(rule) = self.source else { return None };
        let axis = match self.granularity {
            Granularity::Row => ScaleAxis::Row,
            Granularity::Col => ScaleAxis::Col,
            Granularity::Tensor | Granularity::Blocks { .. } => return None,
        };
        Some(InputFormat { format: self.format.name().into(), axis, rule: rule.name().into() })
    }

    fn describe(self) -> Value {
        let axis = match self.granularity {
            Granularity::Tensor => json!("tensor"),
            Granularity::Row => json!("row"),
            Granularity::Col => json!("col"),
            Granularity::Blocks { rows, cols } => json!([rows, cols]),
        };
        let rule = match self.source {
            Source::Current(rule) => rule.name(),
            Source::Delayed => "delayed",
        };
        json!({ "format": self.format.name(), "axis": axis, "rule": rule })
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
    /// The input.
    pub x: Cast,
    /// The weight.
    pub w: Cast,
}

/// Operands of `dx = dy·W`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dgrad {
    /// The gradient of the output.
    pub dy: Cast,
    /// The weight.
    pub w: Cast,
}

/// Operands of `dW = dyᵀ·x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wgrad {
    /// The gradient of the output.
    pub dy: Cast,
    /// The input.
    pub x: Cast,
}

impl Gemms {
    /// The same cast for all operands.
    pub const fn alike(cast: Cast) -> Self {
        Self {
            fprop: Fprop { x: cast, w: cast },
            dgrad: Dgrad { dy: cast, w: cast },
            wgrad: Some(Wgrad { dy: cast, x: cast }),
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

    /// FP8 for a layer both of whose dimensions are positive multiples of `multiple`; in words, under `recipe`'s name.
    pub fn decide(&self, recipe: &str, multiple: usize, layer: &LayerFacts) -> Decision {
        let (n, k) = (layer.out_features, layer.in_features);
        let obstacle =
            [("in_features", k), ("out_features", n)].into_iter().find(|(_, n)| *n == 0 || n % multiple != 0);
        if let Some((what, found)) = obstacle {
            let reason =
                format!("{what} = {found} is not a positive multiple of {multiple}, as {recipe} needs");
            return Decision { precision: Precision::High, reason, fp8_gemms: [0; 3] };
        }
        let (x, dy) = (self.fprop.x.format.name(), self.dgrad.dy.format.name());
        let operands = if x == dy {
            format!("{x} activations, weights and gradients")
        } else {
            format!("{x} activations and weights, {dy} gradients")
        };
        let wgrad = if self.wgrad.is_some() { "" } else { "; weight gradient in high precision" };
        Decision {
            precision: Precision::Fp8,
            reason: format!("{recipe}: {operands}{wgrad}"),
            fp8_gemms: [1, 1, u8::from(self.wgrad.is_some())],
        }
    }

    /// The table as JSON, for [`crate::Recipe::describe`].
    pub fn describe(&self) -> [(String, Value); 3] {
        let Self { fprop, dgrad, wgrad } = self;
        let wgrad = wgrad.map_or(
            json!("high_precision"),
            |wgrad| json!({ "dy": wgrad.dy.describe(), "x": wgrad.x.describe() }),
        );
        [
            ("fprop".into(), json!({ "x": fprop.x.describe(), "w": fprop.w.describe() })),
            ("dgrad".into(), json!({ "dy": dgrad.dy.describe(), "w": dgrad.w.describe() })),
            ("wgrad".into(), wgrad),
        ]
    }
}
