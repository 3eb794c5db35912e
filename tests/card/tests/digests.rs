//! Digests made on a card are those of the same bytes.

use std::sync::Arc;

use fp8flow_card_tests::card;
use fp8flow_tensor::{DType, Tensor, cuda};

#[test]
fn a_digest_of_any_length_is_that_of_the_bytes() {
    let Some(card) = card() else { return };
    for (elements, piece) in [
        (1, 1 << 10),
        (15, 1 << 10),
        (16, 1 << 10),
        (255, 1 << 10),
        (256, 1 << 10),
        (257, 4 << 10),
        (3 * 1024 + 5, 4 << 10),
        (70_001, 64 << 10),
        (300_000, 1 << 20),
    ] {
        let x: Vec<f32> = (0..elements).map(|i| (i as f32 * 0.37).sin()).collect();
        let memory = Arc::new(card.take(4 * elements).unwrap());
        let mut tensor = Tensor::on_card(memory, 0, DType::F32, 1, elements);
        tensor.set_f32(&x).unwrap();
        let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
        let expected: Vec<[u8; 32]> =
            bytes.chunks(piece).map(|piece| *blake3::hash(piece).as_bytes()).collect();
        assert_eq!(cuda::digests(&tensor, piece).unwrap(), expected, "{elements} floats, pieces of {piece}");
    }
}
