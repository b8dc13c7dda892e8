//! What the daemon itself costs under a known load: 200,000 system calls and 5,000 connections a
//! second, made by threads of this process on loopback.
//!
//! `load` measures a minute of it, `churn` half an hour with an eye on the memory.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::getppid;
use socket2::SockRef;

use super::daemon::Daemon;
use super::report::Metric;
use crate::build;

/// System calls a second; each is a getppid.
const CALLS: u64 = 200_000;
/// Connections a second, one request and one answer on each.
const CONNECTIONS: u64 = 5_000;
/// The load is made in steps of this length.
const STEP: Duration = Duration::from_millis(5);
/// Addresses of loopback that are connected to in turn, so that ports in TIME_WAIT suffice.
const ADDRESSES: u8 = 100;
/// Left out of the measurement: caches fill, tables grow.
const WARM_UP: Duration = Duration::from_secs(10);
/// How long `load` measures.
const MEASURED: Duration = Duration::from_secs(60);
/// How long `churn` measures.
const CHURN: Duration = Duration::from_secs(30 * 60);
/// Bounds of the specification: share of a core, bytes.
const CPU_BOUND: f64 = 0.02;
const RSS_BOUND: f64 = 40.0 * 1024.0 * 1024.0;

/// A minute of the load.
///
/// # Errors
/// The daemon does not run, or the load is not reached.
pub fn load() -> Result<Vec<Metric>> {
    measure("load", MEASURED)
}

/// Half an hour of the load.
///
/// # Errors
/// As [`load`].
pub fn churn() -> Result<Vec<Metric>> {
    measure("churn", CHURN)
}

fn measure(what: &str, span: Duration) -> Result<Vec<Metric>> {
    build::run(build::Args { release: true })?;
    let daemon = Daemon::start("")?;
    let load = Load::start()?;
    std::thread::sleep(WARM_UP);
    let made = load.made();
    let (began, cpu) = (Instant::now(), daemon.cpu()?);
    let mut rss = Vec::new();
    let mut shown = Instant::now();
    while began.elapsed() < span {
        std::thread::sleep(Duration::from_secs(1));
        rss.push(daemon.rss_bytes()? as f64);
        if shown.elapsed() > Duration::from_secs(60) {
            shown = Instant::now();
            println!(
                "{what}: {:.0} of {:.0} min, {:.1} MiB resident",
                began.elapsed().as_secs_f64() / 60.0,
                span.as_secs_f64() / 60.0,
                rss.last().copied().unwrap_or_default() / 1_048_576.0
            );
        }
    }
    let elapsed = began.elapsed().as_secs_f64();
    let share = (daemon.cpu()?.saturating_sub(cpu)).as_secs_f64() / elapsed;
    let after = load.made();
    let losses = daemon.ask(&["status"])?["capture"]["losses"].clone();
    load.stop()?;
    daemon.stop()?;
    let rate = |index: usize| (after[index] - made[index]) as f64 / elapsed;
    let (calls, connections) = (rate(0), rate(1));
    println!("{what}: {calls:.0} system calls/s and {connections:.0} connections/s made; {losses}");
    // A short look at a machine that is too slow says nothing; of half an hour the reader can judge.
    ensure!(
        span > MEASURED || (calls > 0.97 * CALLS as f64 && connections > 0.97 * CONNECTIONS as f64),
        "the machine is too slow for the load: {calls:.0} calls/s, {connections:.0} connections/s"
    );
    let third = rss.len() / 3;
    ensure!(third > 0, "nothing was measured");
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (early, late) = (mean(&rss[..third]), mean(&rss[rss.len() - third..]));
    let most = rss.iter().copied().fold(0.0, f64::max);
    Ok(vec![
        metric(
            "daemon_cpu",
            share * 100.0,
            "% core",
            "bound 2 %",
            share / CPU_BOUND,
        ),
        metric(
            "daemon_rss",
            most / 1_048_576.0,
            "MiB",
            "bound 40 MiB",
            most / RSS_BOUND,
        ),
        metric(
            "rss_last_third",
            late / 1_048_576.0,
            "MiB",
            "first third",
            late / early,
        ),
    ])
}

fn metric(
    name: &'static str,
    value: f64,
    unit: &'static str,
    peer: &'static str,
    ratio: f64,
) -> Metric {
    Metric {
        name,
        value,
        unit,
        peer,
        ratio,
        spread: 0.0,
    }
}

/// The threads that make the load.
struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    port: u16,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("no free port")?;
        let mut load = Self {
            stop: Arc::default(),
            calls: Arc::default(),
            connections: Arc::default(),
            port: listener.local_addr()?.port(),
            threads: Vec::new(),
        };
        load.thread("server", move |stop, _| serve(&listener, stop))?;
        let calls = Arc::clone(&load.calls);
        load.thread("calls", move |stop, _| {
            paced(CALLS, stop, || {
                std::hint::black_box(getppid());
                calls.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        })?;
        let made = Arc::clone(&load.connections);
        load.thread("client", move |stop, port| {
            let mut next = 0_u8;
            paced(CONNECTIONS, stop, || {
                next = next % ADDRESSES + 1;
                visit(SocketAddr::from(([127, 0, 1, next], port)))?;
                made.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        })?;
        Ok(load)
    }

    fn thread(
        &mut self,
        name: &str,
        work: impl FnOnce(&AtomicBool, u16) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let (stop, port) = (Arc::clone(&self.stop), self.port);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&stop, port))?;
        self.threads.push(thread);
        Ok(())
    }

    /// System calls and connections made so far.
    fn made(&self) -> [u64; 2] {
        [&self.calls, &self.connections].map(|count| count.load(Ordering::Relaxed))
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        // The server waits in accept.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        for thread in self.threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread of the load panicked"))??;
        }
        Ok(())
    }
}

/// Does `one` so many times a second, in steps, until told to stop; what a slow step owes is made
/// up for by the next ones.
fn paced(per_second: u64, stop: &AtomicBool, mut one: impl FnMut() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    let mut done = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_secs_f64() * per_second as f64) as u64;
        while done < due && !stop.load(Ordering::Relaxed) {
            one()?;
            done += 1;
        }
        std::thread::sleep(STEP);
    }
    Ok(())
}

/// One connection: a byte there, a byte back.
fn visit(server: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(server).context("the server of the load is gone")?;
    stream.write_all(b"q")?;
    let mut answer = [0; 1];
    stream.read_exact(&mut answer)?;
    // A reset leaves no TIME_WAIT behind: 5,000 a second would use up the ports.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(())
}

fn serve(listener: &TcpListener, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let (mut stream, _) = listener.accept()?;
        let mut request = [0; 1];
        // The last visitor only ends the wait, and says nothing.
        if stream.read(&mut request)? == 1 {
            stream.write_all(b"a")?;
        }
    }
    Ok(())
}
