//! The daemon is restarted and reloaded: the group stays where it is, and no client notices.
//!
//! `SHADOWD_RESTARTS=100` asks for more rounds than a test of every day takes.

use std::time::Instant;

use super::*;
use xtask::probe::{Meter, Window};

/// Restarts of the active's daemon, half of them reloads.
const RESTARTS: usize = 10;
/// Asked of each virtual IP: a machine that is shared with others takes no more for minutes.
const WINDOW: Window = Window {
    rate: 50,
    held: 4,
    timeout: Duration::from_secs(1),
};

fn restarts() -> usize {
    let asked = std::env::var("SHADOWD_RESTARTS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(RESTARTS)
}

fn main_pid(pair: &Pair, host: &str) -> Result<String> {
    let line = ["systemctl", "show", "-P", "MainPID", DAEMON];
    Ok(pair.lab.run(host, &line)?.trim().to_owned())
}

/// Restarts a host's daemon; gives how long until all members are well with another process there.
fn again(pair: &Pair, host: &str, verb: &str) -> Result<Duration> {
    let (before, began) = (main_pid(pair, host)?, Instant::now());
    pair.lab.run(host, &["systemctl", verb, DAEMON])?;
    pair.lab.wait(LONG, "the daemon to be back", || {
        let known = pair.lab.unit_state(host, DAEMON)? == "active";
        let back = known && main_pid(pair, host)? != before;
        Ok(back
            && pair
                .lab
                .view(&pair.active)
                .is_ok_and(|view| view.all_eligible))
    })?;
    Ok(began.elapsed())
}

#[test]
fn restarts_and_reloads_of_the_active_move_nothing_and_lose_nothing() -> Result<()> {
    let pair = Pair::take()?;
    let epoch = pair.epoch()?;
    let seen = pair.lab.newest_event(&pair.active)?;
    let count = restarts();
    let mut meter = Meter::start(&pair.lab, WINDOW)?;
    let mut spans = Vec::new();
    for number in 0..count {
        let verb = if number % 2 == 0 { "reload" } else { "restart" };
        spans.push(again(&pair, &pair.active, verb)?);
        meter.measure_for(Duration::from_millis(200))?;
        let view = pair.lab.view(&pair.active)?;
        ensure!(
            view.role == "active" && view.epoch == epoch,
            "{verb} {number} moved the group: {view:?}"
        );
    }
    meter.measure_for(Duration::from_secs(1))?;
    let report = meter.finish()?;
    spans.sort_unstable();
    let (median, longest) = (spans[spans.len() / 2], spans[spans.len() - 1]);
    println!("{count} restarts: well again after {median:?} in the middle, {longest:?} at most");
    for target in &report.targets {
        let held = &target.held;
        println!(
            "{target}; {} late; {} held, {} answers, {} broken",
            target.late, held.connections, held.answers, held.broken
        );
        ensure!(
            target.failed == 0 && held.broken == 0,
            "a client noticed: {target}"
        );
    }
    let events = pair.lab.events(&pair.active, seen)?;
    let moved = |event: &&Value| event["kind"] == "role_changed" || event["kind"] == "claimed";
    ensure!(events.iter().find(moved).is_none(), "{events:?}");
    let resumed = events.iter().filter(|event| event["kind"] == "resumed");
    let (resumed, complete) = (resumed.count(), events.len() < 1_000);
    ensure!(
        resumed == count || !complete,
        "{resumed} of {count} resumed"
    );
    pair.unmoved(epoch)
}

#[test]
fn a_restarted_shadow_or_witness_moves_nothing() -> Result<()> {
    let pair = Pair::take()?;
    let epoch = pair.epoch()?;
    let hosts = pair.lab.state().hosts.iter();
    let witness = hosts.clone().find(|host| host.witness);
    let witness = witness.context("the lab has no witness")?.name.clone();
    for host in [&pair.shadow, &witness, &pair.shadow] {
        again(&pair, host, "restart")?;
    }
    pair.unmoved(epoch)
}

#[test]
fn a_bad_configuration_is_refused_by_a_reload_and_the_daemon_goes_on() -> Result<()> {
    let pair = Pair::take()?;
    let epoch = pair.epoch()?;
    let good = pair.lab.run(&pair.active, &["cat", CONFIG])?;
    let before = main_pid(&pair, &pair.active)?;
    pair.lab
        .write_file(&pair.active, CONFIG, &good.replace("[host]", "[hots]"))?;
    let refused = pair.lab.run(&pair.active, &["systemctl", "reload", DAEMON]);
    pair.lab.write_file(&pair.active, CONFIG, &good)?;
    ensure!(refused.is_err(), "a bad configuration was taken");
    ensure!(main_pid(&pair, &pair.active)? == before, "restarted");
    let journal = ["journalctl", "--no-pager", "-n", "30", "-u", DAEMON];
    let said = pair.lab.run(&pair.active, &journal)?;
    ensure!(said.contains("hots"), "the reason is not told: {said}");
    pair.unmoved(epoch)
}

#[test]
fn a_daemon_that_does_not_come_back_is_replaced() -> Result<()> {
    let pair = Pair::take()?;
    let (folder, file) = (
        "/etc/systemd/system/shadowd.service.d",
        "/etc/systemd/system/shadowd.service.d/late.conf",
    );
    let late = "[Service]\nExecStartPre=/bin/sleep 15\n";
    pair.lab.run(&pair.active, &["mkdir", "-p", folder])?;
    pair.lab.write_file(&pair.active, file, late)?;
    let reread = ["systemctl", "daemon-reload"];
    pair.lab.run(&pair.active, &reread)?;
    let restart = ["systemctl", "--no-block", "restart", DAEMON];
    pair.lab.run(&pair.active, &restart)?;
    // Its addresses stay, silent: the kernel keeps them so.
    let taken = pair.lab.wait(TAKEOVER, "the shadow to take over", || {
        Ok(pair.lab.view(&pair.shadow)?.role == "active" && pair.holds_vips(&pair.shadow)?)
    });
    pair.lab.run(&pair.active, &["rm", file])?;
    pair.lab.run(&pair.active, &reread)?;
    taken?;
    pair.wait_return()
}
