//! TCP: a server and a client that move known bytes over known connections.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::info::Info;
use super::ways::Mover;
use super::{End, PATIENCE, Plan, Report, obey, say};

/// The first line of every server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Where it listens.
    pub port: u16,
}

/// Listens and says so.
///
/// # Errors
/// The address cannot be used.
pub fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("bind {address}"))?;
    let port = listener.local_addr()?.port();
    say(&Ready { port })?;
    Ok(listener)
}

/// Accepts, answers each request, keeps all open until it is told to close.
///
/// # Errors
/// A client does not do its part.
pub fn serve(plan: &Plan) -> Result<()> {
    let mut mover = Mover::new(plan.way)?;
    let listener = listen(plan.address)?;
    let mut open = Vec::new();
    for _ in 0..plan.connections {
        let (stream, _) = listener.accept()?;
        open.push(answer(stream, plan, &mut mover)?);
    }
    obey(|| report(&open, plan.bytes_down(), plan.bytes_up()))
}

/// Receives each request and sends its answer.
///
/// # Errors
/// The client does not do its part.
pub fn answer(mut stream: TcpStream, plan: &Plan, mover: &mut Mover) -> Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    for _ in 0..plan.rounds {
        mover.receive(&mut stream, plan.request)?;
        std::thread::sleep(Duration::from_millis(plan.delay_ms));
        mover.send(&mut stream, plan.answer)?;
    }
    Ok(stream)
}

/// Connects, asks on each connection, keeps all open until it is told to close.
///
/// # Errors
/// The server does not do its part.
pub fn connect(plan: &Plan) -> Result<()> {
    let mut mover = Mover::new(plan.way)?;
    let mut open = Vec::new();
    for _ in 0..plan.connections {
        open.push(ask(plan, &mut mover)?);
    }
    obey(|| report(&open, plan.bytes_up(), plan.bytes_down()))
}

/// Sends each request and receives its answer.
///
/// # Errors
/// The server does not do its part.
pub fn ask(plan: &Plan, mover: &mut Mover) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(plan.address).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    for _ in 0..plan.rounds {
        mover.send(&mut stream, plan.request)?;
        mover.receive(&mut stream, plan.answer)?;
    }
    Ok(stream)
}

/// What was done on open connections, all alike.
///
/// # Errors
/// A connection is gone.
pub fn report(open: &[TcpStream], sent: u64, received: u64) -> Result<Report> {
    let ends = open.iter().map(|stream| {
        Ok(End {
            local: stream.local_addr()?,
            remote: stream.peer_addr()?,
            sent,
            received,
            datagrams_sent: 0,
            datagrams_received: 0,
            info: Some(Info::read(stream)?),
        })
    });
    Ok(Report {
        pid: std::process::id(),
        ends: ends.collect::<Result<_>>()?,
    })
}

/// As [`serve`], closing each connection once it is answered.
///
/// # Errors
/// A client does not do its part.
pub fn serve_many(plan: &Plan) -> Result<()> {
    let mut mover = Mover::new(plan.way)?;
    let listener = listen(plan.address)?;
    for _ in 0..plan.connections {
        let (stream, _) = listener.accept()?;
        answer(stream, plan, &mut mover)?;
    }
    obey(|| Ok(whole(plan, plan.bytes_down(), plan.bytes_up())))
}

/// As [`connect`], closing each connection once it is answered.
///
/// # Errors
/// The server does not do its part.
pub fn connect_many(plan: &Plan) -> Result<()> {
    let mut mover = Mover::new(plan.way)?;
    for _ in 0..plan.connections {
        ask(plan, &mut mover)?;
    }
    obey(|| Ok(whole(plan, plan.bytes_up(), plan.bytes_down())))
}

/// What was done on connections that are closed, as one end.
fn whole(plan: &Plan, sent: u64, received: u64) -> Report {
    let count = u64::from(plan.connections);
    let end = End {
        local: plan.address,
        remote: plan.address,
        sent: sent * count,
        received: received * count,
        datagrams_sent: 0,
        datagrams_received: 0,
        info: None,
    };
    Report {
        pid: std::process::id(),
        ends: vec![end],
    }
}
