//! Every fault on real hosts with a real systemd, and every bad input to a real daemon.
//!
//! Needs a lab that is up: `cargo xtask test hosts` starts one and ends it. Each test begins and
//! ends with a pair that is well: one active, one shadow that could take over, the virtual IPs and
//! the cold unit on the active alone. Nothing sleeps: each step waits on a condition.

#![cfg(feature = "hosts")]

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xtask::lab::command::{SHORT, run};
use xtask::lab::{COLD, CONFIG, DAEMON, Fault, GROUP, Lab, VIP_V4, VIP_V6, WARM};

const SOCKET: &str = "/run/shadowd/shadowd.sock";
/// How long anything may take on a busy machine before it counts as broken.
const LONG: Duration = Duration::from_secs(60);
const TAKEOVER: Duration = Duration::from_secs(20);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The pair, all well. Heals both hosts when dropped, so that one failure does not cause others.
struct Pair {
    lab: Lab,
    active: String,
    shadow: String,
    _turn: MutexGuard<'static, ()>,
}

impl Pair {
    fn take() -> Result<Self> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let lab = Lab::attach()?;
        let active = lab.converge(LONG)?;
        let mut names = lab.state().hosts.iter().map(|host| host.name.clone());
        let shadow = names
            .find(|name| *name != active)
            .context("the lab has one host only")?;
        Ok(Self {
            lab,
            active,
            shadow,
            _turn: turn,
        })
    }

    /// Waits until the shadow owns the group with all that belongs to it.
    fn wait_takeover(&self) -> Result<()> {
        let new = self.shadow.as_str();
        self.lab.wait(TAKEOVER, "the shadow to take over", || {
            Ok(self.lab.view(new)?.role == "active"
                && self.holds_vips(new)?
                && self.lab.unit_state(new, COLD)? == "active")
        })
    }

    fn holds_vips(&self, host: &str) -> Result<bool> {
        for vip in [IpAddr::from(VIP_V4), IpAddr::from(VIP_V6)] {
            if !self.lab.holders(vip)?.iter().any(|holder| holder == host) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Heals the old active: it must return as shadow, the new one must stay.
    fn wait_return(&self) -> Result<()> {
        self.lab.heal(&self.active)?;
        let now = self.lab.converge(LONG)?;
        ensure!(
            now == self.shadow,
            "host {now} is active after the heal, not {}",
            self.shadow
        );
        Ok(())
    }

    /// The group did not move and all is well.
    fn unmoved(&self, epoch: u64) -> Result<()> {
        let now = self.lab.converge(LONG)?;
        let view = self.lab.view(&now)?;
        ensure!(
            now == self.active && view.epoch == epoch,
            "the group moved: {now}, {view:?}"
        );
        Ok(())
    }

    fn epoch(&self) -> Result<u64> {
        Ok(self.lab.view(&self.active)?.epoch)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() || self.lab.well().is_err() {
            for host in [&self.active, &self.shadow] {
                if let Err(error) = self.lab.heal(host) {
                    eprintln!("host {host} does not heal: {error:#}");
                }
            }
        }
    }
}

fn fails_over(fault: &Fault) -> Result<()> {
    let pair = Pair::take()?;
    pair.lab.fault(&pair.active, fault)?;
    pair.wait_takeover()?;
    pair.wait_return()
}

#[test]
fn a_crashed_host_is_replaced_and_returns_as_shadow() -> Result<()> {
    fails_over(&Fault::Crash)
}

#[test]
fn a_killed_daemon_is_replaced_and_returns_as_shadow() -> Result<()> {
    fails_over(&Fault::DaemonKill)
}

#[test]
fn a_stopped_daemon_is_replaced_and_returns_as_shadow() -> Result<()> {
    fails_over(&Fault::DaemonStop)
}

#[test]
fn a_stopped_unit_moves_the_group() -> Result<()> {
    fails_over(&Fault::UnitStop(WARM.into()))
}

#[test]
fn a_killed_unit_moves_the_group() -> Result<()> {
    fails_over(&Fault::UnitKill(WARM.into()))
}

#[test]
fn a_killed_cold_unit_moves_the_group() -> Result<()> {
    fails_over(&Fault::UnitKill(COLD.into()))
}

#[test]
fn a_lost_link_moves_the_group() -> Result<()> {
    fails_over(&Fault::LinkDown)
}

#[test]
fn a_rebooted_host_is_replaced_and_returns_as_shadow() -> Result<()> {
    fails_over(&Fault::Reboot)
}

#[test]
fn a_partition_makes_two_owners_and_its_heal_leaves_the_newer() -> Result<()> {
    fails_over(&Fault::Partition)
}

#[test]
fn an_active_that_is_not_heard_is_replaced_and_yields() -> Result<()> {
    let pair = Pair::take()?;
    pair.lab
        .fault(&pair.active, &Fault::CutOneWay(pair.shadow.clone()))?;
    pair.wait_takeover()?;
    pair.lab.wait(TAKEOVER, "the old active to yield", || {
        Ok(pair.lab.view(&pair.active)?.role == "shadow" && !pair.holds_vips(&pair.active)?)
    })?;
    pair.wait_return()
}

#[test]
fn a_shadow_that_is_not_heard_changes_nothing() -> Result<()> {
    let pair = Pair::take()?;
    let epoch = pair.epoch()?;
    pair.lab
        .fault(&pair.shadow, &Fault::CutOneWay(pair.active.clone()))?;
    pair.lab
        .wait(TAKEOVER, "the active to suspect the shadow", || {
            Ok(!pair.lab.view(&pair.active)?.all_eligible)
        })?;
    ensure!(pair.lab.view(&pair.active)?.role == "active");
    pair.lab.heal(&pair.shadow)?;
    pair.unmoved(epoch)
}

#[test]
fn a_lossy_link_ends_with_one_owner() -> Result<()> {
    let pair = Pair::take()?;
    let sent = || -> Result<u64> { Ok(sum(&pair.lab.ask(&pair.active, &["peers"])?, "sent")) };
    let before = sent()?;
    pair.lab.fault(&pair.active, &Fault::Loss(30))?;
    pair.lab.wait(LONG, "300 datagrams under loss", || {
        Ok(sent()? >= before + 300)
    })?;
    pair.lab.heal(&pair.active)?;
    pair.lab.converge(LONG).map(drop)
}

#[test]
fn a_starved_active_is_replaced_and_returns_as_shadow() -> Result<()> {
    fails_over(&Fault::Starve(5))
}

#[test]
fn a_planned_handover_goes_there_and_back() -> Result<()> {
    let pair = Pair::take()?;
    for (from, to) in [(&pair.active, &pair.shadow), (&pair.shadow, &pair.active)] {
        pair.lab.run(
            from,
            &["shadowctl", "failover", "handover", GROUP, "--to", to],
        )?;
        let now = pair.lab.converge(LONG)?;
        ensure!(now == *to, "host {now} is active, not {to}");
    }
    Ok(())
}

#[test]
fn a_daemon_that_is_stopped_hands_over_and_takes_its_addresses_along() -> Result<()> {
    let pair = Pair::take()?;
    pair.lab.run(&pair.active, &["systemctl", "stop", DAEMON])?;
    ensure!(
        !pair.holds_vips(&pair.active)?,
        "a stopped daemon left its addresses"
    );
    pair.wait_takeover()?;
    pair.wait_return()
}

/// Starts the daemon by hand with this configuration; it must refuse. Gives what it said.
fn refused(pair: &Pair, text: &str, arguments: &[&str]) -> Result<String> {
    let path = "/tmp/wrong.toml";
    pair.lab.write_file(&pair.shadow, path, text)?;
    let start = ["timeout", "10", "/usr/sbin/shadowd", "--config", path];
    let output = pair.lab.exec(&pair.shadow, &[&start, arguments].concat())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => bail!("accepted:\n{text}"),
        Some(124) => bail!("started and ran on:\n{text}"),
        Some(_) => Ok(said),
        None => bail!("ended by a signal: {said}"),
    }
}

