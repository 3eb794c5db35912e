//! TensorBoard's event files: records of protocol buffers, each framed by its length and two checksums.
//!
//! ```text
//! record   length: u64 LE, masked CRC32C of these 8 bytes: u32 LE, data, masked CRC32C of the data: u32 LE
//! Event    1: wall_time double, 2: step int64, 3: file_version string, 5: Summary
//! Summary  1: repeated Value { 1: tag string, 2: simple_value float }
//! ```

/// The record that a file begins with.
pub(crate) fn beginning(time: f64) -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, time).bytes(3, b"brain.Event:2");
    record(&event.0)
}

/// A record of `scalars` after `step`, at `time` in seconds since 1970.
pub(crate) fn scalars(time: f64, step: u64, scalars: &[(&str, f64)]) -> Vec<u8> {
    let mut summary = Message::default();
    for (tag, value) in scalars {
        let mut inner = Message::default();
        inner.bytes(1, tag.as_bytes()).float(2, *value as f32);
        summary.bytes(1, &inner.0);
    }
    let mut event = Message::default();
    event.double(1, time).integer(2, step).bytes(5, &summary.0);
    record(&event.0)
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length, &masked(&length)[..], data, &masked(data)].concat()
}

/// A checksum that may stand in what is checksummed again.
fn masked(bytes: &[u8]) -> [u8; 4] {
    let sum = crc32c::crc32c(bytes);
    sum.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// A protocol buffer in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn integer(&mut self, field: u64, value: u64) -> &mut Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn double(&mut self, field: u64, value: f64) -> &mut Self {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) -> &mut Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn float(&mut self, field: u64, value: f32) -> &mut Self {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hexadecimal: &str) -> Vec<u8> {
        let digits: Vec<u32> = hexadecimal.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }

    /// Written by TensorBoard's own `RecordWriter` from its own `Event`.
    #[test]
    fn records_have_the_bytes_that_tensorboard_writes() {
        assert_eq!(
            beginning(1.5),
            bytes("1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c")
        );
        assert_eq!(
            scalars(2.5, 300, &[("train/loss", 0.5), ("eval/loss", 2.25)]),
            bytes(
                "33000000000000000ca7205609000000000000044010ac022a250a110a0a747261696e2f6c6f7373150000003f0a100a0965\
             76616c2f6c6f73731500001040e8a3bd81"
            )
        );
    }
}
