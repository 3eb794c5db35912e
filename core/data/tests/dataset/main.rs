//! From dataset files and tokenizer folders to token sets.

#![cfg(test)]

mod chat;
mod common;
mod files;
mod real;
mod tokenize;
