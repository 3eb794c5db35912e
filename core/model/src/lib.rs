//! The Llama family: Hugging Face folders in and out, forward and backward.
