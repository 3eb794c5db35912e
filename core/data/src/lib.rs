//! Datasets, chat templates, tokenization, packing and batches.
