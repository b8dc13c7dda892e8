//! `cargo xtask lab`: the commands.

use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum};

use super::state::State;
use super::{Fault, Lab, Options, WARM, fault, host, install, interrupt, supervise};

/// Arguments of `cargo xtask lab`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Boots hosts with systemd, nginx and shadowd on a bridge.
    Up {
        /// How many members, 1 to 8.
        #[arg(long, default_value_t = 2)]
        hosts: usize,
        /// Adds a witness `w`, so that a lease protects the group.
        #[arg(long)]
        witness: bool,
        /// Adds a spare `s`, which owns the group only while it is enlisted.
        #[arg(long)]
        spare: bool,
        /// Adds a client to the bridge.
        #[arg(long)]
        client: bool,
        /// Leaves shadowd out.
        #[arg(long)]
        bare: bool,
        /// Takes the binaries that are there, the newest of release and debug.
        #[arg(long)]
        no_build: bool,
    },
    /// Runs a command in a host, or where the client is (host `client`).
    Exec {
        /// Name of the host.
        host: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Breaks something.
    Fault {
        /// What.
        kind: Kind,
        /// Name of the host.
        host: String,
        /// The peer of a cut.
        #[arg(long)]
        to: Option<String>,
        /// Frames lost (loss), or share of a processor left (starve).
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=100))]
        percent: Option<u8>,
        /// The unit to stop or kill.
        #[arg(long, default_value = WARM)]
        unit: String,
    },
    /// Undoes every fault of a host and waits until it is well.
    Heal {
        /// Name of the host.
        host: String,
    },
    /// Shows the hosts.
    Status,
    /// Ends the lab, also what a crashed run left.
    Down,
    #[command(hide = true)]
    Supervise,
    #[command(hide = true)]
    BecomeHost { name: String },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Crash,
    DaemonKill,
    DaemonStop,
    UnitStop,
    UnitKill,
    LinkDown,
    Partition,
    CutOneWay,
    Cut,
    CutSecond,
    SecondLinkDown,
    Freeze,
    Loss,
    Starve,
    Reboot,
}

/// Runs one command of `cargo xtask lab`.
///
/// # Errors
/// The command fails; the message says how.
pub fn run(arguments: Args) -> Result<()> {
    match arguments.action {
        Action::Up {
            hosts,
            witness,
            spare,
            client,
            bare,
            no_build,
        } => {
            if !bare && !no_build {
                crate::build::run(crate::build::Args { release: true })?;
            }
            let binaries = match bare {
                true => None,
                false => Some(install::binaries()?),
            };
            up(&Options {
                hosts,
                witness,
                spare,
                client,
                tied: false,
                unguarded: false,
                binaries,
            })
        }
        Action::Exec { host, command } => exec(&host, &command),
        Action::Fault {
            kind,
            host,
            to,
            percent,
            unit,
        } => {
            let fault = match kind {
                Kind::Crash => Fault::Crash,
                Kind::DaemonKill => Fault::DaemonKill,
                Kind::DaemonStop => Fault::DaemonStop,
                Kind::UnitStop => Fault::UnitStop(unit),
                Kind::UnitKill => Fault::UnitKill(unit),
                Kind::LinkDown => Fault::LinkDown,
                Kind::Partition => Fault::Partition,
                Kind::CutOneWay => Fault::CutOneWay(to.context("cut-one-way needs --to PEER")?),
                Kind::Cut => Fault::Cut(to.context("cut needs --to PEER")?),
                Kind::CutSecond => Fault::CutSecond(to.context("cut-second needs --to PEER")?),
                Kind::SecondLinkDown => Fault::SecondLinkDown,
                Kind::Freeze => Fault::Freeze,
                Kind::Loss => Fault::Loss(percent.unwrap_or(30)),
                Kind::Starve => Fault::Starve(percent.unwrap_or(5)),
                Kind::Reboot => Fault::Reboot,
            };
            let at = Lab::attach()?.fault(&host, &fault)?;
            println!("host {host}: {fault:?} at boot_ns {at}");
            Ok(())
        }
        Action::Heal { host } => {
            Lab::attach()?.heal(&host)?;
            println!("host {host} is well");
            Ok(())
        }
        Action::Status => status(),
        Action::Down => down(),
        Action::Supervise => supervise::run(),
        Action::BecomeHost { name } => {
            let state = State::load()?.context("no lab")?;
            host::become_container(&state, state.host(&name)?)
        }
    }
}

fn up(options: &Options) -> Result<()> {
    let begin = Instant::now();
    let lab = Lab::up(options)?;
    println!(
        "lab {} is up after {:.1} s",
        lab.state().id,
        begin.elapsed().as_secs_f64()
    );
    status()
}

fn exec(host: &str, arguments: &[String]) -> Result<()> {
    let lab = Lab::attach()?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = match host {
        "client" => lab.client_command(&arguments)?,
        _ => lab.command(host, &arguments)?,
    };
    let status = command.status().context("cannot start nsenter")?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        // The command has said what was wrong; its exit status is passed on.
        (Some(code), _) => bail!("exit status {code}"),
        (None, signal) => bail!("ended by signal {}", signal.unwrap_or_default()),
    }
}

fn status() -> Result<()> {
    let lab = Lab::attach()?;
    for host in &lab.state().hosts {
        let state = fault::describe(lab.state(), host);
        println!("host {}  {}  {}  {state}", host.name, host.v4, host.v6);
    }
    if let Some(client) = &lab.state().client {
        println!("client in network namespace {client}");
    }
    Ok(())
}

fn down() -> Result<()> {
    interrupt::install()?;
    let Some(state) = State::load()? else {
        println!("no lab");
        return Ok(());
    };
    let begin = Instant::now();
    super::remove_all(&state)?;
    let left = super::leftovers(&state);
    if !left.is_empty() {
        bail!("lab {}: left behind: {}", state.id, left.join(", "));
    }
    println!(
        "lab {} is gone after {:.1} s",
        state.id,
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}
