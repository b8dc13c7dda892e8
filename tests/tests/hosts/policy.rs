//! What bounds automatic failover, on real hosts: maintenance, freeze, failback, the flap budget.

use super::configured::Configured;
use super::*;

fn ctl(pair: &Pair, host: &str, line: &[&str]) -> Result<String> {
    let line = [&["shadowctl", "failover"], line].concat();
    pair.lab.run(host, &line)
}

/// The group as `status` of a host tells it.
fn group(pair: &Pair, host: &str) -> Result<Value> {
    Ok(pair.lab.ask(host, &["status"])?["groups"][0].take())
}

/// The lab's members have a budget without an end; this takes its place.
fn with_policy(keys: &str) -> Result<Configured> {
    let none = "flap = { suppress = 0 }";
    let found = Configured::changed(|text| text.replace(none, keys))?;
    let text = found.pair.lab.run(&found.pair.active, &["cat", CONFIG])?;
    ensure!(text.contains(keys), "the lab has another configuration");
    Ok(found)
}

/// When an event of this kind and cause was recorded on a host, on the clock that all share.
fn at(pair: &Pair, host: &str, since: u64, holds: impl Fn(&Value) -> bool) -> Result<Duration> {
    let events = pair.lab.events(host, since)?;
    let found = events.iter().rfind(|event| holds(event));
    let found = found.with_context(|| format!("no such event on {host}: {events:?}"))?;
    let at = found["boot_ns"].as_u64().context("a time")?;
    Ok(Duration::from_nanos(at))
}

#[test]
fn maintenance_moves_the_group_away_and_keeps_it_away() -> Result<()> {
    let pair = Pair::take()?;
    let on = ["maintenance", GROUP, "on", "--reason", "new disk"];
    let said = ctl(&pair, &pair.active, &on)?;
    let wanted = format!("in maintenance, {} owns it now", pair.shadow);
    ensure!(said.contains(&wanted), "{said}");
    pair.wait_takeover()?;
    // Nobody owns it now, and the one that could does not.
    pair.lab.fault(&pair.shadow, &Fault::DaemonKill)?;
    let sent = || -> Result<u64> { Ok(sum(&pair.lab.ask(&pair.active, &["peers"])?, "sent")) };
    pair.lab.wait(TAKEOVER, "the group to be vacant", || {
        Ok(group(&pair, &pair.active)?["active"].is_null())
    })?;
    let before = sent()?;
    pair.lab.wait(TAKEOVER, "300 heartbeats more", || {
        let seen = group(&pair, &pair.active)?;
        ensure!(seen["role"] == "shadow", "{seen}");
        ensure!(seen["policy"]["reason"] == "maintenance", "{seen}");
        Ok(sent()? >= before + 300)
    })?;
    pair.lab.heal(&pair.shadow)?;
    pair.lab.wait(LONG, "the other to own it again", || {
        Ok(pair.lab.view(&pair.shadow)?.role == "active")
    })?;
    let said = ctl(&pair, &pair.active, &["maintenance", GROUP, "off"])?;
    ensure!(said.contains("not in maintenance"), "{said}");
    pair.wait_return()
}

#[test]
fn a_frozen_group_stays_with_a_dead_unit_until_the_freeze_ends_by_itself() -> Result<()> {
    let pair = Pair::take()?;
    let epoch = pair.epoch()?;
    ctl(&pair, &pair.shadow, &["freeze", GROUP, "--for", "6s"])?;
    pair.lab.wait(TAKEOVER, "the active to know of it", || {
        Ok(!group(&pair, &pair.active)?["policy"]["frozen"].is_null())
    })?;
    pair.lab
        .fault(&pair.active, &Fault::UnitStop(WARM.into()))?;
    let mut dead_and_frozen = 0;
    pair.lab.wait(TAKEOVER, "the freeze to end", || {
        let seen = group(&pair, &pair.active)?;
        if seen["policy"]["frozen"].is_null() {
            return Ok(true);
        }
        let here = seen["role"] == "active" && seen["epoch"]["counter"] == epoch;
        ensure!(here, "it moved: {seen}");
        dead_and_frozen += u32::from(seen["policy"]["reason"] == "unit_died");
        Ok(false)
    })?;
    ensure!(dead_and_frozen > 0, "the unit was not seen dead in time");
    pair.wait_takeover()?;
    pair.wait_return()
}

