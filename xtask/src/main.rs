//! Build and test commands.

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Systemd hosts on this machine.
    Lab(xtask::lab::Args),
    /// Capture and failover, shown.
    Demo(xtask::demo::Args),
    /// The measuring client.
    #[command(hide = true)]
    Probe(xtask::probe::Args),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Lab(arguments) => xtask::lab::run(arguments),
        Command::Demo(arguments) => xtask::demo::run(arguments),
        Command::Probe(arguments) => xtask::probe::run(arguments),
    }
}
