//! The page of the book lists the checks as they run.

#![cfg(test)]

use std::path::Path;

#[test]
fn the_page_of_the_book_lists_every_check_in_order() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/plugins/checks.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(rows.collect::<Vec<_>>(), fp8flow_testkit::checks().collect::<Vec<_>>());
    assert!(page.contains(&format!("one of {} faults", misbehaving::FAULTS.len())));
}
