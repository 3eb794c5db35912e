//! Why a plugin cannot be examined where it was to be.

/// Nothing was tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// No device is called so.
    #[error("unknown device `{0}`")]
    Unknown(String),
    /// The plugin does not say that it works on cards.
    #[error("plugin `{plugin}` runs on {devices} alone, and `{device}` is a card")]
    NotForCards {
        /// Its name.
        plugin: String,
        /// What it says that it works on.
        devices: String,
        /// What was asked for.
        device: String,
    },
    /// There is no such card, or it is of no use.
    #[error("the card cannot be used: {0}")]
    NoCard(String),
}

impl Unfit {
    /// What to do.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "Use cpu, cuda or cuda:N with the number of a card.",
            Self::NotForCards { .. } => {
                "Leave out `--device` to try it in the CPU's memory. If it works on cards, it says `devices = [\"cpu\", \
                 \"cuda\"]` in `export_backend!`, or in its manifest."
            }
            Self::NoCard(_) => {
                "`fp8flow doctor` shows what was found. Without `--device` the plugin is tried in the CPU's memory."
            }
        }
    }
}
