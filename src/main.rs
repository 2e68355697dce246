//! The `steadfast` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(steadfast::cli::run(std::env::args_os()).code())
}
