//! The checks of live connections, owners, datagrams, queues and full tables of sockets.
//!
//! Most use sockets of this very process: every end is then known to the byte.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{MsgFlags, recv};
use shadowd::facts::{Direction, FlowCounts, FlowDelta, Protocol, Sample};
use shadowd::observe::Capture;

use crate::fence::Apart;
use crate::{PATIENCE, absorb, dropped};

pub const REQUEST: usize = 10_007;
const ANSWER: usize = 70_001;

/// The sum of the flows of one process with one service, and the last gauge of open connections.
pub fn of(sample: &Sample, pid: u32, direction: Direction, service: u16) -> (FlowCounts, u64) {
    let mut sum = (FlowCounts::default(), 0);
    for flow in &sample.flows {
        let port = if direction == Direction::Inbound {
            flow.local.port()
        } else {
            flow.remote.port()
        };
        if flow.pid == pid && flow.direction == direction && port == service {
            sum.0.add(&flow.counts);
            sum.1 = flow.open;
        }
    }
    sum
}

/// Ticks until `done` says so, and returns everything captured until then.
pub fn until(capture: &mut Capture, what: &str, done: impl Fn(&Sample) -> bool) -> Result<Sample> {
    let deadline = Instant::now() + PATIENCE;
    let mut whole = Sample::default();
    loop {
        absorb(&mut whole, capture.tick());
        if done(&whole) {
            return Ok(whole);
        }
        ensure!(Instant::now() < deadline, "{what}: {:?}", whole.flows);
        capture.wait(Duration::from_millis(10));
    }
}

/// Both ends of a new connection, client first.
pub fn pair(listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    Ok((client, server))
}

pub fn send(from: &mut TcpStream, to: &mut TcpStream, bytes: usize) -> Result<()> {
    let data = vec![b'x'; bytes];
    let mut read = vec![0; bytes];
    let mut sender = from.try_clone()?;
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || sender.write_all(&data));
        to.read_exact(&mut read)?;
        writer.join().map_err(|_| anyhow::anyhow!("no writer"))??;
        Ok(())
    })
}

/// Every tick tells what an open connection moved since the tick before; the end adds nothing.
pub fn open_connections_are_live(capture: &mut Capture) -> Result<()> {
    let pid = std::process::id();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (mut client, mut server) = pair(&listener)?;
    capture.tick();
    for _ in 0..3 {
        send(&mut client, &mut server, REQUEST)?;
        send(&mut server, &mut client, ANSWER)?;
        let sample = capture.tick();
        let (out, open) = of(&sample, pid, Direction::Outbound, port);
        ensure!(
            [out.tx_bytes, out.rx_bytes, open] == [REQUEST as u64, ANSWER as u64, 1],
            "{out:?}, {open} open"
        );
        let (inbound, open) = of(&sample, pid, Direction::Inbound, port);
        ensure!(
            [inbound.rx_bytes, inbound.tx_bytes, open] == [REQUEST as u64, ANSWER as u64, 1],
            "{inbound:?}, {open} open"
        );
        ensure!(inbound.response.count() == 1, "{inbound:?}");
        ensure!(
            out.rtt.count == 1 && out.rtt.mean_ns().is_some_and(|mean| mean > 0),
            "{out:?}"
        );
        ensure!(out.tx_packets > 0 && out.rx_packets > 0, "{out:?}");
    }
    drop((client, server));
    let sample = until(capture, "two ends", |sample| {
        [Direction::Outbound, Direction::Inbound]
            .iter()
            .all(|direction| of(sample, pid, *direction, port).0.closed == 1)
    })?;
    for direction in [Direction::Outbound, Direction::Inbound] {
        let (end, open) = of(&sample, pid, direction, port);
        let counts = [
            end.opened,
            end.closed,
            end.rx_bytes,
            end.tx_bytes,
            end.resets,
            open,
        ];
        ensure!(counts == [0, 1, 0, 0, 0, 0], "{direction:?}: {end:?}");
    }
    Ok(())
}

/// Opened and timed once, whatever its length.
pub fn a_connection_is_opened_once_and_timed(capture: &mut Capture) -> Result<()> {
    let pid = std::process::id();
    let listener = TcpListener::bind("[::1]:0")?;
    let port = listener.local_addr()?.port();
    let ends = pair(&listener)?;
    let mut whole = capture.tick();
    absorb(&mut whole, capture.tick());
    drop(ends);
    absorb(
        &mut whole,
        until(capture, "two ends", |sample| {
            of(sample, pid, Direction::Inbound, port).0.closed == 1
                && of(sample, pid, Direction::Outbound, port).0.closed == 1
        })?,
    );
    let (out, _) = of(&whole, pid, Direction::Outbound, port);
    let (inbound, _) = of(&whole, pid, Direction::Inbound, port);
    ensure!(
        [out.opened, out.adopted, out.connect.count] == [1, 0, 1],
        "{out:?}"
    );
    ensure!(out.connect.sum_ns > 0, "{out:?}");
    ensure!([inbound.opened, inbound.adopted] == [1, 0], "{inbound:?}");
    Ok(())
}

