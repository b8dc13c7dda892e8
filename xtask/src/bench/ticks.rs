//! What a tick costs the daemon with 1,000, 10,000 and 100,000 live flows.
//!
//! Both ends of every connection are of this host, so half as many connections make the flows. They
//! are held by processes of their own, since a process may open so many files only.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::daemon::Daemon;
use super::report::Metric;
use crate::build;
use crate::command::spawn;

/// Live flows, each ten times the one before.
const FLOWS: [usize; 3] = [1_000, 10_000, 100_000];
const NAMES: [&str; 3] = ["tick_1k_flows", "tick_10k_flows", "tick_100k_flows"];
/// Connections that one process holds, all to one address of loopback: fewer than there are
/// ephemeral ports, and than half of the files that a process may open.
const BY_HOLDER: usize = 5_000;
/// Ticks measured at each step; a tick is a second.
const TICKS: u32 = 20;
/// Until the daemon shows the connections.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `hold` accepts.
#[derive(clap::Args, Debug, Clone)]
pub struct HoldArgs {
    /// The last byte of the address, 127.0.2.N
    pub address: u8,
    /// Connections
    pub connections: usize,
}

/// Opens connections to itself and keeps them until its input ends.
///
/// # Errors
/// They cannot be opened.
pub fn hold(args: &HoldArgs) -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 2, args.address), 0))?;
    let server: SocketAddr = listener.local_addr()?;
    let mut open = Vec::with_capacity(args.connections);
    for _ in 0..args.connections {
        let client = TcpStream::connect(server).context("no more connections can be opened")?;
        open.push((client, listener.accept()?));
    }
    println!("open");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// A process that holds connections, ended when it goes out of scope.
struct Holder(Child);

impl Holder {
    fn start(address: u8, connections: usize) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["hold", &address.to_string(), &connections.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut holder = Self(spawn(&mut command)?);
        let output = holder.0.stdout.take().context("it has a pipe")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line.trim() == "open", "the connections were not opened");
        Ok(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Processor time of a tick; the peer is the step before, so 10 is linear.
///
/// # Errors
/// The connections cannot be made, or the daemon does not see them.
pub fn run() -> Result<Vec<Metric>> {
    build::run(build::Args { release: true })?;
    let daemon = Daemon::start("")?;
    let mut holders = Vec::new();
    let mut held = 0;
    let mut metrics: Vec<Metric> = Vec::new();
    let mut before = f64::NAN;
    for (flows, name) in FLOWS.into_iter().zip(NAMES) {
        while held < flows / 2 {
            let more = BY_HOLDER.min(flows / 2 - held);
            let address = u8::try_from(holders.len() + 1).context("too many connections")?;
            holders.push(Holder::start(address, more)?);
            held += more;
        }
        wait_for(&daemon, flows)?;
        let (began, cpu) = (Instant::now(), daemon.cpu()?);
        std::thread::sleep(Duration::from_secs(u64::from(TICKS)));
        let used = daemon.cpu()?.saturating_sub(cpu).as_secs_f64();
        let millis = used * 1_000.0 / began.elapsed().as_secs_f64();
        let first = metrics.is_empty();
        metrics.push(Metric {
            name,
            value: millis,
            unit: "ms/tick",
            peer: if first {
                "itself"
            } else {
                "a tenth of the flows"
            },
            ratio: if first { 1.0 } else { millis / before },
            spread: 0.0,
        });
        before = millis;
    }
    drop(holders);
    daemon.stop()?;
    Ok(metrics)
}

/// Until the daemon counts as many open connections.
fn wait_for(daemon: &Daemon, flows: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = daemon.ask(&["flows"])?;
        let open = answer["flows"].as_array().into_iter().flatten();
        let seen: u64 = open.filter_map(|flow| flow["open"].as_u64()).sum();
        if seen >= flows as u64 {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the daemon sees {seen} open connections of {flows}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}
