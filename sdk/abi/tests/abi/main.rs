//! What has been published of the ABI, and that it changes by growing at its end only.

#![cfg(test)]

mod header;
mod rust_road;
mod snapshot;

use snapshot::{Section, bless_or_compare};

#[test]
fn published_layouts_only_grow_at_their_end() {
    let mut sections: Vec<Section> = header::structs().iter().map(header::Struct::section).collect();
    sections.extend(header::enums());
    sections.extend(rust_road::sections());
    bless_or_compare(&sections);
}
