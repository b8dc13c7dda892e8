//! What is noticed of an active that is not what it seems, and why the group moved.

use std::process::{Child, Stdio};

use xtask::lab::Host;

use super::configured::Configured;
use super::*;

/// Runs a line of shell where the client is, until it is dropped.
struct Client(Child);

impl Client {
    fn start(pair: &Pair, line: &str) -> Result<Self> {
        let mut command = pair.lab.client_command(&["sh", "-c", line])?;
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn claim(pair: &Pair, since: u64) -> Result<Value> {
    let events = pair.lab.events(&pair.shadow, since)?;
    let mut claims = events
        .into_iter()
        .filter(|event| event["kind"] == "claimed");
    claims.next().context("no claim was recorded")
}

fn ms(event: &Value, at: u64) -> f64 {
    event["boot_ns"]
        .as_u64()
        .unwrap_or_default()
        .saturating_sub(at) as f64
        / 1e6
}

const DROP_IN: &str = "/etc/systemd/system/shadowd.service.d/late.conf";

#[test]
fn a_killed_daemon_is_told_by_its_kernel() -> Result<()> {
    // The bound of silence is so long that a busy machine does not reach it, and five times that
    // while the kernel answers.
    let slow = Configured::everywhere(|text, _| {
        let slow = text.replace("heartbeat = \"10ms\"", "heartbeat = \"100ms\"");
        slow.replace("suspect_after = \"27ms\"", "suspect_after = \"1s\"")
    })?;
    let pair = &slow.pair;
    // It comes back too late to be heard again before it is replaced.
    pair.lab
        .write_file(&pair.active, DROP_IN, "[Service]\nRestartSec=20s\n")?;
    pair.lab
        .run(&pair.active, &["systemctl", "daemon-reload"])?;
    let seen = pair.lab.newest_event(&pair.shadow)?;
    let at = pair.lab.fault(&pair.active, &Fault::DaemonKill)?;
    let taken = pair.wait_takeover();
    pair.lab.run(&pair.active, &["rm", DROP_IN])?;
    pair.lab
        .run(&pair.active, &["systemctl", "daemon-reload"])?;
    taken?;
    let events = pair.lab.events(&pair.shadow, seen)?;
    let suspected = |event: &&Value| {
        let detail = event["detail"].as_str().unwrap_or_default();
        event["kind"] == "peer_suspected" && detail.starts_with(pair.active.as_str())
    };
    let suspected = events
        .iter()
        .find(suspected)
        .context("nobody was suspected")?;
    let claim = claim(pair, seen)?;
    println!(
        "suspected {:.1} ms and claimed {:.1} ms after the kill",
        ms(suspected, at),
        ms(&claim, at)
    );
    ensure!(suspected["cause"] == "daemon_refused", "{suspected}");
    ensure!(claim["cause"] == "daemon_refused", "{claim}");
    ensure!(ms(suspected, at) < 1_000.0, "{suspected}");
    pair.wait_return()
}

fn unanswered(text: &str, _: &[Host]) -> String {
    text.replace("interface =", "unanswered_after = \"2s\"\ninterface =")
}

fn requests(timeout: &str) -> String {
    format!("while :; do curl -s -o /dev/null -m {timeout} http://{VIP_V4}/; sleep 0.1; done")
}

#[test]
fn a_service_that_answers_nobody_moves_the_group() -> Result<()> {
    let watched = Configured::everywhere(unanswered)?;
    let pair = &watched.pair;
    let _client = Client::start(pair, &requests("5"))?;
    // Its clients were seen before it stalls.
    pair.lab.wait(LONG, "requests to be seen", || {
        let flows = pair.lab.ask(&pair.active, &["flows"])?;
        Ok(flows.to_string().contains(WARM))
    })?;
    let seen = pair.lab.newest_event(&pair.shadow)?;
    let at = pair
        .lab
        .fault(&pair.active, &Fault::UnitStall(WARM.into()))?;
    pair.wait_takeover()?;
    let claim = claim(pair, seen)?;
    println!("claimed {:.1} s after the stall", ms(&claim, at) / 1e3);
    ensure!(claim["cause"] == "unanswered", "{claim}");
    // `unanswered_after`, an interval of capture before it and one after, and a busy machine.
    ensure!(ms(&claim, at) < 10_000.0, "{claim}");
    pair.wait_return()
}

#[test]
fn a_service_that_answers_slowly_stays() -> Result<()> {
    let watched = Configured::everywhere(unanswered)?;
    let pair = &watched.pair;
    let epoch = pair.epoch()?;
    let slow = "head -c 20000 /dev/zero > /var/www/html/slow && \
                sed -i 's/^\\(\\s*\\)listen 80 default_server;/&\\n\\1limit_rate 500;/' \
                /etc/nginx/sites-available/default && systemctl reload nginx";
    pair.lab.run(&pair.active, &["sh", "-c", slow])?;
    let line = format!("while :; do curl -s -o /dev/null -m 30 http://{VIP_V4}/slow; done");
    let _client = Client::start(pair, &line)?;
    let sent = || -> Result<u64> { Ok(sum(&pair.lab.ask(&pair.shadow, &["peers"])?, "sent")) };
    let before = sent()?;
    // Five times `unanswered_after`: 1,000 heartbeats of 10 ms, to two others.
    let stayed = pair.lab.wait(LONG, "1,000 heartbeats of the shadow", || {
        let view = pair.lab.view(&pair.active)?;
        ensure!(
            view.role == "active" && view.epoch == epoch,
            "it moved: {view:?}"
        );
        Ok(sent()? >= before + 1_000)
    });
    let fast = "sed -i '/limit_rate 500;/d' /etc/nginx/sites-available/default && \
                rm /var/www/html/slow && systemctl reload nginx";
    pair.lab.run(&pair.active, &["sh", "-c", fast])?;
    stayed?;
    let events = pair.lab.events(&pair.active, 0)?;
    let told = |event: &&Value| event["kind"] == "serving" && event["epoch"] == epoch;
    ensure!(events.iter().find(told).is_none(), "it was told of");
    pair.unmoved(epoch)
}
