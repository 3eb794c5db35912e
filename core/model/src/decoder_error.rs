//! What can go wrong while a model runs.

/// A failure of running a model.
#[derive(Debug, thiserror::Error)]
pub enum DecoderError {
    /// A backend failed in a layer, which its error names.
    #[error("{source}")]
    Layer {
        /// The layer.
        layer: String,
        /// What the backend said.
        source: fp8flow_sdk::Error,
    },
    /// A backend failed outside a layer.
    #[error("the backend failed: {0}")]
    Backend(#[from] fp8flow_sdk::Error),
    /// A layer has no weight.
    #[error("layer `{0}` has no weight among the parameters; this is a bug")]
    NoParameter(String),
    /// The input of a layer was not kept.
    #[error("the input of layer `{0}` was not kept for backward; this is a bug")]
    NoInput(String),
    /// The card has failed, or has no room.
    #[error("the card: {0}")]
    Card(#[from] fp8flow_tensor::CardError),
    /// A micro-batch does not fit the memory that was planned, or is not one.
    #[error("micro-batch: {0}")]
    Batch(String),
}

impl DecoderError {
    pub(crate) fn layer(layer: &str, source: fp8flow_sdk::Error) -> Self {
        Self::Layer { layer: layer.into(), source }
    }
}
