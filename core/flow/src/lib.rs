//! The workflow engine: TOML to typed plan to resumable run.
