//! Live drills on real hosts: the group goes to the shadow and comes back, whatever restarts in
//! between, and stays where it is when it cannot.

use super::configured::Configured;
use super::drill::CHECKS;
use super::*;
use xtask::probe::{Meter, Window};

/// A command that is for live drills alone.
const LIVE_CHECK: &str = r#"
[[group.check]]
name = "command"
command = ["/bin/sh", "-c", "test \"$SHADOWD_DRILL\" = live && test -n \"$SHADOWD_ACTIVE\""]
live = true
"#;
/// A client's first word can be lost on the way; its kernel says it again after a second.
const WINDOW: Window = Window {
    rate: 50,
    held: 4,
    timeout: Duration::from_secs(3),
};

fn ctl(pair: &Pair, host: &str, line: &[&str]) -> Result<String> {
    let line = [&["shadowctl", "failover"], line].concat();
    pair.lab.run(host, &line)
}

/// Begins one and does not wait for its end.
fn begin(pair: &Pair, span: &str) -> Result<()> {
    let line = format!("shadowctl failover drill {GROUP} --live --for {span} >/dev/null 2>&1 &");
    pair.lab.run(&pair.active, &["sh", "-c", &line])?;
    pair.lab.wait(TAKEOVER, "the shadow to own the group", || {
        Ok(pair.lab.view(&pair.shadow)?.role == "active")
    })
}

fn report(pair: &Pair) -> Result<Value> {
    let mut all = pair.lab.ask(&pair.active, &["failover", "drills"])?;
    Ok(all["drills"][0].take())
}

/// Waits until a live drill has ended like this; its report.
fn ended(pair: &Pair, state: &str) -> Result<Value> {
    let mut last = Value::Null;
    let waited = pair.lab.wait(LONG, "the drill to end", || {
        last = report(pair).unwrap_or_default();
        Ok(!last.is_null() && last["state"] != "running")
    });
    waited.with_context(|| format!("{last}"))?;
    ensure!(last["state"] == state, "{last}");
    Ok(last)
}

fn step(report: &Value, what: &str) -> Option<bool> {
    let steps = report["steps"].as_array()?;
    let step = steps.iter().find(|step| step["what"] == what)?;
    step["ok"].as_bool()
}

#[test]
fn a_live_drill_goes_and_comes_back_and_no_connection_breaks() -> Result<()> {
    let configured = Configured::patient(|text| text.to_owned() + CHECKS + LIVE_CHECK)?;
    let pair = &configured.pair;
    let epoch = pair.epoch()?;
    let mut meter = Meter::start(&pair.lab, WINDOW)?;
    meter.measure_for(Duration::from_millis(300))?;
    // The held connections keep this host's addresses: they end with the meter.
    begin(pair, "1h")?;
    meter.measure_for(Duration::from_secs(1))?;
    let measured = meter.finish()?;
    for target in &measured.targets {
        println!("{target}; {} broken", target.held.broken);
        ensure!(target.failed == 0 && target.held.broken == 0, "{target}");
    }
    pair.lab.wait(LONG, "the checks to be made", || {
        let report = report(pair)?;
        Ok(report["live"]["rounds"].as_u64() > Some(0))
    })?;
    ctl(pair, &pair.active, &["drill", GROUP, "--end"])?;
    let report = ended(pair, "passed")?;
    println!("{report}");
    for what in [
        "handover",
        "check http",
        "check six",
        "check command",
        "return",
    ] {
        ensure!(step(&report, what) == Some(true), "{what}: {report}");
    }
    ensure!(report["live"]["to"] == pair.shadow.as_str(), "{report}");
    ensure!(
        report["live"]["gap_ns"].as_u64() < Some(1_000_000_000),
        "{report}"
    );
    let now = pair.lab.converge(LONG)?;
    ensure!(now == pair.active, "{now} owns the group");
    ensure!(pair.epoch()? == epoch + 2, "it went and came once");
    Ok(())
}

