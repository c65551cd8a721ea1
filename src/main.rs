//! The `dsgd` program: hands its arguments to [`dsgd::cli`] and turns the outcome into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    dsgd::cli::main(std::env::args_os())
}
