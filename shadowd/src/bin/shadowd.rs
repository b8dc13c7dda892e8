//! The daemon `shadowd`: reads its arguments and hands over to [`shadowd::run`].

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// The failover loop is real-time, the other threads are not. An allocator with locks (glibc's
/// arenas) lets the loop wait for a thread that a starved host does not let run: heartbeats stopped
/// for 400 ms so. This one gives memory of another thread back without a lock.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Keeps a shadow of this host ready, and takes over when the other dies.
#[derive(Debug, Parser)]
#[command(
    name = "shadowd",
    version,
    after_help = "Examples:\n  \
        shadowd --config /etc/shadowd/shadowd.toml          run (usually by `systemctl start shadowd`)\n  \
        shadowd --config /etc/shadowd/shadowd.toml --check  check it on this host and exit\n  \
        shadowd --config b.toml --check --file-only         check the file of another host\n  \
        shadowd --create-identity                           make this host's identity and print it\n  \
        shadowd --remove-guards                             let the kernel answer for all addresses again\n\n\
        Exit codes: 0 ended as asked or the file is good, 1 failed or the file is bad, 2 usage.\n\
        SHADOWD_LOG=shadowd=debug logs more."
)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/shadowd/shadowd.toml")]
    config: PathBuf,
    /// Check the configuration file, and that this host has the interfaces, networks and units that
    /// it names; exit; changes nothing.
    #[arg(long)]
    check: bool,
    /// Check the file alone, such as that of another host.
    #[arg(long, requires = "check")]
    file_only: bool,
    /// Make this host's identity if there is none, print it and exit.
    #[arg(long, conflicts_with = "check")]
    create_identity: bool,
    /// Take away what keeps virtual IPs silent without a lease, before shadowd is uninstalled; the
    /// daemon must not run.
    #[arg(long, conflicts_with_all = ["check", "create_identity"])]
    remove_guards: bool,
    /// Hold the place of a drill open; systemd starts this.
    #[arg(long, value_name = "JSON", hide = true)]
    drill_hold: Option<String>,
    /// Make one check of a drill; systemd starts this.
    #[arg(long, value_name = "JSON", hide = true)]
    drill_check: Option<String>,
    /// Carry out the acts planned in a folder; systemd starts this.
    #[arg(long, value_name = "DIR", hide = true)]
    provision: Option<PathBuf>,
    /// Undo the acts done in a folder; systemd starts this.
    #[arg(long, value_name = "DIR", hide = true)]
    provision_undo: Option<PathBuf>,
    /// Where the identity lives.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/shadowd",
        requires = "create_identity"
    )]
    state_dir: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = if let Some(place) = &arguments.drill_hold {
        shadowd::run::hold(place)
    } else if let Some(probe) = &arguments.drill_check {
        shadowd::run::check_one(probe)
    } else if let Some(dir) = &arguments.provision {
        shadowd::run::provision(dir)
    } else if let Some(dir) = &arguments.provision_undo {
        shadowd::run::undo(dir)
    } else if arguments.create_identity {
        shadowd::run::create_identity(&arguments.state_dir).map(|id| println!("{id}"))
    } else if arguments.check {
        let check = if arguments.file_only {
            shadowd::run::check_file
        } else {
            shadowd::run::check_configuration
        };
        check(&arguments.config).map(|settings| {
            let (groups, peers) = (settings.groups.len(), settings.peers.len());
            println!(
                "{}: good, {groups} groups, {peers} peers",
                arguments.config.display()
            );
        })
    } else if arguments.remove_guards {
        shadowd::run::remove_guards(&arguments.config)
    } else {
        shadowd::run::run(&arguments.config)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shadowd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
