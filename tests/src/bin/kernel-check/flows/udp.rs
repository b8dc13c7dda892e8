//! UDP: datagrams and their bytes, by process and direction.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use shadowd::facts::{Direction, FlowCounts, Protocol};
use shadowd::observe::Capture;
use shadowd_tests::load::Report;
use shadowd_tests::load::udp::{UdpPlan, UdpWay};

use super::FAMILIES;
use super::ledger::Ledger;
use crate::generator::Generator;

/// Datagrams each way.
const ROUNDS: u32 = 40;

/// Whether capture sees what leaves the queue of a socket. Else nothing tells who sent to a receive
/// that does not ask.
fn told_by_the_queue(capture: &Capture) -> bool {
    let hooks = capture.probes().into_iter().filter_map(|probe| probe.hook);
    hooks
        .into_iter()
        .any(|hook| hook.contains("__skb_recv_udp"))
}

/// Bytes and datagrams.
type Moved = (u64, u64);
const NOTHING: Moved = (0, 0);

fn sent(report: &Report) -> Moved {
    (
        report.sum(|end| end.sent),
        report.sum(|end| end.datagrams_sent),
    )
}

fn received(report: &Report) -> Moved {
    (
        report.sum(|end| end.received),
        report.sum(|end| end.datagrams_received),
    )
}

/// Sent and received.
fn volume(counts: &FlowCounts) -> [Moved; 2] {
    [
        (counts.tx_bytes, counts.tx_packets),
        (counts.rx_bytes, counts.rx_packets),
    ]
}

/// All that was sent is on flows with a remote, outbound, for nothing is known to have come from
/// there; all that was received is inbound on flows without one.
fn without_remote(ledger: &Ledger, reports: &[Report]) -> Result<()> {
    for report in reports {
        let sum = |direction: Direction, known: bool| {
            let mut sum = FlowCounts::default();
            let flows = ledger.flows.iter().filter(|flow| {
                let remote = !flow.remote.ip().is_unspecified() && flow.remote.port() != 0;
                (flow.pid, flow.protocol) == (report.pid, Protocol::Udp)
                    && (flow.direction, remote) == (direction, known)
            });
            flows.for_each(|flow| sum.add(&flow.counts));
            volume(&sum)
        };
        let seen = [
            sum(Direction::Outbound, true),
            sum(Direction::Inbound, false),
            sum(Direction::Outbound, false),
            sum(Direction::Inbound, true),
        ];
        let made = [
            [sent(report), NOTHING],
            [NOTHING, received(report)],
            [NOTHING; 2],
            [NOTHING; 2],
        ];
        ensure!(seen == made, "{seen:?}, made {made:?}; {:?}", ledger.flows);
    }
    Ok(())
}

/// Every family by one way of moving datagrams.
pub fn way(capture: &mut Capture, way: UdpWay) -> Result<()> {
    for (listen, connect) in FAMILIES {
        let plan = |address: &str, port: u16| -> Result<UdpPlan> {
            Ok(UdpPlan {
                address: (address.parse::<IpAddr>()?, port).into(),
                way,
                rounds: ROUNDS,
            })
        };
        let mut ledger = Ledger::open(capture);
        let mut server = Generator::start("udp-serve", &plan(listen, 0)?)?;
        let port = server.port()?;
        let mut client = Generator::start("udp-connect", &plan(connect, port)?)?;
        let reports = [client.report()?, server.report()?];
        client.close()?;
        server.close()?;
        ledger.tick(capture);
        if way == UdpWay::Addressless && !told_by_the_queue(capture) {
            without_remote(&ledger, &reports).with_context(|| format!("{connect} to {listen}"))?;
            continue;
        }
        for (report, direction) in reports
            .iter()
            .zip([Direction::Outbound, Direction::Inbound])
        {
            let seen = volume(&ledger.of(report.pid, Protocol::Udp, direction));
            let made = [sent(report), received(report)];
            ensure!(
                seen == made,
                "{connect} to {listen}, {direction:?}: {seen:?}, made {made:?}; {:?}",
                ledger
                    .flows
                    .iter()
                    .filter(|flow| flow.pid == report.pid)
                    .collect::<Vec<_>>()
            );
        }
        let owners = [
            (reports[0].pid, Direction::Outbound),
            (reports[1].pid, Direction::Inbound),
        ];
        ledger.only(port, &owners)?;
    }
    Ok(())
}
