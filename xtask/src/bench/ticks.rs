//! What a tick costs the daemon with 1,000, 10,000 and 100,000 live flows.
//!
//! Both ends of every connection are of this host, so half as many connections make the flows.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, setrlimit};

use super::daemon::Daemon;
use super::report::Metric;
use crate::build;

/// Live flows, each ten times the one before.
const FLOWS: [usize; 3] = [1_000, 10_000, 100_000];
const NAMES: [&str; 3] = ["tick_1k_flows", "tick_10k_flows", "tick_100k_flows"];
/// Connections to one address of loopback; fewer than there are ephemeral ports.
const BY_ADDRESS: usize = 10_000;
/// Ticks measured at each step; a tick is a second.
const TICKS: u32 = 20;
/// Descriptors: two a connection.
const DESCRIPTORS: u64 = 200_000;
/// Until the daemon shows the connections.
const PATIENCE: Duration = Duration::from_secs(60);

/// Processor time of a tick; the peer is the step before, so 10 is linear.
///
/// # Errors
/// The connections cannot be made, or the daemon does not see them.
pub fn run() -> Result<Vec<Metric>> {
    build::run(build::Args { release: true })?;
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS)
        .context("the limit of open files cannot be raised")?;
    let daemon = Daemon::start("")?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let mut open = Vec::new();
    let mut metrics: Vec<Metric> = Vec::new();
    let mut before = f64::NAN;
    for (flows, name) in FLOWS.into_iter().zip(NAMES) {
        connect(&listener, &mut open, flows / 2)?;
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
    drop(open);
    daemon.stop()?;
    Ok(metrics)
}

/// Opens connections until there are `wanted`.
fn connect(
    listener: &TcpListener,
    open: &mut Vec<(TcpStream, TcpStream)>,
    wanted: usize,
) -> Result<()> {
    let port = listener.local_addr()?.port();
    while open.len() < wanted {
        let address = u8::try_from(open.len() / BY_ADDRESS + 1).context("too many connections")?;
        let client = TcpStream::connect(SocketAddr::from(([127, 0, 2, address], port)))?;
        let (server, _) = listener.accept()?;
        open.push((client, server));
    }
    Ok(())
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
