//! The traits that a backend implements.

use serde::{Deserialize, Serialize};

use crate::{
    Backward, Counters, DeviceId, Forward, Host, InputFormat, Memory, Options, Quantize, RecipeInfo, Result,
    ScaledGemm, StateDict,
};

/// A library of FP8 recipes. One instance lives as long as the process.
pub trait Backend: Send + Sync + Sized + 'static {
    /// Prepares the backend; called once, after the library was checked.
    fn start(host: &Host) -> Result<Self>;

    /// Every recipe with its options, their types, defaults and meaning.
    fn recipes() -> Vec<RecipeInfo>;

    /// A recipe for one run. `options` hold every option of the recipe's schema, defaults filled in.
    fn recipe(&self, host: &Host, name: &str, options: &Options) -> Result<Box<dyn Recipe>>;

    /// The primitives behind the recipes, for benchmarks and the conformance suite.
    fn kernels(&self, _host: &Host) -> Option<Box<dyn Kernels>> {
        None
    }
}

/// One configured recipe of one run: decides per layer, creates the layers, owns what spans them.
pub trait Recipe: Send {
    /// The recipe as canonical JSON: name, options, formats, scale rules. Part of the run's identity.
    fn describe(&self) -> serde_json::Value;

    /// FP8 or high precision for this layer, with a reason a user understands.
    fn decide(&self, layer: &LayerFacts) -> Decision;

    /// The layer's arithmetic. Called once a layer, in the model's order, for layers decided as FP8.
    fn linear(&mut self, layer: &LayerFacts) -> Result<Box<dyn Linear>>;

    /// A point of the protocol has been reached.
    fn on(&mut self, event: Event) -> Result<()>;

    /// State that must survive a restart (amax histories, scales); empty for recipes without.
    fn state(&self) -> Result<StateDict> {
        Ok(StateDict::default())
    }

    /// Takes back what [`Recipe::state`] gave, after all layers were created.
    fn restore(&mut self, state: &StateDict) -> Result<()> {
        state.expect_empty()
    }

    /// Fails if a call whose signature has no error (`describe`, `decide`, `memory`, `counters`, …) has failed, in this
    /// recipe or its layers. That happens at the border to a loaded plugin only; authors leave it as it is. The engine
    /// asks after it has planned, and before it believes counters.
    fn healthy(&self) -> Result<()> {
        Ok(())
    }
}

/// One linear layer `y = x·Wᵀ`, with `x: [M, K]`, `W: [N, K]`, `y: [M, N]`. Bias is the engine's.
pub trait Linear: Send {
    /// Bytes to keep and to lend for `tokens` = M rows.
    fn memory(&self, tokens: usize) -> Memory;

    /// Operand formats the layer would take ready-made from the op that produces its input; empty: only tensors.
    fn input_formats(&self) -> Vec<InputFormat> {
        Vec::new()
    }

    /// `y = x·Wᵀ`.
    fn forward(&mut self, call: Forward<'_>) -> Result<()>;

    /// `dx = dy·W` and `dW += dyᵀ·x`.
    fn backward(&mut self, call: Backward<'_>) -> Result<()>;

    /// What has run so far, since the layer was created.
    fn counters(&self) -> Counters;
}

/// Primitives of a backend.
pub trait Kernels: Send + Sync {
    /// Casts a tensor to FP8 with scales.
    fn quantize(&self, call: Quantize<'_>) -> Result<()>;

    /// Multiplies FP8 operands.
    fn scaled_gemm(&self, call: ScaledGemm<'_>) -> Result<()>;
}

/// What is known of a linear layer before anything runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerFacts {
    /// The parameter's path without `.weight`, as Hugging Face names it: `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// K.
    pub in_features: usize,
    /// N.
    pub out_features: usize,
    /// The largest M of a micro-batch, where known.
    #[serde(default)]
    pub tokens: Option<usize>,
    /// Index of the decoder block, if it is in one.
    #[serde(default)]
    pub block: Option<usize>,
    /// Layers that read the very same input under the same recipe form a group and share its cast: all of them, in call
    /// order, this one included.
    #[serde(default)]
    pub group: Vec<String>,
    /// Where the layer's tensors and regions will lie, if not in the CPU's memory. Only a backend that says it works there
    /// is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
}

/// The precision of a layer's GEMMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// FP8 operands.
    Fp8,
    /// The activations' own precision.
    High,
}

/// A precision and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The precision.
    pub precision: Precision,
    /// Why, in words for the plan.
    pub reason: String,
    /// FP8 GEMMs a micro-batch with one forward and one backward runs: `[fprop, dgrad, wgrad]`, each 0 or 1.
    #[serde(default)]
    pub fp8_gemms: [u8; 3],
}

/// Points of the protocol that concern the whole recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// All layers have run forward for training; backward follows.
    ForwardDone,
    /// All layers have run backward.
    BackwardDone,
    /// The optimizer has stepped, or weights were loaded: caches made from weights are stale.
    WeightsChanged,
}
