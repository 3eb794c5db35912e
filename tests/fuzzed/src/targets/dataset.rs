//! A dataset, read in every format.

use fp8flow_data::{Format, Records};

use crate::{Bound, Room, Target};

/// A row's JSON tree and its record.
pub(crate) const TARGET: Target =
    Target { name: "dataset", read, bound: Bound { factor: 256, constant: super::MIB } };

fn read(room: &Room, input: &[u8]) {
    let (json, text) = (room.write("rows.json", input), room.write("rows.txt", input));
    for (_, format) in Format::ALL {
        drain(Records::open(&json, format));
    }
    drain(Records::open(&text, Format::Text));
}

fn drain<E>(records: Result<Records, E>) {
    let Ok(records) = records else { return };
    let (mut number, mut failed) = (0, false);
    for row in records {
        assert!(!failed, "a row after an error");
        match row {
            Ok(row) => {
                assert_eq!(row.number, number + 1, "rows are counted");
                number = row.number;
            }
            Err(error) => {
                let _ = error.to_string();
                failed = true;
            }
        }
    }
}
