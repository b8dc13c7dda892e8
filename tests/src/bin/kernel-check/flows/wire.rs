//! A wire that loses packets, between two network namespaces: what arrives is counted once.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use shadowd::observe::Capture;
use shadowd_tests::load::Plan;
use shadowd_tests::load::ways::Way;

use super::tcp::{Exchange, ends};
use super::{CONNECTIONS, plan};
use crate::Skipped;
use crate::generator::Generator;

/// Enough that some of it is lost.
const ANSWER: u64 = 6_000_011;

/// Two namespaces with a pair of interfaces between them, removed when they go out of scope.
struct Wire {
    ends: [String; 2],
}

impl Wire {
    fn make() -> Result<Self> {
        let pid = std::process::id();
        let wire = Self {
            ends: ["a", "b"].map(|end| format!("kernel-check-{pid}-{end}")),
        };
        let [a, b] = &wire.ends;
        for name in &wire.ends {
            run("ip", &["netns", "add", name])?;
        }
        run(
            "ip",
            &[
                "-n", a, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", b,
            ],
        )?;
        for (name, v4, v6) in [
            (a, "192.0.2.1/24", "2001:db8::1/64"),
            (b, "192.0.2.2/24", "2001:db8::2/64"),
        ] {
            run("ip", &["-n", name, "address", "add", v4, "dev", "wire"])?;
            // Without the wait for a duplicate.
            let address = ["-n", name, "address", "add", v6, "dev", "wire", "nodad"];
            run("ip", &address)?;
            run("ip", &["-n", name, "link", "set", "wire", "up"])?;
            lose(name)?;
        }
        Ok(wire)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for name in &self.ends {
            if let Err(error) = run("ip", &["netns", "delete", name]) {
                println!("{error:#}");
            }
        }
    }
}

/// Five packets of a hundred are lost on their way in.
fn lose(name: &str) -> Result<()> {
    let rules = "add table inet loss
        add chain inet loss input { type filter hook input priority 0; }
        add rule inet loss input meta l4proto tcp numgen random mod 100 < 5 drop";
    run("ip", &["netns", "exec", name, "nft", rules])
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("{program} does not start"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Bytes are exact and segments that were sent again are counted.
pub fn retransmissions(capture: &mut Capture) -> Result<()> {
    for tool in ["/usr/sbin/nft", "/usr/sbin/ip"] {
        if !Path::new(tool).exists() {
            return Err(Skipped(format!("{tool} is not installed")).into());
        }
    }
    let wire = Wire::make()?;
    for server in ["192.0.2.2", "2001:db8::2"] {
        let made = Plan {
            answer: ANSWER,
            ..plan(server, 0, Way::Write)?
        };
        let start = |role: &str, plan: &Plan| {
            let end = if role == "serve" { 1 } else { 0 };
            Generator::start_in(&wire.ends[end], role, plan)
        };
        let exchange = Exchange::run_with(capture, server, server, &made, start)?;
        let count = u64::from(CONNECTIONS);
        let mut again = 0;
        for side in exchange.sides() {
            let seen = side.counts(&exchange.whole);
            let (sent, received) = (
                side.after.sum(|end| end.sent),
                side.after.sum(|end| end.received),
            );
            ensure!(
                ends(&seen) == [count, 0, count, 0, sent, received],
                "{server}: {seen:?}, made {count}, {sent}, {received}"
            );
            let told = side.after.kernel(|info| info.retransmits);
            // The end of a connection may be lost too.
            ensure!(
                (told..=told + 10 * count).contains(&seen.retransmits),
                "{server}: {} segments sent again, the kernel says {told}",
                seen.retransmits
            );
            again += told;
        }
        ensure!(again > 0, "the wire lost nothing");
    }
    Ok(())
}
