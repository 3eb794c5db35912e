//! Every input that is kept, read again: those that fuzzing found worth keeping, and those that once were a finding.

use std::panic::{AssertUnwindSafe, catch_unwind, take_hook};

use fp8flow_fuzzed::{Room, TARGETS, keep_panics, last_panic};

/// One test, because memory is counted for the whole process.
#[test]
fn every_kept_input_is_read_without_a_panic_and_within_its_memory() {
    let room = Room::new();
    keep_panics();
    for target in TARGETS {
        // What is made once, at the first call, is no part of what an input costs.
        (target.read)(&room, b"");
        let (mut count, mut most) = (0, 0.0_f64);
        for folder in target.kept() {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.expect("a file").path();
                let input = std::fs::read(&path).expect("a file");
                let check = || target.check(&room, &input);
                let Ok(held) = catch_unwind(AssertUnwindSafe(check)) else {
                    drop(take_hook());
                    panic!("{}: {}", path.display(), last_panic());
                };
                most = most.max(held as f64 / target.bound.most(input.len()) as f64);
                count += 1;
            }
        }
        assert!(count > 0, "no input is kept for {}", target.name);
        println!(
            "{}: {count} inputs, at most {:.0} % of the memory they may take",
            target.name,
            most * 100.0
        );
    }
}
