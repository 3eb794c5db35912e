//! The reference of the SDK: its own doc comments, as a page.
