//! The conformance suite that a backend must pass.
