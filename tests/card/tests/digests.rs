//! Digests made on a card are those of the same bytes.

#![allow(clippy::unwrap_used, reason = "a card that fails fails the test")]

use std::sync::Arc;

use fp8flow_card_tests::card;
use fp8flow_tensor::cuda::Digester;
use fp8flow_tensor::digest::{DIGEST, digest};
use fp8flow_tensor::{Card, DType, Tensor};

/// A tensor of so many elements and its bytes.
fn numbers(card: &Card, elements: usize) -> (Tensor, Vec<u8>) {
    let x: Vec<f32> = (0..elements).map(|i| (i as f32 * 0.37).sin()).collect();
    let memory = Arc::new(card.take(4 * elements).unwrap());
    let mut tensor = Tensor::on_card(memory, 0, DType::F32, 1, elements);
    tensor.set_f32(&x).unwrap();
    (tensor, x.iter().flat_map(|x| x.to_le_bytes()).collect())
}

fn expected(bytes: &[u8], piece: usize) -> Vec<[u8; DIGEST]> {
    bytes.chunks(piece).map(digest).collect()
}

#[test]
fn a_digest_of_any_length_is_that_of_the_bytes() {
    let Some(card) = card() else { return };
    let mut digester = Digester::default();
    for (elements, piece) in [
        (1, 1 << 10),
        (15, 1 << 10),
        (16, 1 << 10),
        (60, 1 << 10),
        (64, 1 << 10),
        (65, 1 << 10),
        (255, 1 << 10),
        (256, 1 << 10),
        (257, 4 << 10),
        (3 * 1024 + 5, 4 << 10),
        (70_001, 64 << 10),
        (300_000, 1 << 20),
    ] {
        let (tensor, bytes) = numbers(&card, elements);
        let found = digester.digests(&[tensor], piece).unwrap();
        assert_eq!(found, expected(&bytes, piece), "{elements} floats, pieces of {piece}");
    }
}

#[test]
fn digests_of_many_tensors_at_once_are_those_of_each() {
    let Some(card) = card() else { return };
    let piece = 4 << 10;
    let mut digester = Digester::default();
    assert!(digester.digests(&[], piece).unwrap().is_empty());
    // More tensors than before, fewer, and some without elements.
    for lengths in [&[5, 4096, 0, 0, 1024, 1025, 3, 0][..], &[0, 2048], &[0], &[7; 40], &[1; 3]] {
        let (tensors, bytes): (Vec<_>, Vec<_>) = lengths.iter().map(|n| numbers(&card, *n)).unzip();
        let expected: Vec<_> = bytes.iter().flat_map(|bytes| expected(bytes, piece)).collect();
        assert_eq!(digester.digests(&tensors, piece).unwrap(), expected, "{lengths:?}");
    }
}
