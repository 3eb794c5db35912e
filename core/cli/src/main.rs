//! The `fp8flow` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A plugin that was never seen is first opened in a child process, which is this program: then nothing else is done.
    fp8flow_host::probe::run_if_child();
    fp8flow::main(std::env::args_os())
}
