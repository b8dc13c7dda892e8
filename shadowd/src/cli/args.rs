//! The command line of `shadowctl`, and the help that teaches it.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::failover::Failover;
use super::profile::{ProfileCommand, ReadyArguments};
use super::provider::Provider;
use super::time::{Moment, moment};
use crate::facts::Name;
use crate::serve::protocol::{DEFAULT_EVENTS, DEFAULT_SOCKET, MAX_EVENTS};

/// Names the socket when `--socket` does not.
pub const SOCKET_VARIABLE: &str = "SHADOWD_SOCKET";

const AFTER_HELP: &str = "\
Examples:
  shadowctl status                         groups, members, addresses, peers, probes
  shadowctl top --sort mem --watch 2       units and processes by memory, redrawn each 2 s
  shadowctl flows --unit nginx.service     who talks to nginx
  shadowctl top --at '10m ago'             what was active ten minutes ago
  shadowctl events --follow                what happens, as it happens
  sudo shadowctl failover handover web --to b
  sudo shadowctl failover maintenance --all on --for 30m
  shadowctl --json status | jq '.groups[].role'

Exit codes:
  0  done
  1  the daemon refused or failed
  2  wrong usage
  3  the daemon is not reachable
  4  no permission
  5  the answer was not understood: shadowctl and shadowd differ in version

Colours appear on a terminal only, and never when NO_COLOR is set.";

/// Shows what shadowd sees and does on this host, and asks it to hand a group over.
#[derive(Debug, Parser)]
#[command(name = "shadowctl", version, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Arguments {
    /// Print JSON: one document, or one line for each event or redraw with --follow and --watch
    #[arg(long, global = true)]
    pub json: bool,

    /// The daemon's socket [default: $SHADOWD_SOCKET, else /run/shadowd/shadowd.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// What to show or do.
    #[command(subcommand)]
    pub command: Command,
}

impl Arguments {
    /// The socket to use: the option, else the variable, else the default.
    pub fn socket_path(&self) -> PathBuf {
        self.socket
            .clone()
            .or_else(|| {
                std::env::var_os(SOCKET_VARIABLE)
                    .filter(|path| !path.is_empty())
                    .map(PathBuf::from)
            })
            .unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET))
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Groups, members, virtual IPs, peers, probes, losses
    #[command(after_help = "\
Read it from the top: a group's line says this host's role and who is active; yellow and red lines
are what an operator should look at.

Examples:
  shadowctl status
  shadowctl status --watch 1
  shadowctl --json status | jq -r '.groups[] | \"\\(.group) \\(.active)\"'")]
    Status(Watch),
    /// Units, then processes, by what they used in the last interval
    #[command(after_help = "\
On a terminal it is a live view: ? shows its keys, q leaves it. In a pipe, with --once or with --json
it is a table, shown once or, with --watch, again and again.

CPU is a share of one processor: 100 % is one busy core. ERR counts system calls that failed.

Examples:
  shadowctl top
  shadowctl top --sort syscalls --limit 5
  shadowctl top --once --wide
  shadowctl top --watch 2 | ts
  shadowctl top --at '2026-11-20 14:03'      what was active then, from the history")]
    Top(TopArguments),
    /// What passed between processes and remote hosts, TCP and UDP
    #[command(after_help = "\
One line stands for all connections of one process with one remote service or client. Bytes are
payload since capture began. `->` was opened by this host, `<-` by the remote.

Examples:
  shadowctl flows --unit nginx.service
  shadowctl flows --remote 192.0.2.7
  shadowctl flows --port 443 --direction out --sort rtt
  shadowctl flows --since 10m                what passed in the last ten minutes")]
    Flows(FlowsArguments),
    /// System calls of units, or of the processes of one: how many, which errors, how long
    #[command(after_help = "\
All of the last interval. P50 and P99 are at most a factor of two from the truth.

Examples:
  shadowctl syscalls
  shadowctl syscalls --unit nginx.service
  shadowctl syscalls --pid 812 --watch 1")]
    Syscalls(SyscallsArguments),
    /// Who depends on whom: units, the services they use, the clients they serve
    #[command(after_help = "\
`->` is what the unit uses, `<-` who comes to it. Clients are grouped by network (/24, /64). Rates
are of the last interval, failures since capture began.

Examples:
  shadowctl map
  shadowctl map --svg --output map.svg
  shadowctl map --dot | dot -Tpdf > map.pdf")]
    Map(MapArguments),
    /// What each unit used in the last interval
    #[command(after_help = "\