#[test]
fn a_group_fails_back_to_the_better_member_once_that_was_ready_for_long_enough() -> Result<()> {
    const STABLE: Duration = Duration::from_secs(3);
    let configured = with_policy("flap = { suppress = 0 }\nfailback = \"3s\"")?;
    let pair = &configured.pair;
    // The first host of a lab has the best priority.
    let (best, other) = ("a", "b");
    pair.lab.wait(LONG, "the better one to own it", || {
        Ok(pair.lab.well().is_ok_and(|owner| owner == best))
    })?;
    configured.wait_for_short_promises()?;
    let since = [best, other].map(|host| pair.lab.newest_event(host));
    let [on_best, on_other] = since;
    pair.lab.fault(best, &Fault::UnitStop(WARM.into()))?;
    pair.lab.wait(TAKEOVER, "the other to take over", || {
        Ok(pair.lab.view(other)?.role == "active")
    })?;
    pair.lab.heal(best)?;
    pair.lab.wait(LONG, "the group to go back", || {
        Ok(pair.lab.well().is_ok_and(|owner| owner == best))
    })?;
    let up = at(pair, best, on_best?, |event| {
        event["kind"] == "unit_up" && event["detail"] == WARM
    })?;
    let offered = at(pair, other, on_other?, |event| {
        event["kind"] == "handover" && event["cause"] == "failback"
    })?;
    let waited = offered.saturating_sub(up);
    println!("offered {waited:?} after the unit was up");
    ensure!(waited >= STABLE, "too early: {waited:?}");
    Ok(())
}

#[test]
fn a_member_that_the_group_leaves_too_often_is_held_back() -> Result<()> {
    let keys = "flap = { half_life = \"10m\", suppress = 1500, reuse = 1000 }";
    let configured = with_policy(keys)?;
    let pair = &configured.pair;
    let (flapping, other) = (&pair.active, &pair.shadow);
    // What is left of the penalties of earlier tests counts too: two deaths at most.
    let mut deaths = 0;
    let mut seen = Value::Null;
    loop {
        deaths += 1;
        pair.lab.fault(flapping, &Fault::UnitStop(WARM.into()))?;
        pair.wait_takeover()?;
        pair.lab.heal(flapping)?;
        pair.lab.wait(LONG, "the unit to be known again", || {
            seen = group(pair, flapping)?;
            let reason = &seen["policy"]["reason"];
            Ok(reason.is_null() || reason == "flapping")
        })?;
        if seen["policy"]["reason"] == "flapping" {
            break;
        }
        ensure!(deaths < 2, "not held back: {seen}");
        pair.lab.converge(LONG)?;
        ctl(pair, other, &["handover", GROUP, "--to", flapping])?;
        pair.lab.converge(LONG)?;
    }
    let policy = &seen["policy"];
    ensure!(policy["flap_penalty"].as_f64() > Some(1500.0), "{seen}");
    ensure!(!policy["held_until"].is_null(), "{seen}");
    let said = pair.lab.run(flapping, &["shadowctl", "status"])?;
    ensure!(said.contains("holds this host back for"), "{said}");
    let refused = ["shadowctl", "failover", "handover", GROUP];
    pair.lab.wait(LONG, "the owner to know of it", || {
        let members = group(pair, other)?["members"].take();
        let held = |member: &Value| member["reason"] == "flapping";
        Ok(members.as_array().is_some_and(|all| all.iter().any(held)))
    })?;
    let refused = pair.lab.exec(other, &refused)?;
    ensure!(!refused.status.success(), "it was handed to who is held");
    // An operator may overrule it.
    ctl(pair, other, &["handover", GROUP, "--to", flapping])?;
    Ok(())
}
