//! The query tool: reads arguments, runs one command, turns its outcome into an exit code.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use shadowd::cli::args::Arguments;
use shadowd::cli::{self, Failure};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // Help and version arrive here too, with code 0; closed output is no failure of theirs.
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(io::stderr(), "shadowctl: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let mut out = io::BufWriter::new(stdout.lock());
    let outcome = runtime
        .block_on(cli::run(arguments, &mut out, terminal))
        .and_then(|()| out.flush().map_err(Failure::from));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_output() => ExitCode::SUCCESS,
        Err(failure) => {
            // What was shown before the failure comes first.
            let _ = out.flush();
            explain(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// One line for what failed and why, one for what to do.
fn explain(failure: &Failure) {
    let mut line = format!("shadowctl: {failure}");
    let mut cause = failure.source();
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        cause = error.source();
    }
    if let Some(remedy) = failure.remedy() {
        line.push_str(&format!("\n  try: {remedy}"));
    }
    let _ = writeln!(io::stderr(), "{line}");
}