Examples:
  shadowctl units
  shadowctl units --at '10m ago'
  shadowctl --json units | jq '.units[] | select(.exits > 0)'")]
    Units(UnitsArguments),
    /// What was recorded, interval by interval
    #[command(after_help = "\
Older intervals are recorded by the minute. Ctrl-C ends it.

Examples:
  shadowctl replay                                  the last ten minutes
  shadowctl replay --from 14:00 --to 14:05 --speed 10
  shadowctl --json replay --from '1h ago' | jq -c '.observation.host.cpu'")]
    Replay(ReplayArguments),
    /// The probes: how each feature is fed, what it lost, what it costs
    #[command(after_help = "\
RUNS/S and NS/RUN are the kernel's own measurement of the programs; CPU is what they make of one
processor. SEEN, DROPPED, UNATTR and FILTERED are totals since capture began and together are all
that happened. Below the table: why a better hook is not in use, and what a feature cannot see.

Examples:
  shadowctl probes
  shadowctl --json probes | jq '.probes[] | {name, hook, cost_ns}'")]
    Probes(Watch),
    /// The other hosts, and how their links are
    #[command(after_help = "\
FORGED and REPLAYED datagrams changed nothing; a number that grows means that somebody tries, or
that a peer's identity is configured wrongly.

Example:
  shadowctl peers")]
    Peers(Watch),
    /// What happened: decisions, their causes, their steps
    #[command(after_help = "\
Events are numbered. A script remembers the last number and asks for what came since.

Examples:
  shadowctl events --limit 20
  shadowctl events --since 1500
  shadowctl --json events --follow | jq -c 'select(.kind == \"claimed\")'")]
    Events(EventsArguments),
    /// Hooks and alerts: what they are at, and what came of the last notice
    #[command(after_help = "\
OK were taken well, FAILED ended badly, were killed at their deadline or were given up, SKIPPED were
overtaken by newer ones. What a hook printed: journalctl -u shadowd-hook-NAME

Examples:
  shadowctl hooks
  sudo shadowctl hooks test dns
  shadowctl --json hooks | jq '.receivers[] | {name, last}'")]
    Hooks(HooksArguments),
    /// This host's identity, as the peers' configurations name it
    #[command(after_help = "\
Without a running daemon the identity is read from the state directory.

Examples:
  shadowctl id
  shadowctl id --state-dir /var/lib/shadowd")]
    Id(IdArguments),
    /// Whether this host could take its groups over: its state against the profile
    #[command(after_help = "\
Ends with 0 if everything is ready, or this host owns the group; with 1 if something is not, or nobody
can tell.

Examples:
  shadowctl ready
  shadowctl ready web --all
  shadowctl --json ready | jq -r '.groups[].readiness.items[] | select(.verdict == \"not_ready\")'")]
    Ready(ReadyArguments),
    /// What should be running for a group, as it was learned
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Change who owns a group
    #[command(subcommand)]
    Failover(Failover),
    /// Create a spare for a group whose redundancy is lost: shadowd asks, this answers
    #[command(subcommand)]
    Provider(Provider),
    /// Print a completion script
    #[command(after_help = "\
Example:
  shadowctl completion bash > /etc/bash_completion.d/shadowctl")]
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// Repetition.
#[derive(Clone, Copy, Debug, Args)]
pub struct Watch {
    /// Show it again each SECONDS, until interrupted
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub watch: Option<u64>,
}

/// Arguments of `hooks`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct HooksArguments {
    /// Repetition.
    #[command(flatten)]
    pub watch: Watch,
    /// What to do instead of showing them.
    #[command(subcommand)]
    pub command: Option<HooksCommand>,
}

/// What can be done with hooks and alerts.
#[derive(Clone, Debug, Subcommand)]
pub enum HooksCommand {
    /// Tell one of them a test, and wait for what comes of it
    Test {
        /// The hook or the alert
        name: Name,
    },
}

/// What `top` sorts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Processor time
    Cpu,
    /// Resident memory
    Mem,
    /// System calls
    Syscalls,
}

/// Arguments of `top`.
#[derive(Clone, Copy, Debug, Args)]
pub struct TopArguments {
    /// Sort by this, largest first
    #[arg(long, value_enum, default_value_t = Sort::Cpu)]
    pub sort: Sort,
    /// At most so many units and so many processes [default: 20 in tables, all in JSON]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// A table instead of the live view
    #[arg(long)]
    pub once: bool,
    /// More columns: about 200 characters
    #[arg(long)]
    pub wide: bool,
    /// What was recorded at this time, instead of what is now
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "watch")]
    pub at: Option<Moment>,
    /// Repetition; between two answers of the live view
    #[command(flatten)]
    pub watch: Watch,
}

