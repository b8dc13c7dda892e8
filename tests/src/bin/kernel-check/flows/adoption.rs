//! Capture that starts while connections are open, open and close: each is seen once.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use shadowd::facts::{BootTime, Direction};
use shadowd::observe::{Capture, boot_time};
use shadowd_tests::load::churn::{ChurnPlan, Life, Lives};

use super::ledger::Ledger;
use crate::generator::Generator;
use crate::settings;

/// The second number of the addresses in each of the two namespaces.
const NETWORKS: [u8; 2] = [16, 32];
/// A packet may be on its way for so long after both ends called close.
const ON_THE_WAY: Duration = Duration::from_millis(200);

/// Opened or adopted, and closed, by process, address and direction.
type Seen = BTreeMap<(u32, Ipv4Addr, bool), (u64, u64)>;

/// In each of two namespaces: `held` connections stay open and `per_second` come and go.
pub fn each_once(held: u32, per_second: u32, seconds: u64) -> Result<()> {
    let mut loads = Vec::new();
    for network in NETWORKS {
        let mut load = Generator::start(
            "churn",
            &ChurnPlan {
                network,
                held,
                per_second,
                stop_after: 0,
            },
        )?;
        ensure!(load.read::<String>()? == "open", "it says that all is open");
        loads.push(load);
    }
    let before = boot_time();
    let mut capture = Capture::start(&settings());
    let after = boot_time();
    let mut ledger = Ledger::default();
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        ledger.tick(&mut capture);
        capture.wait(Duration::from_millis(250));
    }
    for load in &mut loads {
        load.hang_up();
    }
    let mut lives = Vec::new();
    for load in &mut loads {
        load.read::<Lives>()?;
        lives.push(load.read::<Lives>()?);
    }
    let count = |ledger: &Ledger| -> Result<u64> {
        let seen = seen(ledger);
        let all = lives.iter().flat_map(|load| {
            let each = load.lives.iter();
            each.map(|life| check(&seen, load.pid, life, before, after))
        });
        all.sum()
    };
    ledger.until(&mut capture, |ledger| count(ledger).is_ok());
    let counted = count(&ledger)?;
    // The held ones, and most of what came after the start.
    let least = u64::from(held) * 4;
    ensure!(counted > least, "{counted} ends were open or came");
    let ours: Vec<u32> = lives.iter().map(|one| one.pid).collect();
    ensure!(
        ours.iter()
            .all(|pid| loads.iter().any(|load| load.pid() == *pid)),
        "{ours:?}"
    );
    loads.into_iter().try_for_each(Generator::close)
}

fn seen(ledger: &Ledger) -> Seen {
    let mut seen = Seen::new();
    for flow in &ledger.flows {
        let inbound = flow.direction == Direction::Inbound;
        let from = if inbound { flow.remote } else { flow.local };
        if let IpAddr::V4(from) = from.ip() {
            let counts = seen.entry((flow.pid, from, inbound)).or_default();
            counts.0 += flow.counts.opened + flow.counts.adopted;
            counts.1 += flow.counts.closed;
        }
    }
    seen
}

/// Both ends of one connection; says how many had to be seen.
fn check(seen: &Seen, pid: u32, life: &Life, before: BootTime, after: BootTime) -> Result<u64> {
    let mut counted = 0;
    for inbound in [false, true] {
        let of = |pid: u32| seen.get(&(pid, life.from, inbound)).copied();
        let (began, closed) = of(pid).unwrap_or_default();
        let gone = BootTime::from_nanos(life.closed);
        let closing = BootTime::from_nanos(life.closing);
        let context = || {
            format!(
                "{life:?}, inbound {inbound}: begun {began}, closed {closed} of {pid}, {:?} of \
                 nobody; capture started from {before:?} to {after:?}",
                of(0)
            )
        };
        if closing > after {
            ensure!((began, closed) == (1, 1), "not once: {}", context());
            counted += 1;
        } else if before.since(gone) > ON_THE_WAY {
            ensure!((began, closed) == (0, 0), "was gone: {}", context());
        } else {
            ensure!(began <= 1, "twice: {}", context());
        }
    }
    Ok(counted)
}
