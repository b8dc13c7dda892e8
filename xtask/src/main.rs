//! `cargo xtask`: every command a person needs to build, check and try shadowd.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use xtask::setup::Part;
use xtask::{bench, build, demo, fuzz, lab, lint, probe, prove, setup, sim, test};

/// Build, check and try shadowd.
///
/// On a fresh machine two commands are enough:
///   cargo xtask demo    two hosts, a client, faults, and the outage each fault cost
///   cargo xtask test    everything the project checks about itself
///
/// Each command installs what it needs first; `cargo xtask setup --check` says what that would be.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing need, with the distribution's package manager
    Setup(setup::Args),
    /// Build the daemon, the client and the kernel side
    Build(build::Args),
    /// Check format, clippy, import edges, sizes, and that the tree matches its description
    Lint,
    /// Run the tests: unit, sim, hosts, kernels
    Test(test::Args),
    /// Seeded runs of the failover core on a simulated network
    Sim(sim::Args),
    /// Damaged bytes for every decoder of hostile input, for as long as wanted
    Fuzz(fuzz::Args),
    /// Systemd hosts on this machine: up, exec, fault, heal, down
    Lab(lab::Args),
    /// Capture and failover on two hosts, each fault with the outage that a client measured
    Demo(demo::Args),
    /// The client that measures outages; the lab starts it inside its client namespace
    #[command(hide = true)]
    Probe(probe::Args),
    /// Captures every frame and shows that no two hosts answer for a virtual IP at the same instant
    Prove(prove::Args),
    /// Measure, always as a ratio to a peer in the same run
    Bench(bench::Args),
    /// Holds connections open for the bench `ticks`, which has too few descriptors for all of them
    #[command(hide = true)]
    Hold(bench::ticks::HoldArgs),
}

fn main() -> ExitCode {
    let Some(task) = Cli::parse().task else {
        // Help that was not asked for is still the answer, but nothing was done: print and say so.
        let _ = Cli::command().print_long_help();
        return ExitCode::from(2);
    };
    let done = match task {
        Task::Setup(args) => setup::run(args),
        Task::Build(args) => build::run(args),
        Task::Lint => lint::run(),
        Task::Test(args) => test::run(args),
        Task::Sim(args) => sim::start(&args),
        Task::Fuzz(args) => fuzz::start(&args),
        Task::Lab(args) => setup::ensure(&[Part::Hosts]).and_then(|()| lab::run(args)),
        Task::Demo(args) => {
            setup::ensure(&[Part::Build, Part::Hosts]).and_then(|()| demo::run(args))
        }
        Task::Probe(args) => probe::run(args),
        Task::Prove(args) => {
            setup::ensure(&[Part::Build, Part::Hosts]).and_then(|()| prove::run(&args))
        }
        Task::Bench(args) => bench::run(args),
        Task::Hold(args) => bench::ticks::hold(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
