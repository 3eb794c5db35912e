//! What all stages share: the device, the threads and where plugins are looked for.

use std::path::PathBuf;
use std::sync::Arc;

use fp8flow_sdk::Host;
use fp8flow_tensor::Device;

/// What the binary lends the stages of every run.
#[derive(Clone)]
pub struct Engine {
    /// Runs the operations of models.
    pub device: Arc<dyn Device>,
    /// What plugins are lent.
    pub host: Host,
    /// Folders and files given on the command line to look for plugins in.
    pub plugin_paths: Vec<PathBuf>,
}
