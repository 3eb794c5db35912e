//! The whole trainer against PyTorch: logits, gradients and losses of a small Llama, in f32 and in FP8.

#![cfg(test)]

mod fp8;
mod golden;
mod pytorch;
