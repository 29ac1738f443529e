//! The program behind `cargo xtask quickstart`: it parses its few flags and runs [`alcedo_testkit::quickstart`].

use std::process::ExitCode;

use alcedo_testkit::quickstart::{self, Options};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => return fail(&problem, 2),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start a runtime: {error}"), 1),
    };
    match runtime.block_on(quickstart::run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

#[allow(clippy::print_stderr)] // A program's own error message.
fn fail(problem: &str, code: u8) -> ExitCode {
    eprintln!("error: {problem}");
    ExitCode::from(code)
}
