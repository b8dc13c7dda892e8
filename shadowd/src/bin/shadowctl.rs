//! The query tool: reads arguments, runs one command, turns its outcome into an exit code.

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
            let _ = writeln!(io::stderr(), "shadowctl: {}", failure.explain());
            ExitCode::from(failure.exit_code())
        }
    }
}
