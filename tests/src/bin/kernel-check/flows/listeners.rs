//! Listening sockets: who waits, how many may, and who was refused.

use anyhow::{Context, Result, ensure};
use shadowd::observe::Capture;
use shadowd_tests::load::Plan;
use shadowd_tests::load::special::{BACKLOG, Queue};
use shadowd_tests::load::ways::Way;

use super::plan;
use crate::generator::Generator;

/// Connects to a queue that holds fewer.
const CONNECTS: u32 = 20;

/// A queue that overflows in a namespace of its own, whose counters know of nothing else.
pub fn overflow(capture: &mut Capture) -> Result<()> {
    for address in ["127.0.0.1", "::1"] {
        let asked = Plan {
            connections: CONNECTS,
            ..plan(address, 0, Way::Write)?
        };
        let mut load = Generator::start("overflow", &asked)?;
        let port = load.port()?;
        let before: Queue = load.ask()?;
        let sample = capture.tick();
        let after: Queue = load.ask()?;
        ensure!(
            before.backlog >= u64::from(BACKLOG.unsigned_abs()),
            "nothing waits: {before:?}"
        );
        ensure!(before.overflows > 0, "nothing overflows: {before:?}");
        let ours = |listener: &&shadowd::facts::ListenerReading| {
            listener.pid == load.pid() && listener.local.port() == port
        };
        let seen = sample.listeners.iter().find(ours).with_context(|| {
            format!(
                "no listener of {} at {port} among {} of them",
                load.pid(),
                sample.listeners.len()
            )
        })?;
        ensure!(
            u64::from(seen.backlog) == before.backlog
                && u64::from(seen.backlog_max) == before.backlog_max
                && (before.overflows..=after.overflows).contains(&seen.overflows),
            "{seen:?}: before {before:?}, after {after:?}"
        );
        load.close()?;
    }
    Ok(())
}