#[test]
fn restarts_on_both_sides_forget_no_return_and_failback_does_not_hurry_it() -> Result<()> {
    let none = "flap = { suppress = 0 }";
    let keys = format!("{none}\nfailback = \"1s\"");
    let mut configured =
        Configured::patient(|text| text.replace(none, &keys) + CHECKS + LIVE_CHECK)?;
    let Pair {
        lab,
        active,
        shadow,
        ..
    } = &mut configured.pair;
    lab.wait(LONG, "the better one to own it", || {
        Ok(lab.well().is_ok_and(|owner| owner == "a"))
    })?;
    if active != "a" {
        // It was elsewhere before, and has failed back.
        std::mem::swap(active, shadow);
    }
    let pair = &configured.pair;
    begin(pair, "15s")?;
    let lent = pair.lab.view(&pair.shadow)?.epoch;
    for host in [&pair.active, &pair.shadow] {
        pair.lab.run(host, &["systemctl", "restart", DAEMON])?;
        pair.lab.wait(LONG, "all to be well again", || {
            let view = pair.lab.view(&pair.shadow);
            Ok(view.is_ok_and(|view| view.all_eligible))
        })?;
        let view = pair.lab.view(&pair.shadow)?;
        ensure!(view.role == "active" && view.epoch == lent, "{view:?}");
    }
    let status = pair.lab.ask(&pair.shadow, &["status"])?;
    let borrowed = &status["groups"][0]["policy"]["borrowed"];
    ensure!(borrowed["from"] == "a", "{status}");
    let report = ended(pair, "passed")?;
    let span = |key: &str| report["live"][key].as_u64().context("a time");
    let lasted = span("returned_ms")?.saturating_sub(span("moved_ms")?);
    ensure!(lasted >= 14_000, "back after {lasted} ms: {report}");
    let now = pair.lab.converge(LONG)?;
    ensure!(now == "a", "{now} owns the group");
    Ok(())
}

#[test]
fn a_new_owner_that_crashes_ends_the_drill_by_a_failover() -> Result<()> {
    let configured = Configured::patient(str::to_owned)?;
    let pair = &configured.pair;
    begin(pair, "1h")?;
    pair.lab.fault(&pair.shadow, &Fault::Crash)?;
    pair.lab.wait(TAKEOVER, "the lender to take over", || {
        Ok(pair.lab.view(&pair.active)?.role == "active")
    })?;
    let report = ended(pair, "failed")?;
    let why = report["why"].as_str().unwrap_or_default();
    ensure!(
        why.contains("lost the group: this host took it over"),
        "{report}"
    );
    pair.lab.heal(&pair.shadow)?;
    pair.lab.converge(LONG).map(drop)
}

#[test]
fn a_lender_that_cannot_take_it_back_says_so_and_the_group_stays() -> Result<()> {
    let configured =
        Configured::patient(|text| text.to_owned() + "\n[group.drill]\nreturn_within = \"10s\"\n")?;
    let pair = &configured.pair;
    begin(pair, "5s")?;
    pair.lab
        .fault(&pair.active, &Fault::UnitStop(WARM.into()))?;
    let report = ended(pair, "failed")?;
    let why = report["why"].as_str().unwrap_or_default();
    ensure!(why.contains("it stays on"), "{report}");
    ensure!(step(&report, "return") == Some(false), "{report}");
    pair.wait_return()
}

#[test]
fn a_frozen_group_is_not_lent_and_the_new_owner_ends_a_drill_too() -> Result<()> {
    let configured = Configured::patient(str::to_owned)?;
    let pair = &configured.pair;
    let line = [
        "shadowctl",
        "failover",
        "drill",
        GROUP,
        "--live",
        "--for",
        "1h",
    ];
    ctl(pair, &pair.active, &["freeze", GROUP, "--for", "1h"])?;
    let refused = pair.lab.exec(&pair.active, &line)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        !refused.status.success() && said.contains("frozen"),
        "{said}"
    );
    ctl(pair, &pair.active, &["unfreeze", GROUP])?;
    let refused = pair.lab.exec(&pair.shadow, &line)?;
    ensure!(!refused.status.success(), "a shadow lends nothing");
    begin(pair, "1h")?;
    pair.lab.wait(TAKEOVER, "the new owner to know of it", || {
        let status = pair.lab.ask(&pair.shadow, &["status"])?;
        Ok(!status["groups"][0]["policy"]["borrowed"].is_null())
    })?;
    let said = ctl(pair, &pair.shadow, &["drill", GROUP, "--end"])?;
    ensure!(said.contains("handed back to"), "{said}");
    ended(pair, "passed")?;
    let now = pair.lab.converge(LONG)?;
    ensure!(now == pair.active, "{now} owns the group");
    Ok(())
}
