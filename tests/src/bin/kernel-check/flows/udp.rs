//! UDP: datagrams and their bytes, by process and direction.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use shadowd::facts::{Direction, Protocol};
use shadowd::observe::Capture;
use shadowd_tests::load::udp::{UdpPlan, UdpWay};

use super::FAMILIES;
use super::ledger::Ledger;
use crate::generator::Generator;

/// Datagrams each way.
const ROUNDS: u32 = 40;

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
        for (report, direction) in reports
            .iter()
            .zip([Direction::Outbound, Direction::Inbound])
        {
            let seen = ledger.of(report.pid, Protocol::Udp, direction);
            let seen = [
                seen.tx_bytes,
                seen.rx_bytes,
                seen.tx_packets,
                seen.rx_packets,
            ];
            let made = [
                report.sum(|end| end.sent),
                report.sum(|end| end.received),
                report.sum(|end| end.datagrams_sent),
                report.sum(|end| end.datagrams_received),
            ];
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
