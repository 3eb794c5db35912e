//! libFuzzer on the target that `FUZZ_TARGET` names; `run` beside this sets it.
#![no_main]

use std::sync::LazyLock;

use fp8flow_fuzzed::{Room, Target, keep_panics, last_panic};
use libfuzzer_sys::fuzz_target;

struct Fuzzed {
    target: &'static Target,
    room: Room,
}

static FUZZED: LazyLock<Fuzzed> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let target = Target::named(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name} is no target"));
    Fuzzed { target, room: Room::new() }
});

fuzz_target!(
    init: {
        // What is made once, at the first call, is no part of what an input costs.
        (FUZZED.target.read)(&FUZZED.room, b"");
        keep_panics();
    },
    |input: &[u8]| {
        if std::panic::catch_unwind(|| FUZZED.target.check(&FUZZED.room, input)).is_err() {
            eprintln!("{}", last_panic());
            std::process::abort();
        }
    }
);
