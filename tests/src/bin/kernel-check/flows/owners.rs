//! Who owns a connection when several processes could, and what is no connection at all.

use anyhow::{Result, ensure};
use shadowd::facts::{Direction, Protocol};
use shadowd::observe::Capture;
use shadowd_tests::load::special::CHILDREN;
use shadowd_tests::load::ways::Way;
use shadowd_tests::load::{Plan, Report};

use super::ledger::Ledger;
use super::{CONNECTIONS, plan};
use crate::generator::Generator;

/// Children accept from a socket that their parent listens on.
pub fn prefork(capture: &mut Capture) -> Result<()> {
    served_by_children(capture, "prefork", CHILDREN)
}

/// A process accepts and passes the connection on, untouched.
pub fn passed(capture: &mut Capture) -> Result<()> {
    served_by_children(capture, "passing", 1)
}

/// Bytes belong to who moved them; each connection is counted once, for whomever.
fn served_by_children(capture: &mut Capture, role: &str, children: u32) -> Result<()> {
    let mut ledger = Ledger::open(capture);
    let mut parent = Generator::start(role, &plan("127.0.0.1", 0, Way::Write)?)?;
    let port = parent.port()?;
    let asked = Plan {
        connections: CONNECTIONS * children,
        ..plan("127.0.0.1", port, Way::Write)?
    };
    let mut client = Generator::start("connect", &asked)?;
    client.report()?;
    let mut reports = Vec::new();
    for _ in 0..children {
        reports.push(parent.read::<Report>()?);
    }
    let mut owners = vec![parent.pid()];
    owners.extend(reports.iter().map(|report| report.pid));
    client.close()?;
    parent.close()?;
    let count = u64::from(CONNECTIONS * children);
    ledger.until(capture, |ledger| ledger.closed(&owners) >= count);
    let inbound = |pid: &u32| ledger.of(*pid, Protocol::Tcp, Direction::Inbound);
    for report in &reports {
        let seen = inbound(&report.pid);
        let (sent, received) = (report.sum(|end| end.sent), report.sum(|end| end.received));
        ensure!(
            (seen.tx_bytes, seen.rx_bytes) == (sent, received),
            "child {} sent {sent} and received {received}: {seen:?}; parent: {:?}",
            report.pid,
            inbound(&owners[0])
        );
    }
    let sums = [
        owners
            .iter()
            .map(inbound)
            .map(|seen| seen.opened)
            .sum::<u64>(),
        owners.iter().map(inbound).map(|seen| seen.closed).sum(),
        inbound(&owners[0]).tx_bytes + inbound(&owners[0]).rx_bytes,
    ];
    ensure!(
        sums == [count, count, 0],
        "opened, closed and the parent's bytes: {sums:?}, {count} connections"
    );
    Ok(())
}

/// Sockets of the local family move bytes too, and nobody asked for them.
pub fn unix_is_none(capture: &mut Capture) -> Result<()> {
    let mut ledger = Ledger::open(capture);
    let mut load = Generator::start("unix", &())?;
    load.report()?;
    let pid = load.pid();
    load.close()?;
    ledger.tick(capture);
    let flows = ledger.flows.iter().find(|flow| flow.pid == pid);
    ensure!(flows.is_none(), "{flows:?}");
    Ok(())
}
