//! What ends the process ends it in the check that looks for it: tried in a child, which is this test again.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use fp8flow_testkit::run_some;
use misbehaving::{Fault, SEGFAULTS, Toy, WRITES_FAR, check_for};

/// Says to the child which check it runs.
const CHECK: &str = "FP8FLOW_TEST_CHECK";
const SIGSEGV: i32 = 11;

/// Runs the check that must find `FAULT`, and no other, in a child, which must end by a segmentation fault.
fn ends<const FAULT: Fault>(test: &str) {
    let due = check_for(FAULT);
    if std::env::var_os(CHECK).is_some_and(|check| check == due) {
        println!("{}", run_some::<Toy<FAULT>>(|check| check == due));
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).env(CHECK, due).stdout(Stdio::null()).stderr(Stdio::null());
    assert_eq!(child.status().unwrap().signal(), Some(SIGSEGV), "{due}");
}

#[test]
fn a_write_far_beyond_the_output_ends_the_process_between_pages() {
    ends::<WRITES_FAR>("crashes::a_write_far_beyond_the_output_ends_the_process_between_pages");
}

#[test]
fn a_segmentation_fault_ends_the_process_in_its_check() {
    ends::<SEGFAULTS>("crashes::a_segmentation_fault_ends_the_process_in_its_check");
}
