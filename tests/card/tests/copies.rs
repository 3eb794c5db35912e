//! Copies to a card and back, small ones and those that go by way of pinned memory.

use fp8flow_card_tests::card;

#[test]
fn what_was_written_is_read_at_any_length_and_place() {
    let Some(card) = card() else { return };
    let most = (48 << 20) + 7;
    let bytes: Vec<u8> = (0..most).map(|i: usize| (i % 251) as u8 ^ (i >> 12) as u8).collect();
    let memory = card.take(most + 300).expect("room");
    for len in [1, 1 << 20, 16 << 20, (16 << 20) + 1, (32 << 20) + 5, most] {
        for offset in [0, 300] {
            memory.fill(0, memory.bytes(), 0xa5).expect("filled");
            memory.write(offset, &bytes[..len]).expect("written");
            // One right behind the other: pieces are used again.
            memory.write(offset, &bytes[..len]).expect("written");
            let mut found = vec![0; len];
            memory.read(offset, &mut found).expect("read");
            assert!(found == bytes[..len], "{len} bytes at {offset}");
            let mut after = vec![0; memory.bytes() - offset - len];
            memory.read(offset + len, &mut after).expect("read");
            assert!(after.iter().all(|byte| *byte == 0xa5), "behind {len} bytes at {offset}");
        }
    }
}
