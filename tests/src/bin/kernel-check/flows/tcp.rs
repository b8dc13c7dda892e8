//! TCP: bytes to the byte, and all else that the kernel tells by TCP_INFO.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shadowd::facts::{Direction, FlowCounts, Histogram, Protocol};
use shadowd::observe::Capture;
use shadowd_tests::load::ways::Way;
use shadowd_tests::load::{Plan, Report};

use super::ledger::Ledger;
use super::{CONNECTIONS, FAMILIES, plan};
use crate::generator::Generator;

/// Segments that the end of a connection may add: FIN and its acknowledgement, both ways.
const CLOSING_SEGMENTS: u64 = 4;

/// One exchange from its beginning to its end.
pub struct Exchange {
    port: u16,
    client: Side,
    server: Side,
    /// What was said while all was open.
    while_open: Ledger,
    /// All of it.
    pub whole: Ledger,
}

/// One process, before and after the sample that was taken while all was open.
pub struct Side {
    direction: Direction,
    before: Report,
    /// What it did.
    pub after: Report,
}

impl Exchange {
    fn run(capture: &mut Capture, listen: &str, connect: &str, made: &Plan) -> Result<Self> {
        Self::run_with(capture, listen, connect, made, |role, plan| {
            Generator::start(role, plan)
        })
    }

    /// Lets `start` start the roles, wherever that is.
    pub fn run_with(
        capture: &mut Capture,
        listen: &str,
        connect: &str,
        made: &Plan,
        start: impl Fn(&str, &Plan) -> Result<Generator>,
    ) -> Result<Self> {
        let mut whole = Ledger::open(capture);
        let address = |text: &str, port: u16| -> Result<Plan> {
            Ok(Plan {
                address: (text.parse::<IpAddr>()?, port).into(),
                ..made.clone()
            })
        };
        let mut server = start("serve", &address(listen, 0)?)?;
        let port = server.port()?;
        let mut client = start("connect", &address(connect, port)?)?;
        let before = (client.report()?, server.report()?);
        whole.tick(capture);
        let while_open = Ledger {
            flows: whole.flows.clone(),
        };
        let after = (client.report()?, server.report()?);
        let pids = [client.pid(), server.pid()];
        client.close()?;
        server.close()?;
        let ends = 2 * u64::from(made.connections);
        whole.until(capture, |whole| whole.closed(&pids) >= ends);
        Ok(Self {
            port,
            client: Side {
                direction: Direction::Outbound,
                before: before.0,
                after: after.0,
            },
            server: Side {
                direction: Direction::Inbound,
                before: before.1,
                after: after.1,
            },
            while_open,
            whole,
        })
    }

    /// Client and server.
    pub fn sides(&self) -> [&Side; 2] {
        [&self.client, &self.server]
    }
}

impl Side {
    /// What was said of it.
    pub fn counts(&self, ledger: &Ledger) -> FlowCounts {
        ledger.of(self.after.pid, Protocol::Tcp, self.direction)
    }
}

/// What is compared to the byte: connections and bytes.
pub fn ends(counts: &FlowCounts) -> [u64; 6] {
    [
        counts.opened,
        counts.adopted,
        counts.closed,
        counts.failed,
        counts.tx_bytes,
        counts.rx_bytes,
    ]
}

/// Every family by one way of moving data.
pub fn way(capture: &mut Capture, way: Way) -> Result<()> {
    for (listen, connect) in FAMILIES {
        let plan = plan(listen, 0, way)?;
        let exchange = Exchange::run(capture, listen, connect, &plan)
            .with_context(|| format!("{connect} to {listen}"))?;
        let count = u64::from(CONNECTIONS);
        for side in exchange.sides() {
            let (sent, received) = (
                side.after.sum(|end| end.sent),
                side.after.sum(|end| end.received),
            );
            ensure!(
                (sent, received)
                    == (
                        side.after.kernel(|info| info.sent),
                        side.after.kernel(|info| info.received)
                    ),
                "the load and TCP_INFO differ: {:?}",
                side.after
            );
            let seen = side.counts(&exchange.whole);
            ensure!(
                ends(&seen) == [count, 0, count, 0, sent, received],
                "{connect} to {listen}, {:?}: {seen:?}, made {count}, {sent}, {received}",
                side.direction
            );
        }
        check_ends(&exchange, connect)?;
    }
    Ok(())
}