/// An end that is closed without lingering resets the connection: for both ends.
pub fn a_reset_is_counted_at_both_ends(capture: &mut Capture) -> Result<()> {
    let pid = std::process::id();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (mut client, server) = pair(&listener)?;
    // Data that nobody reads makes the close a reset.
    client.write_all(b"unread")?;
    let mut peeked = [0; 6];
    server.peek(&mut peeked)?;
    drop(server);
    let ended = client.read(&mut peeked);
    ensure!(ended.is_err(), "{ended:?}");
    drop(client);
    let sample = until(capture, "two ends", |sample| {
        of(sample, pid, Direction::Inbound, port).0.closed == 1
            && of(sample, pid, Direction::Outbound, port).0.closed == 1
    })?;
    for direction in [Direction::Outbound, Direction::Inbound] {
        let (end, _) = of(&sample, pid, direction, port);
        ensure!(end.resets == 1, "{direction:?}: {end:?}");
    }
    Ok(())
}

/// A server that hands each connection to a process of its own, as inetd does: that process owns
/// it, from the first byte.
pub fn the_process_that_does_the_io_owns_the_connection(capture: &mut Capture) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (mut client, server) = pair(&listener)?;
    let mut child = Command::new("/proc/self/exe")
        .arg("echo")
        .stdin(Stdio::from(OwnedFd::from(server)))
        .spawn()?;
    let pid = child.id();
    client.write_all(&[b'x'; REQUEST])?;
    client.shutdown(Shutdown::Write)?;
    let mut echoed = Vec::new();
    client.read_to_end(&mut echoed)?;
    child.wait()?;
    ensure!(echoed.len() == REQUEST, "{} echoed", echoed.len());
    drop(client);
    let sample = until(capture, "its end", |sample| {
        of(sample, pid, Direction::Inbound, port).0.closed == 1
    })?;
    let (flow, _) = of(&sample, pid, Direction::Inbound, port);
    let bytes = REQUEST as u64;
    ensure!(
        [flow.opened, flow.rx_bytes, flow.tx_bytes] == [1, bytes, bytes],
        "{flow:?}"
    );
    let (parent, _) = of(&sample, std::process::id(), Direction::Inbound, port);
    ensure!(parent == FlowCounts::default(), "{parent:?}");
    Ok(())
}

/// What a connection moved before it was handed on stays with who moved it.
pub fn a_connection_that_is_handed_on_is_split(capture: &mut Capture) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (mut client, mut server) = pair(&listener)?;
    send(&mut client, &mut server, ANSWER)?;
    let mut whole = capture.tick();
    let mut child = Command::new("/proc/self/exe")
        .arg("echo")
        .stdin(Stdio::from(OwnedFd::from(server)))
        .spawn()?;
    client.write_all(&[b'x'; REQUEST])?;
    client.shutdown(Shutdown::Write)?;
    client.read_to_end(&mut Vec::new())?;
    child.wait()?;
    drop(client);
    absorb(
        &mut whole,
        until(capture, "its end", |sample| {
            of(sample, child.id(), Direction::Inbound, port).0.closed == 1
        })?,
    );
    let (first, open) = of(&whole, std::process::id(), Direction::Inbound, port);
    let counts = [first.opened, first.closed, first.tx_bytes, open];
    ensure!(counts == [1, 0, 0, 0], "{first:?}, {open} open");
    let (second, open) = of(&whole, child.id(), Direction::Inbound, port);
    let counts = [second.opened, second.closed, second.tx_bytes, open];
    ensure!(
        counts == [0, 1, REQUEST as u64, 0],
        "{second:?}, {open} open"
    );
    let received = first.rx_bytes + second.rx_bytes;
    ensure!(
        received == (ANSWER + REQUEST) as u64,
        "{first:?}, {second:?}"
    );
    Ok(())
}

/// What the flows of datagrams of this process with one remote hold.
fn datagrams(sample: &Sample, remote: IpAddr, service: u16) -> Vec<FlowDelta> {
    let pid = std::process::id();
    let flows = sample.flows.iter().filter(|flow| {
        let port = flow.local.port().max(flow.remote.port());
        flow.protocol == Protocol::Udp
            && flow.pid == pid
            && flow.remote.ip() == remote
            && port == service
    });
    flows.copied().collect()
}

