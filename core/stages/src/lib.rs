//! The built-in stages.
