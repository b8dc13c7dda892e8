//! Connections that stay and connections that come and go, each told from all others by the
//! address from which it comes.
//!
//! Both ends are in this process. When each was opened and closed is kept on the boot clock, so
//! that who counts them can be asked about every single one.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{namespace, say};

/// Connections that come and go are open for as long as so many others come.
const OPEN: usize = 20;
/// Most that may come and go.
const MOST: u32 = 60_000;

/// What to do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ChurnPlan {
    /// The second number of the addresses, 127.`network`.x.y.
    pub network: u8,
    /// Connections that stay.
    pub held: u32,
    /// Connections that come and go, each second; 0 for as fast as it goes.
    pub per_second: u32,
    /// Ends by itself after so many; 0: when it is told.
    pub stop_after: u32,
}

/// One connection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Life {
    /// From where.
    pub from: Ipv4Addr,
    /// Before connect(2), ns on the boot clock.
    pub begun: u64,
    /// After accept(2).
    pub open: u64,
    /// Before the first close(2); 0 while open.
    pub closing: u64,
    /// After the second close(2); 0 while open.
    pub closed: u64,
}

/// Everything that was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lives {
    /// Who did it.
    pub pid: u32,
    /// The connections.
    pub lives: Vec<Life>,
    /// Tcp ActiveOpens of the namespace.
    pub active: u64,
    /// Tcp PassiveOpens of the namespace.
    pub passive: u64,
}

fn now() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    Ok(now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs())
}

struct Churn {
    plan: ChurnPlan,
    listener: TcpListener,
    server: SocketAddrV4,
    lives: Vec<Life>,
}

impl Churn {
    fn open(&mut self) -> Result<(usize, TcpStream, TcpStream)> {
        let number = self.lives.len();
        // 250 a row: neither .0 nor .255 comes up.
        let (row, place) = (u8::try_from(number / 250)?, (number % 250) as u8 + 1);
        let from = Ipv4Addr::new(127, self.plan.network, row, place);
        let begun = now()?;
        let client = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        bind(
            client.as_raw_fd(),
            &SockaddrIn::from(SocketAddrV4::new(from, 0)),
        )?;
        connect(client.as_raw_fd(), &SockaddrIn::from(self.server))?;
        let (server, _) = self.listener.accept()?;
        self.lives.push(Life {
            from,
            begun,
            open: now()?,
            closing: 0,
            closed: 0,
        });
        Ok((number, client.into(), server))
    }

    fn close(&mut self, (number, client, server): (usize, TcpStream, TcpStream)) -> Result<()> {
        self.lives[number].closing = now()?;
        // Each end is the first one half of the times: both ways through the states are gone.
        if number.is_multiple_of(2) {
            drop(client);
            drop(server);
        } else {
            drop(server);
            drop(client);
        }
        self.lives[number].closed = now()?;
        Ok(())
    }
}

/// In a namespace of its own: opens what stays, says so, and lets others come and go until the
/// input ends; then says everything, and once more when all is closed.
///
/// # Errors
/// The kernel's.
pub fn run(plan: &ChurnPlan) -> Result<()> {
    namespace::enter_own()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let SocketAddr::V4(server) = listener.local_addr()? else {
        anyhow::bail!("an IPv4 address");
    };
    let mut churn = Churn {
        plan: *plan,
        listener,
        server,
        lives: Vec::new(),
    };
    let mut held = Vec::new();
    for _ in 0..plan.held {
        held.push(churn.open()?);
    }
    let told = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A line, or the end of the input.
            let _ = std::io::stdin().read_line(&mut String::new());
            told.store(true, Ordering::Relaxed);
        });
        say(&"open")?;
        let ended = come_and_go(&mut churn, &told);
        if plan.stop_after > 0 {
            say(&"stopped")?;
        }
        ended
    })?;
    tell(&churn)?;
    for one in held {
        churn.close(one)?;
    }
    tell(&churn)
}

fn tell(churn: &Churn) -> Result<()> {
    say(&Lives {
        pid: std::process::id(),
        lives: churn.lives.clone(),
        active: namespace::counter("Tcp", "ActiveOpens")?,
        passive: namespace::counter("Tcp", "PassiveOpens")?,
    })
}

fn come_and_go(churn: &mut Churn, told: &AtomicBool) -> Result<()> {
    let started = Instant::now();
    let mut open = VecDeque::new();
    let mut count = 0;
    while !told.load(Ordering::Relaxed) {
        if count == MOST || (churn.plan.stop_after > 0 && count == churn.plan.stop_after) {
            break;
        }
        open.push_back(churn.open()?);
        count += 1;
        if open.len() > OPEN {
            churn.close(open.pop_front().context("it has some")?)?;
        }
        if let Some(each) = Duration::from_secs(1).checked_div(churn.plan.per_second) {
            let due = started + each * count;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    open.into_iter().try_for_each(|one| churn.close(one))
}
