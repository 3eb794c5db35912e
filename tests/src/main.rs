//! The `fp8flow` command, built where Cargo tells these tests its path.

use std::process::ExitCode;

fn main() -> ExitCode {
    fp8flow_host::probe::run_if_child();
    fp8flow::main(std::env::args_os())
}
