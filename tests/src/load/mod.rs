//! A load that knows exactly what it did: bytes, datagrams and connections, each way.
//!
//! Plays one role in a process of its own and talks to whoever started it by lines of JSON: the
//! port on which it listens, then a [`Report`] for each `report` that it reads, until it reads
//! `close` or its input ends. Nothing here looks at what shadowd saw.

pub mod churn;
pub mod info;
pub mod namespace;
pub mod special;
pub mod sys;
pub mod tcp;
pub mod udp;
pub mod ways;

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use info::Info;
use ways::Way;

/// How long a role waits for its partner.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the refusal of a kernel or of a sandbox begins with: a reason, not a failure.
pub const REFUSED: &str = "refused by the kernel: ";

/// What a role is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Where a server listens (port 0: any), where a client connects.
    pub address: SocketAddr,
    /// How data moves.
    pub way: Way,
    /// Connections.
    pub connections: u32,
    /// Bytes from client to server in each round.
    pub request: u64,
    /// Bytes from server to client in each round.
    pub answer: u64,
    /// Requests and answers on each connection, one after the other.
    pub rounds: u32,
    /// The server thinks for so long before each answer.
    pub delay_ms: u64,
}

impl Plan {
    /// Bytes from client to server on each connection.
    pub fn bytes_up(&self) -> u64 {
        self.request * u64::from(self.rounds)
    }

    /// Bytes from server to client on each connection.
    pub fn bytes_down(&self) -> u64 {
        self.answer * u64::from(self.rounds)
    }
}

/// What a role did until now.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Who did it.
    pub pid: u32,
    /// By connection; of UDP by socket.
    pub ends: Vec<End>,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct End {
    /// This end.
    pub local: SocketAddr,
    /// The other end; of UDP without a connection the one that was sent to.
    pub remote: SocketAddr,
    /// Payload bytes that the kernel took.
    pub sent: u64,
    /// Payload bytes that the kernel gave, each once.
    pub received: u64,
    /// UDP: datagrams sent.
    pub datagrams_sent: u64,
    /// UDP: datagrams received.
    pub datagrams_received: u64,
    /// TCP: what the kernel says of it now.
    pub info: Option<Info>,
}

impl Report {
    /// The sum of one count over all ends.
    pub fn sum(&self, count: impl Fn(&End) -> u64) -> u64 {
        self.ends.iter().map(count).sum()
    }

    /// The sum of one of the kernel's own counts over all ends; ends without count 0.
    pub fn kernel(&self, count: impl Fn(&Info) -> u64) -> u64 {
        self.sum(|end| end.info.as_ref().map_or(0, &count))
    }
}

/// Plays a role; its arguments are JSON.
///
/// # Errors
/// The role is unknown, or its partner did not do its part.
pub fn run(role: &str, argument: &str) -> Result<()> {
    match role {
        "serve" => tcp::serve(&serde_json::from_str(argument)?),
        "connect" => tcp::connect(&serde_json::from_str(argument)?),
        "many-serve" => tcp::serve_many(&serde_json::from_str(argument)?),
        "many-connect" => tcp::connect_many(&serde_json::from_str(argument)?),
        "udp-serve" => udp::serve(&serde_json::from_str(argument)?),
        "udp-connect" => udp::connect(&serde_json::from_str(argument)?),
        "unix" => special::unix(),
        "prefork" => special::prefork(&serde_json::from_str(argument)?),
        "accept" => special::accept_inherited(&serde_json::from_str(argument)?),
        "passing" => special::passing(&serde_json::from_str(argument)?),
        "take" => special::take_passed(&serde_json::from_str(argument)?),
        "refused" => special::refused(&serde_json::from_str(argument)?),
        "reset" => special::reset(&serde_json::from_str(argument)?),
        "overflow" => special::overflow(&serde_json::from_str(argument)?),
        "churn" => churn::run(&serde_json::from_str(argument)?),
        _ => bail!("unknown role {role}"),
    }
}

/// Writes one line for whoever started this role.
///
/// # Errors
/// Nobody reads it.
pub fn say(value: &impl Serialize) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(value)?)?;
    out.flush().context("nobody reads the report")
}

/// Answers each `report` by `report()`, until `close` or the end of the input.
///
/// # Errors
/// The input holds something else, or nobody reads the answer.
pub fn obey(mut report: impl FnMut() -> Result<Report>) -> Result<()> {
    for line in io::stdin().lock().lines() {
        match line?.as_str() {
            "report" => say(&report()?)?,
            "close" => break,
            other => bail!("unknown word {other}"),
        }
    }
    Ok(())
}