#[test]
fn a_wrong_configuration_is_refused_by_file_line_and_key() -> Result<()> {
    let pair = Pair::take()?;
    let epoch = pair.epoch()?;
    let good = pair.lab.run(&pair.shadow, &["cat", CONFIG])?;
    for (key, right, wrong) in [
        ("heartbeat", "heartbeat = \"10ms\"", "heartbeat = \"1ms\""),
        (
            "suspect_after",
            "suspect_after = \"30ms\"",
            "suspect_after = \"11ms\"",
        ),
        ("hartbeat", "heartbeat = \"10ms\"", "hartbeat = \"10ms\""),
        ("vips", "\"192.0.2.10/24\"", "\"192.0.2.10/33\""),
        ("protection", "protection = \"none\"\n", ""),
    ] {
        let text = good.replace(right, wrong);
        ensure!(text != good, "the lab's configuration has no {right}");
        let said = refused(&pair, &text, &["--check"])?;
        ensure!(
            said.contains("/tmp/wrong.toml") && said.contains(key),
            "{key}: {said}"
        );
        // The missing key has no line of its own.
        if let Some(line) = text
            .lines()
            .position(|line| !wrong.is_empty() && line.contains(wrong))
        {
            let line = (line + 1).to_string();
            let numbers = said.split(|c: char| !c.is_ascii_digit());
            ensure!(
                numbers.into_iter().any(|number| number == line),
                "line {line} of {key}: {said}"
            );
        }
    }
    pair.unmoved(epoch)
}