/// Datagrams both ways between two sockets, the client's connected or not.
pub fn datagrams_are_exact(
    capture: &mut Capture,
    listen: &str,
    reach: &str,
    connected: bool,
) -> Result<()> {
    const COUNT: u64 = 7;
    capture.tick();
    let server = UdpSocket::bind((listen.parse::<IpAddr>()?, 0))?;
    server.set_read_timeout(Some(PATIENCE))?;
    let port = server.local_addr()?.port();
    let remote: IpAddr = reach.parse()?;
    let client = UdpSocket::bind((remote, 0))?;
    client.set_read_timeout(Some(PATIENCE))?;
    if connected {
        client.connect((remote, port))?;
    }
    let mut buffer = [0; 4_096];
    for _ in 0..COUNT {
        if connected {
            client.send(&buffer[..1_001])?;
        } else {
            client.send_to(&buffer[..1_001], (remote, port))?;
        }
        recv(server.as_raw_fd(), &mut buffer, MsgFlags::MSG_PEEK)?;
        let (_, from) = server.recv_from(&mut buffer)?;
        server.send_to(&buffer[..302], from)?;
        if connected {
            client.recv(&mut buffer)?;
        } else {
            client.recv_from(&mut buffer)?;
        }
    }
    let sample = capture.tick();
    let flows = datagrams(&sample, remote, port);
    for (direction, tx, rx) in [
        (Direction::Outbound, 1_001, 302),
        (Direction::Inbound, 302, 1_001),
    ] {
        let mut found = flows.iter().filter(|flow| flow.direction == direction);
        let flow = found
            .next()
            .with_context(|| format!("{direction:?}: {flows:?}"))?;
        ensure!(found.next().is_none(), "{direction:?}: {flows:?}");
        let counts = flow.counts;
        ensure!(
            [
                counts.tx_bytes,
                counts.rx_bytes,
                counts.tx_packets,
                counts.rx_packets
            ] == [COUNT * tx, COUNT * rx, COUNT, COUNT],
            "{flow:?}"
        );
    }
    Ok(())
}

/// A socket of this machine alone is no flow.
pub fn local_sockets_are_no_flows(capture: &mut Capture) -> Result<()> {
    capture.tick();
    let (mut one, mut other) = std::os::unix::net::UnixStream::pair()?;
    one.write_all(&[1; 100])?;
    other.read_exact(&mut [0; 100])?;
    let (one, other) = std::os::unix::net::UnixDatagram::pair()?;
    one.send(&[1; 100])?;
    other.recv(&mut [0; 100])?;
    let sample = capture.tick();
    let pid = std::process::id();
    let flows: Vec<_> = sample.flows.iter().filter(|flow| flow.pid == pid).collect();
    ensure!(flows.is_empty(), "{flows:?}");
    Ok(())
}

/// Connections from before, one of them not accepted yet: counted once, and only what is new.
pub fn connections_from_before_are_adopted(_: &mut Capture) -> Result<()> {
    let apart = Apart::new("adopted")?;
    let pid = std::process::id();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (mut client, mut server) = pair(&listener)?;
    send(&mut client, &mut server, ANSWER)?;
    let mut early = TcpStream::connect(listener.local_addr()?)?;

    let mut capture = apart.watch();
    let mut whole = capture.tick();
    send(&mut client, &mut server, REQUEST)?;
    let (mut late, _) = listener.accept()?;
    send(&mut early, &mut late, REQUEST)?;
    absorb(&mut whole, capture.tick());
    for (direction, rx, tx) in [(Direction::Outbound, 0, 2), (Direction::Inbound, 2, 0)] {
        let (flow, open) = of(&whole, pid, direction, port);
        let counts = [flow.opened, flow.adopted, flow.closed, open];
        ensure!(
            counts == [0, 2, 0, 2],
            "{direction:?}: {flow:?}, {open} open"
        );
        let bytes = [flow.rx_bytes, flow.tx_bytes];
        let one = REQUEST as u64;
        ensure!(bytes == [rx * one, tx * one], "{direction:?}: {flow:?}");
    }
    drop((client, server, early, late));
    let sample = until(&mut capture, "four ends", |sample| {
        of(sample, pid, Direction::Inbound, port).0.closed == 2
            && of(sample, pid, Direction::Outbound, port).0.closed == 2
    })?;
    ensure!(dropped(&sample, "tcp") == 0, "{:?}", sample.probe_losses);
    Ok(())
}

/// Connections that nobody accepts wait in a queue; the queue is shown.
pub fn queues_are_shown(capture: &mut Capture) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let waiting: Vec<TcpStream> = (0..3)
        .map(|_| TcpStream::connect(address))
        .collect::<std::io::Result<_>>()?;
    let shown = |sample: &Sample| {
        let mut all = sample.listeners.iter();
        all.find(|listener| listener.local == address).copied()
    };
    let reading = shown(&capture.tick()).context("the listener is not shown")?;
    ensure!(
        reading.pid == std::process::id() && reading.backlog == 3 && reading.backlog_max > 3,
        "{reading:?}"
    );
    drop(waiting);
    drop(listener);
    let sample = capture.tick();
    ensure!(shown(&sample).is_none(), "{:?}", sample.listeners);
    Ok(())
}

/// Reads until the end, then sends it back: the role of a process that was handed a connection.
pub fn echo() -> Result<()> {
    use std::os::fd::AsFd;
    let mut stream = TcpStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let peer: SocketAddr = stream.peer_addr()?;
    let mut request = Vec::new();
    stream.read_to_end(&mut request)?;
    stream
        .write_all(&request)
        .with_context(|| format!("to {peer}"))?;
    Ok(())
}
