//! The checks of full tables of sockets, and of connections shorter than a look.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use shadowd::facts::{Direction, FlowCounts, Sample};
use shadowd::observe::{Capture, Limits};

use crate::fence::Fence;
use crate::sockets::{REQUEST, of, pair, send};
use crate::{PATIENCE, absorb, dropped};

/// With room for `limits`, what is seen and what was refused are what this process did.
fn refused_is_counted(limits: Limits) -> Result<()> {
    const CONNECTIONS: u64 = 12;
    let pid = std::process::id();
    let fence = Fence::new("refused")?;
    let _inside = fence.enter()?;
    let mut capture = fence.watch_with(limits);
    let before = capture.tick();
    let (refused, bytes) = (dropped(&before, "tcp"), before.flow_bytes_dropped);
    let mut sum = FlowCounts::default();
    let mut take = |sample: &Sample| {
        for flow in sample.flows.iter().filter(|flow| flow.pid == pid) {
            sum.add(&flow.counts);
        }
        let lost = dropped(sample, "tcp") - refused;
        let happened = sum.opened + sum.adopted + sum.closed + sum.failed;
        let moved = sum.rx_bytes + sum.tx_bytes + sample.flow_bytes_dropped - bytes;
        (happened, lost, moved)
    };
    let listeners: Vec<TcpListener> = (0..CONNECTIONS)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<std::io::Result<_>>()?;
    let mut ends = Vec::new();
    for listener in &listeners {
        let (mut client, mut server) = pair(listener)?;
        send(&mut client, &mut server, REQUEST)?;
        ends.push((client, server));
        take(&capture.tick());
    }
    drop(ends);
    let deadline = Instant::now() + PATIENCE;
    // Each end of each connection begins and ends.
    let truth = 4 * CONNECTIONS;
    loop {
        let sample = capture.tick();
        let (seen, lost, moved) = take(&sample);
        if seen + lost == truth && moved == 2 * CONNECTIONS * REQUEST as u64 {
            ensure!(lost > 0 && seen > 0, "seen {seen}, lost {lost}");
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{truth} happenings: seen {seen}, lost {lost}; {moved} bytes"
        );
        capture.wait(Duration::from_millis(10));
    }
}

/// The table of sockets is too small.
pub fn refused_sockets_are_counted(_: &mut Capture) -> Result<()> {
    refused_is_counted(Limits {
        sockets: 5,
        ..Limits::default()
    })
}

/// The table of flows is too small.
pub fn refused_flows_are_counted(_: &mut Capture) -> Result<()> {
    refused_is_counted(Limits {
        flows: 5,
        ..Limits::default()
    })
}

/// Whether at most so many connections are missing at an end, with what they moved: a kernel may
/// leave out both programs that tell of one, and says so.
fn is_short(end: &[u64; 5], wanted: &[u64; 5], most: u64) -> bool {
    let each = wanted[2] / wanted[0];
    let missing = |at: usize, each: u64| {
        let missing = wanted[at].checked_sub(end[at]);
        missing.is_some_and(|missing| missing <= most * each)
    };
    missing(0, 1) && missing(1, 1) && missing(2, each) && missing(3, each) && end[4] <= 1
}

/// Many short connections from several threads, while ticks go on: none is lost or counted twice.
pub fn many_short_connections_are_exact(capture: &mut Capture) -> Result<()> {
    const THREADS: u64 = 4;
    const EACH: u64 = 1_500;
    const BYTES: u64 = 123;
    /// Of the connections, where the kernel leaves programs out.
    const MISSED_MAX: u64 = THREADS * EACH / 100;
    let pid = std::process::id();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let mut whole = Sample::default();
    std::thread::scope(|scope| -> Result<()> {
        let accepter = scope.spawn(|| -> std::io::Result<()> {
            for _ in 0..THREADS * EACH {
                let (mut server, _) = listener.accept()?;
                let mut request = [0; BYTES as usize];
                server.read_exact(&mut request)?;
                server.write_all(&request)?;
            }
            Ok(())
        });
        let clients: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| -> std::io::Result<()> {
                    for _ in 0..EACH {
                        let mut client = TcpStream::connect(("127.0.0.1", port))?;
                        client.write_all(&[b'x'; BYTES as usize])?;
                        client.read_to_end(&mut Vec::new())?;
                    }
                    Ok(())
                })
            })
            .collect();
        while !clients.iter().all(|client| client.is_finished()) {
            absorb(&mut whole, capture.tick());
        }
        for thread in clients.into_iter().chain([accepter]) {
            thread.join().map_err(|_| anyhow::anyhow!("a thread"))??;
        }
        Ok(())
    })?;
    let count = THREADS * EACH;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let sample = capture.tick();
        let losses = sample.probe_losses.get("tcp").copied().unwrap_or_default();
        absorb(&mut whole, sample);
        let ends = [Direction::Outbound, Direction::Inbound].map(|direction| {
            let (end, open) = of(&whole, pid, direction, port);
            [end.opened, end.closed, end.rx_bytes, end.tx_bytes, open]
        });
        let wanted = [count, count, count * BYTES, count * BYTES, 0];
        if ends == [wanted; 2] {
            return Ok(());
        }
        let most = MISSED_MAX.min(losses.missed);
        if Instant::now() > deadline && ends.iter().all(|end| is_short(end, &wanted, most)) {
            println!("{ends:?} of {wanted:?}: {losses:?}");
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{ends:?}, wanted {wanted:?}: {losses:?}"
        );
        capture.wait(Duration::from_millis(20));
    }
}