#[test]
fn an_unknown_interface_or_unit_is_refused_at_start() -> Result<()> {
    let pair = Pair::take()?;
    let epoch = pair.epoch()?;
    let good = pair.lab.run(&pair.shadow, &["cat", CONFIG])?;
    pair.lab.run(&pair.shadow, &["systemctl", "stop", DAEMON])?;
    for (right, wrong) in [
        ("\"eth0\"", "eth9"),
        ("\"nginx.service\"", "nobody.service"),
    ] {
        let text = good.replace(right, &format!("\"{wrong}\""));
        let said = refused(&pair, &text, &[])?;
        ensure!(said.contains(wrong), "{wrong} is not named: {said}");
    }
    pair.lab.heal(&pair.shadow)?;
    pair.unmoved(epoch)
}

#[test]
fn garbage_datagrams_are_counted_and_change_nothing() -> Result<()> {
    let pair = Pair::take()?;
    let epoch = pair.epoch()?;
    let refused = || -> Result<u64> {
        let status = pair.lab.ask(&pair.active, &["status"])?;
        let counted = |part: &Value| sum(part, "malformed") + sum(part, "forged");
        Ok(counted(&status["strangers"]) + counted(&status["peers"]))
    };
    let before = refused()?;
    let target = pair.lab.state().host(&pair.active)?.v4;
    let line = format!(
        "for n in $(seq 50); do head -c $((n * 20)) /dev/urandom > /dev/udp/{target}/7373; done"
    );
    // From the client, a stranger; and from the peer's own address.
    let stranger = pair.lab.client_command(&["bash", "-c", &line])?;
    run(stranger, None, SHORT)?;
    pair.lab.run(&pair.shadow, &["bash", "-c", &line])?;
    pair.lab.wait(TAKEOVER, "100 datagrams to be counted", || {
        Ok(refused()? >= before + 100)
    })?;
    pair.unmoved(epoch)
}

/// Says something to the daemon's socket; gives what it answers before it closes.
fn say(pair: &Pair, words: &[u8]) -> Result<String> {
    let mut socket = UnixStream::connect(pair.lab.path_in(&pair.active, SOCKET)?)?;
    socket.set_read_timeout(Some(SHORT))?;
    // The daemon may close before it has read all of it.
    let _ = socket.write_all(words);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = socket.take(1 << 20).read_to_end(&mut answer);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn malformed_requests_get_an_error_and_change_nothing() -> Result<()> {
    let pair = Pair::take()?;
    let epoch = pair.epoch()?;
    let path = format!("/v1/groups/{GROUP}/handover");
    let post = |body: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    };
    let long = post(&format!("{{\"to\":\"{}\"}}", "x".repeat(1 << 17)));
    for (words, status) in [
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00".as_slice(), "400"),
        (b"GET / HTTP/9.9\r\n\r\n", "400"),
        (
            b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "404",
        ),
        (post("{").as_bytes(), "400"),
        (post("{\"to\":\"nobody\"}").as_bytes(), "404"),
        (post("{\"too\":\"b\"}").as_bytes(), "400"),
        (long.as_bytes(), "413"),
    ] {
        let answer = say(&pair, words)?;
        let line = answer.lines().next().unwrap_or_default();
        let asked = String::from_utf8_lossy(&words[..words.len().min(60)]).into_owned();
        // Garbage may be answered by closing; a request must be answered.
        let closed = answer.is_empty() && status == "400" && !words.starts_with(b"POST");
        ensure!(
            closed || line.contains(status),
            "{asked:?}: {answer:?}, expected {status}"
        );
    }
    pair.unmoved(epoch)
}

#[test]
fn who_may_not_change_anything_is_told_so() -> Result<()> {
    let pair = Pair::take()?;
    let epoch = pair.epoch()?;
    let handover = ["shadowctl", "failover", "handover", GROUP];
    let reader = [
        "setpriv",
        "--reuid=65534",
        "--regid=shadowd",
        "--clear-groups",
        "--",
    ];
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
    ];
    let code = |arguments: &[&str]| -> Result<Option<i32>> {
        Ok(pair.lab.exec(&pair.active, arguments)?.status.code())
    };
    ensure!(code(&[&reader[..], &["shadowctl", "status"]].concat())? == Some(0));
    ensure!(code(&[&reader[..], &handover].concat())? == Some(4));
    ensure!(code(&[&nobody[..], &["shadowctl", "status"]].concat())? == Some(4));
    ensure!(code(&[&nobody[..], &handover].concat())? == Some(4));
    pair.unmoved(epoch)
}

#[test]
fn flows_count_the_bytes_that_curl_counts() -> Result<()> {
    let pair = Pair::take()?;
    for url in [
        format!("http://{VIP_V4}/"),
        format!("http://{VIP_V4}/not-there"),
    ] {
        xtask::demo::compare(&pair.lab, &pair.active, &url)?;
    }
    Ok(())
}

/// The sum of every number of this name, anywhere in a document.
fn sum(document: &Value, name: &str) -> u64 {
    match document {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| match value.as_u64() {
                Some(number) if key == name => number,
                _ => sum(value, name),
            })
            .sum(),
        Value::Array(items) => items.iter().map(|item| sum(item, name)).sum(),
        _ => 0,
    }
}