/// Arguments of `units`.
#[derive(Clone, Copy, Debug, Args)]
pub struct UnitsArguments {
    /// More columns: about 200 characters
    #[arg(long)]
    pub wide: bool,
    /// What was recorded at this time, instead of what is now
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "watch")]
    pub at: Option<Moment>,
    /// Repetition.
    #[command(flatten)]
    pub watch: Watch,
}

/// Arguments of `syscalls`.
#[derive(Clone, Debug, Args)]
pub struct SyscallsArguments {
    /// Only this unit, and its processes; `.service` may be left out
    #[arg(long, value_name = "UNIT")]
    pub unit: Option<String>,
    /// Only this process
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,
    /// Repetition.
    #[command(flatten)]
    pub watch: Watch,
}

/// Arguments of `map`.
#[derive(Clone, Debug, Args)]
pub struct MapArguments {
    /// As a graph for Graphviz
    #[arg(long, conflicts_with_all = ["svg", "json"])]
    pub dot: bool,
    /// As a picture
    #[arg(long, conflicts_with = "json")]
    pub svg: bool,
    /// Into this file instead of the output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// At most so many units, services and networks; the others are summed
    #[arg(long, value_name = "N", default_value_t = 40,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub nodes: u32,
    /// At most so many edges
    #[arg(long, value_name = "N", default_value_t = 80,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub edges: u32,
}

/// Which transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WantedProtocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WantedDirection {
    /// The remote
    In,
    /// This host
    Out,
}

/// What `flows` sorts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlowSort {
    /// Bytes both ways, since capture began
    Bytes,
    /// Bytes both ways in the last interval
    Rate,
    /// Connections since capture began
    Connections,
    /// Mean round trip
    Rtt,
    /// Segments sent again
    Retransmits,
    /// Connects that failed
    Failed,
    /// Name of the unit
    Unit,
}

/// Arguments of `replay`.
#[derive(Clone, Copy, Debug, Args)]
pub struct ReplayArguments {
    /// From this time on
    #[arg(long, value_name = "TIME", value_parser = moment, default_value = "10m ago")]
    pub from: Moment,
    /// Until this time
    #[arg(long, value_name = "TIME", value_parser = moment, default_value = "now")]
    pub to: Moment,
    /// So many times as fast as it happened; at once if left out
    #[arg(long, value_name = "FACTOR", value_parser = speed)]
    pub speed: Option<f64>,
}

fn speed(text: &str) -> Result<f64, String> {
    let legal = |factor: &f64| (0.01..=100_000.0).contains(factor);
    let factor = text.parse().ok().filter(legal);
    factor.ok_or_else(|| "a factor from 0.01 to 100000".to_owned())
}

/// Arguments of `flows`.
#[derive(Clone, Debug, Args)]
pub struct FlowsArguments {
    /// Only this unit; `.service` may be left out
    #[arg(long, value_name = "UNIT")]
    pub unit: Option<String>,
    /// Only this remote address
    #[arg(long, value_name = "IP")]
    pub remote: Option<IpAddr>,
    /// Only this port, of either end
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Only this protocol
    #[arg(long, value_enum, value_name = "PROTO")]
    pub proto: Option<WantedProtocol>,
    /// Only what the remote opened (in) or what this host opened (out)
    #[arg(long, value_enum)]
    pub direction: Option<WantedDirection>,
    /// Sort by this, largest first
    #[arg(long, value_enum, default_value_t = FlowSort::Bytes)]
    pub sort: FlowSort,
    /// More columns
    #[arg(long)]
    pub wide: bool,
    /// What passed from this time on, from the history
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "watch")]
    pub since: Option<Moment>,
    /// With --since: until this time
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "since")]
    #[arg(default_value_if("since", clap::builder::ArgPredicate::IsPresent, "now"))]
    pub until: Option<Moment>,
    /// Repetition.
    #[command(flatten)]
    pub watch: Watch,
}

/// Arguments of `events`.
#[derive(Clone, Copy, Debug, Args)]
pub struct EventsArguments {
    /// Only events with a larger number
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub since: u64,
    /// The newest so many
    #[arg(long, value_name = "N", default_value_t = DEFAULT_EVENTS,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_EVENTS)))]
    pub limit: u32,
    /// Go on with what happens, until interrupted
    #[arg(long)]
    pub follow: bool,
}

/// Arguments of `id`.
#[derive(Clone, Debug, Args)]
pub struct IdArguments {
    /// Where the identity lies when no daemon runs
    #[arg(long, value_name = "DIR", default_value = "/var/lib/shadowd")]
    pub state_dir: PathBuf,
}

#[cfg(test)]
mod tests;