/// Owners, families and addresses are the generator's.
fn check_ends(exchange: &Exchange, connect: &str) -> Result<()> {
    let owners = exchange
        .sides()
        .map(|side| (side.after.pid, side.direction));
    exchange.whole.only(exchange.port, &owners)?;
    let address = connect.parse::<IpAddr>()?.to_canonical();
    let pids = owners.map(|(pid, _)| pid);
    for flow in &exchange.whole.flows {
        if pids.contains(&flow.pid) {
            ensure!(
                flow.local.ip() == address && flow.remote.ip() == address,
                "{flow:?}: both ends are {address}"
            );
        }
    }
    Ok(())
}

/// Segments, retransmissions and round trips are the kernel's own.
pub fn agrees_with_tcp_info(capture: &mut Capture) -> Result<()> {
    let count = u64::from(CONNECTIONS);
    for (listen, connect) in &FAMILIES[..2] {
        let plan = plan(listen, 0, Way::Write)?;
        let exchange = Exchange::run(capture, listen, connect, &plan)?;
        for side in exchange.sides() {
            let seen = side.counts(&exchange.whole);
            let told = &side.after;
            let within =
                |seen: u64, told: u64| (told..=told + CLOSING_SEGMENTS * count).contains(&seen);
            ensure!(
                within(seen.tx_packets, told.kernel(|info| info.segments_out))
                    && within(seen.rx_packets, told.kernel(|info| info.segments_in)),
                "segments: {seen:?}, {told:?}"
            );
            ensure!(
                seen.retransmits == told.kernel(|info| info.retransmits),
                "retransmissions: {seen:?}, {told:?}"
            );
            let mean = seen.rtt.mean_ns().unwrap_or(0);
            ensure!(
                seen.rtt.count >= count && (1..1_000_000_000).contains(&mean),
                "round trips: {seen:?}"
            );
            let connects = if side.direction == Direction::Outbound {
                count
            } else {
                0
            };
            let connect_mean = seen.connect.mean_ns().unwrap_or(1);
            ensure!(
                seen.connect.count == connects && (1..1_000_000_000).contains(&connect_mean),
                "connects: {seen:?}"
            );
        }
    }
    Ok(())
}

/// A sample tells what open connections did, between what the kernel told before and after it.
pub fn open_connections_tell(capture: &mut Capture) -> Result<()> {
    let count = u64::from(CONNECTIONS);
    for (listen, connect) in FAMILIES {
        let plan = plan(listen, 0, Way::Write)?;
        let exchange = Exchange::run(capture, listen, connect, &plan)?;
        for side in exchange.sides() {
            let seen = side.counts(&exchange.while_open);
            let (sent, received) = (
                side.before.sum(|end| end.sent),
                side.before.sum(|end| end.received),
            );
            ensure!(
                ends(&seen) == [count, 0, 0, 0, sent, received],
                "{connect} to {listen}: {seen:?}, made {count}, {sent}, {received}"
            );
            let between = |seen: u64, told: fn(&shadowd_tests::load::info::Info) -> u64| {
                (side.before.kernel(told)..=side.after.kernel(told)).contains(&seen)
            };
            ensure!(
                between(seen.tx_packets, |info| info.segments_out)
                    && between(seen.rx_packets, |info| info.segments_in)
                    && between(seen.retransmits, |info| info.retransmits),
                "segments: {seen:?}, before {:?}, after {:?}",
                side.before,
                side.after
            );
            let flows = &exchange.while_open.flows;
            let open: u64 = flows
                .iter()
                .filter(|flow| flow.pid == side.after.pid)
                .map(|flow| flow.open)
                .sum();
            ensure!(open == count, "{open} open, {count} are");
        }
    }
    Ok(())
}

/// Connects that are answered by a reset.
pub fn refused(capture: &mut Capture) -> Result<()> {
    for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        let mut ledger = Ledger::open(capture);
        let mut client = Generator::start("refused", &plan(address, 0, Way::Write)?)?;
        client.report()?;
        let pid = client.pid();
        client.close()?;
        let count = u64::from(CONNECTIONS);
        ledger.until(capture, |ledger| ledger.closed(&[pid]) >= count);
        let seen = ledger.of(pid, Protocol::Tcp, Direction::Outbound);
        ensure!(
            ends(&seen) == [0, 0, 0, count, 0, 0],
            "{address}: {seen:?}, {count} were refused"
        );
    }
    Ok(())
}

