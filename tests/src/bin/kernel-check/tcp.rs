//! The checks of TCP: direction, owner, families and bytes.

use std::net::IpAddr;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use shadowd::facts::{Direction, FlowDelta, Sample};
use shadowd::observe::Capture;

use crate::{PATIENCE, absorb, run_role, start, workload};

/// The sum of the flows of one process in one direction, checked to be of one service.
fn total(
    sample: &Sample,
    pid: u32,
    direction: Direction,
    remote: IpAddr,
) -> Result<Option<FlowDelta>> {
    let mut sum: Option<FlowDelta> = None;
    for flow in &sample.flows {
        if flow.pid != pid || flow.direction != direction {
            continue;
        }
        ensure!(flow.remote.ip() == remote, "{flow:?} is not with {remote}");
        match &mut sum {
            None => sum = Some(*flow),
            Some(sum) => {
                sum.counts.add(&flow.counts);
            }
        }
    }
    Ok(sum)
}

/// Known bytes both ways over several connections to a server at `listen`, reached as `connect`.
pub fn bytes_are_exact(capture: &mut Capture, listen: &str, connect: &str) -> Result<()> {
    let mut server = start(&["serve", listen])?;
    let port = workload::read_port(&mut server)?;
    let client = start(&["fetch", connect, &port.to_string()])?;
    let (server_pid, client_pid) = (server.id(), client.id());
    let mut sample = Sample::default();
    for mut child in [client, server] {
        absorb(&mut sample, until_exit_or_gone(capture, &mut child)?);
    }
    settle(capture, &mut sample, client_pid, server_pid)?;
    let remote: IpAddr = connect.parse()?;
    let count = u64::from(workload::CONNECTIONS);
    let (up, down) = (
        count * workload::REQUEST_BYTES,
        count * workload::ANSWER_BYTES,
    );
    for (pid, direction, tx, rx) in [
        (client_pid, Direction::Outbound, up, down),
        (server_pid, Direction::Inbound, down, up),
    ] {
        let Some(flow) = total(&sample, pid, direction, remote)? else {
            bail!("no {direction:?} flow of {pid}: {:?}", sample.flows);
        };
        let ends = [
            flow.counts.opened,
            flow.counts.closed,
            flow.counts.failed,
            flow.counts.tx_bytes,
            flow.counts.rx_bytes,
        ];
        ensure!(
            ends == [count, count, 0, tx, rx],
            "{flow:?}: expected {count}, {tx}, {rx}"
        );
        let service = if direction == Direction::Inbound {
            flow.local
        } else {
            flow.remote
        };
        ensure!(service.port() == port, "{flow:?}: port {port}");
        ensure!(
            flow.local.ip() == remote,
            "{flow:?}: both ends are {remote}"
        );
        ensure!(flow.cgroup != 0, "{flow:?}: no control group");
    }
    Ok(())
}

/// As `until_exit`, for a process whose end may already be in an earlier sample.
fn until_exit_or_gone(capture: &mut Capture, child: &mut Child) -> Result<Sample> {
    let status = child.wait()?;
    ensure!(
        status.code() == Some(i32::from(workload::STATUS)),
        "workload ended with {status}"
    );
    Ok(capture.tick())
}

/// A server's end of a connection may be closed by a packet after both processes are gone.
fn settle(capture: &mut Capture, sample: &mut Sample, client: u32, server: u32) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let wanted = 2 * u64::from(workload::CONNECTIONS);
    loop {
        let ours = sample
            .flows
            .iter()
            .filter(|flow| [client, server].contains(&flow.pid));
        let closed: u64 = ours.map(|flow| flow.counts.closed).sum();
        if closed >= wanted || Instant::now() > deadline {
            return Ok(());
        }
        capture.wait(Duration::from_millis(20));
        absorb(sample, capture.tick());
    }
}

/// A connect that is answered by a reset.
pub fn refused_connect_is_failed(capture: &mut Capture) -> Result<()> {
    let (pid, sample) = run_role(capture, &["refused"])?;
    let Some(flow) = total(
        &sample,
        pid,
        Direction::Outbound,
        IpAddr::from([127, 0, 0, 1]),
    )?
    else {
        bail!("no flow of {pid}: {:?}", sample.flows);
    };
    let counts = [
        flow.counts.opened,
        flow.counts.closed,
        flow.counts.failed,
        flow.counts.tx_bytes,
        flow.counts.rx_bytes,
    ];
    ensure!(counts == [0, 0, 1, 0, 0], "{flow:?}");
    Ok(())
}

/// A server that listened before capture started, as nginx does before the daemon.
pub fn early_listener(capture: &mut Capture, early: workload::EarlyListener) -> Result<()> {
    capture.tick();
    let pid = early.pid();
    early.visit()?;
    let deadline = Instant::now() + PATIENCE;
    let mut sample = capture.tick();
    loop {
        let flow = total(
            &sample,
            pid,
            Direction::Inbound,
            IpAddr::from([127, 0, 0, 1]),
        )?;
        if flow.is_some_and(|flow| flow.counts.opened == 1 && flow.cgroup != 0) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "no inbound flow of {pid}: {:?}",
            sample.flows
        );
        capture.wait(Duration::from_millis(20));
        absorb(&mut sample, capture.tick());
    }
}
