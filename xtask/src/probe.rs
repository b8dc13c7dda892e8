//! The measuring client: asks each target for a page at a constant rate, whatever the answers.
//!
//! The rate does not fall when answers are late (an open loop), so a dark time is seen in full.
//! An outage is the largest time from one good answer to the next, or to the end of the window.
//! Beside new connections it can hold some open and ask over them, to see whether they survive.
//! One thread, one epoll: it shares two processors with the hosts it measures.

mod held;
mod meter;
mod request;
mod tally;

use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::lab::boot_ns;
use held::Held;
pub use held::HeldReport;
pub use meter::{Meter, PROGRAM, Window};
use request::Requests;
use tally::Tally;
pub use tally::{Report, TargetReport};

const TIMER: u64 = u64::MAX;
const SIGNAL: u64 = u64::MAX - 1;
const INPUT: u64 = u64::MAX - 2;
/// A late tick is made up for, but not more than this many.
const MOST_OVERDUE: u64 = 250;
/// A request that began this long before the end of the window has had time enough.
const LAST_CHANCE_NS: u64 = 1_000_000_000;

/// Arguments of the measuring client.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address and port of a web server; up to eight.
    #[arg(long = "target", required = true, num_args = 1)]
    targets: Vec<SocketAddr>,
    /// Requests a second to each target.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=2000))]
    rate: u32,
    /// How long a request may take.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    timeout_ms: u32,
    /// Connections to each target that are held open, each with a request every 50 ms.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    held: u32,
    /// Length of the window.
    #[arg(long)]
    seconds: Option<f64>,
    /// The window lasts until standard input closes.
    #[arg(long)]
    until_stdin_closes: bool,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Measures until the window ends, then prints the report.
///
/// While it runs it prints `ready` once every target has answered, which begins the window, and
/// `host TARGET NAME` whenever another host answers than before.
///
/// # Errors
/// The kernel refuses a socket or a timer, or a target never answered.
pub fn run(arguments: Args) -> Result<()> {
    if arguments.targets.len() > 8 {
        bail!("{} targets: at most 8", arguments.targets.len());
    }
    let report = Probe::new(&arguments)?.measure(&arguments)?;
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        for target in &report.targets {
            println!("{target}");
        }
        println!(
            "the probe itself stood still for up to {:.1} ms",
            report.stall_ms
        );
    }
    Ok(())
}

struct Probe {
    epoll: Epoll,
    timer: TimerFd,
    signals: SignalFd,
    requests: Requests,
    held: Held,
    tallies: Vec<Tally>,
    ready: bool,
    /// The last round, and the longest time between two since the window began.
    rounds: (u64, u64),
}

impl Probe {
    fn new(arguments: &Args) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let period = TimeSpec::from_duration(Duration::from_secs(1) / arguments.rate);
        timer.set(Expiration::Interval(period), TimerSetTimeFlags::empty())?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        let mut set = SigSet::empty();
        set.add(Signal::SIGINT);
        set.add(Signal::SIGTERM);
        set.thread_block()?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNAL))?;
        if arguments.until_stdin_closes {
            let input = std::io::stdin();
            epoll
                .add(input.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, INPUT))
                .context("--until-stdin-closes needs a pipe as standard input")?;
        }
        Ok(Self {
            epoll,
            timer,
            signals,
            requests: Requests::new(
                arguments.targets.clone(),
                Duration::from_millis(arguments.timeout_ms.into()),
            ),
            held: Held::new(&arguments.targets, arguments.held as usize, boot_ns()?),
            tallies: arguments.targets.iter().copied().map(Tally::new).collect(),
            ready: false,
            rounds: (0, 0),
        })
    }

    fn measure(mut self, arguments: &Args) -> Result<Report> {
        let window = arguments.seconds.map(|seconds| (seconds * 1e9) as u64);
        let mut end = None;
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::from(100u8)) {
                Err(nix::errno::Errno::EINTR) => continue,
                result => result?,
            };
            // One reading serves every event of this round: they are microseconds apart.
            let now = boot_ns()?;
            if self.ready {
                self.rounds.1 = self.rounds.1.max(now.saturating_sub(self.rounds.0));
            }
            self.rounds.0 = now;
            let mut stop = end.is_some_and(|end| now >= end);
            for event in &events[..count] {
                match event.data() {
                    TIMER => self.tick(now)?,
                    SIGNAL => stop |= self.signals.read_signal()?.is_some(),
                    INPUT => stop |= input_closed(),
                    slot if Held::owns(slot) => self.held.advance(slot),
                    slot => {
                        if let Some(ended) = self.requests.advance(slot) {
                            self.tallies[ended.target].note(ended, now);
                        }
                    }
                }
            }
            self.progress(now)?;
            if self.ready && end.is_none() {
                end = window.map(|window| now + window);
            }
            if stop {
                break;
            }
        }
        if !self.ready {
            bail!("not every target has answered");
        }
        Ok(self.report(boot_ns()?))
    }

    fn report(mut self, now: u64) -> Report {
        for ended in self
            .requests
            .expire(now, now.saturating_sub(LAST_CHANCE_NS))
        {
            self.tallies[ended.target].note(ended, now);
        }
        let held = self.held.reports();
        let tallies = self.tallies.into_iter();
        Report {
            stall_ms: self.rounds.1 as f64 / 1e6,
            targets: tallies
                .zip(held)
                .map(|(tally, held)| tally.report(held, now))
                .collect(),
        }
    }

    /// Sends what is due and gives up what is overdue.
    fn tick(&mut self, now: u64) -> Result<()> {
        let mut count = [0; 8];
        let due = match nix::unistd::read(&self.timer, &mut count) {
            Ok(8) => u64::from_ne_bytes(count),
            _ => 0,
        };
        for ended in self.requests.expire(now, 0) {
            self.tallies[ended.target].note(ended, now);
        }
        self.held.tick(&self.epoll, now)?;
        for _ in 0..due.min(MOST_OVERDUE) {
            for (target, tally) in self.tallies.iter_mut().enumerate() {
                tally.asked();
                if !self.requests.begin(&self.epoll, target, now)? {
                    tally.refused();
                }
            }
        }
        Ok(())
    }

    /// Says what whoever started the probe may be waiting for.
    fn progress(&mut self, now: u64) -> Result<()> {
        let mut output = std::io::stdout().lock();
        if !self.ready && self.tallies.iter().all(Tally::answered) && self.held.answered() {
            self.ready = true;
            self.held.begin();
            for tally in &mut self.tallies {
                tally.begin(now);
            }
            writeln!(output, "ready")?;
            output.flush()?;
        }
        for tally in &mut self.tallies {
            if let Some(line) = tally.news() {
                writeln!(output, "{line}")?;
                output.flush()?;
            }
        }
        Ok(())
    }
}

/// Reads what is there; whether the other end has closed.
fn input_closed() -> bool {
    let mut bytes = [0; 64];
    !matches!(
        nix::unistd::read(std::io::stdin().as_fd(), &mut bytes),
        Ok(1..)
    )
}