/// Connections that a reset ends, seen from both ends.
pub fn reset(capture: &mut Capture) -> Result<()> {
    for (listen, connect) in &FAMILIES[..2] {
        let mut ledger = Ledger::open(capture);
        let mut server = Generator::start("serve", &plan(listen, 0, Way::Write)?)?;
        let port = server.port()?;
        let mut client = Generator::start("reset", &plan(connect, port, Way::Write)?)?;
        let reports = [client.report()?, server.report()?];
        client.close()?;
        let count = u64::from(CONNECTIONS);
        let pids = [reports[0].pid, reports[1].pid];
        ledger.until(capture, |ledger| ledger.closed(&pids) >= 2 * count);
        server.close()?;
        for (report, direction) in reports
            .iter()
            .zip([Direction::Outbound, Direction::Inbound])
        {
            let seen = ledger.of(report.pid, Protocol::Tcp, direction);
            let (sent, received) = (report.sum(|end| end.sent), report.sum(|end| end.received));
            ensure!(
                ends(&seen) == [count, 0, count, 0, sent, received] && seen.resets == count,
                "{direction:?}: {seen:?}, made {count}, {sent}, {received}, all reset"
            );
        }
    }
    Ok(())
}

/// A server that thinks for a known time.
pub fn response_latency(capture: &mut Capture) -> Result<()> {
    const DELAY: Duration = Duration::from_millis(20);
    let made = Plan {
        request: 100,
        answer: 20_000,
        rounds: 10,
        delay_ms: DELAY.as_millis() as u64,
        ..plan("127.0.0.1", 0, Way::Write)?
    };
    let exchange = Exchange::run(capture, "127.0.0.1", "127.0.0.1", &made)?;
    let answers = u64::from(made.rounds * made.connections);
    let seen = exchange.server.counts(&exchange.whole).response;
    ensure!(
        seen.count() == answers,
        "{} answers, made {answers}: {seen:?}",
        seen.count()
    );
    let first = Histogram::bucket(DELAY.as_nanos() as u64);
    let early: u64 = seen.counts()[..first].iter().sum();
    ensure!(early == 0, "{early} answers before {DELAY:?}: {seen:?}");
    // A busy machine makes some of them late, not half of them.
    let median = seen.quantile(0.5).context("there are answers")?;
    ensure!(median < 4 * DELAY, "median {median:?}: {seen:?}");
    let client = exchange.client.counts(&exchange.whole).response;
    ensure!(client.is_empty(), "a client answers nobody: {client:?}");
    Ok(())
}

/// Many short connections of one client to one server.
pub fn many(capture: &mut Capture, count: u32) -> Result<()> {
    let made = |address: &str, port: u16| -> Result<Plan> {
        Ok(Plan {
            connections: count,
            request: 11,
            answer: 101,
            ..plan(address, port, Way::Write)?
        })
    };
    let mut ledger = Ledger::open(capture);
    let mut server = Generator::start("many-serve", &made("127.0.0.1", 0)?)?;
    let port = server.port()?;
    let mut client = Generator::start("many-connect", &made("127.0.0.1", port)?)?;
    let reports = [client.report()?, server.report()?];
    client.close()?;
    server.close()?;
    let owners = [
        (reports[0].pid, Direction::Outbound),
        (reports[1].pid, Direction::Inbound),
    ];
    let count = u64::from(count);
    let pids = owners.map(|(pid, _)| pid);
    ledger.until(capture, |ledger| ledger.closed(&pids) >= 2 * count);
    for (report, (pid, direction)) in reports.iter().zip(owners) {
        let seen = ledger.of(pid, Protocol::Tcp, direction);
        let (sent, received) = (report.sum(|end| end.sent), report.sum(|end| end.received));
        ensure!(
            ends(&seen) == [count, 0, count, 0, sent, received],
            "{direction:?}: {seen:?}, made {count}, {sent}, {received}"
        );
    }
    ledger.only(port, &owners)
}
