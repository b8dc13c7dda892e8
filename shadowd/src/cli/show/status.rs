//! `status` and `peers`.

use super::super::human::{bytes, clean, count, span, yes};
use super::super::table::{Cell, Paint, Table, Tone};
use super::super::time::local;
use super::peers::links;
use super::policy::policy;
use super::redundancy::redundancy;
use crate::facts::{
    BootTime, CaptureStatus, Cause, DrainStatus, GroupStatus, HistoryStatus, Losses, MemberStatus,
    Protection, Role, UnitMode, UnitStatus, VipGuard, VoterStatus, WitnessStatus,
};
use crate::serve::protocol::{SocketCounters, StatusAnswer};

/// Everything the daemon says of itself, what matters most first.
pub(in super::super) fn status(answer: &StatusAnswer, paint: Paint) -> String {
    let status = &answer.status;
    let mut text = format!(
        "{}  shadowd {}, up {}\nid {}\n",
        paint.apply(Tone::Heading, status.host.as_str()),
        clean(&status.version),
        span(status.now.since(status.started)),
        status.id,
    );
    for warning in &status.warnings {
        let line = format!("warning: {}", clean(warning));
        text.push_str(&paint.apply(Tone::Warning, &line));
        text.push('\n');
    }
    if status.groups.is_empty() && status.witnessed.is_empty() {
        text.push_str("\nno group: this host is observed only\n");
    }
    for group in &status.groups {
        text.push('\n');
        text.push_str(&one_group(group, status.now, paint));
        let mut drills = status.drills.iter();
        if let Some(report) = drills.find(|report| report.group == group.group) {
            text.push_str(&super::drill::line(report, paint));
        }
        let mut profiles = status.profiles.iter();
        if let Some(profile) = profiles.find(|profile| profile.group == group.group) {
            text.push_str(&super::profile::line(profile, paint));
        }
    }
    for witness in &status.witnessed {
        text.push('\n');
        text.push_str(&one_witnessed(witness, status.now, paint));
    }
    section(&mut text, &links(&status.peers, status.now, paint));
    section(&mut text, &capture(&status.capture, paint));
    section(&mut text, &socket(&answer.socket));
    text
}

pub(super) fn section(text: &mut String, part: &str) {
    if !part.is_empty() {
        text.push('\n');
        text.push_str(part);
    }
}

fn one_group(group: &GroupStatus, now: BootTime, paint: Paint) -> String {
    let active = match &group.active {
        Some(active) => format!("{active} is active"),
        None => paint.apply(Tone::Bad, "nobody is active"),
    };
    let mut text = format!(
        "{}  this host is {} for {}, {active}, epoch {}\n",
        paint.apply(Tone::Heading, &format!("group {}", group.group)),
        paint.apply(role_tone(group.role), &group.role.to_string()),
        span(now.since(group.since)),
        group.epoch.counter,
    );
    let protection = match group.protection {
        Protection::None => paint.apply(
            Tone::Warning,
            "  protection none: when the members lose each other, both become active until they \
             meet again",
        ),
        Protection::Lease => protected(group, now, paint),
    };
    text.push_str(&protection);
    text.push('\n');
    text.push_str(&policy(group, now, paint));
    text.push_str(&redundancy(group, now, paint));
    text.push_str(&member_table(group).render(paint));
    text.push_str(&vip_table(group, now).render(paint));
    text.push_str(&unit_table(&group.units).render(paint));
    text
}

fn one_witnessed(witness: &WitnessStatus, now: BootTime, paint: Paint) -> String {
    let title = paint.apply(Tone::Heading, &format!("group {}", witness.group));
    let vote = match (&witness.holder, witness.until) {
        (Some(holder), Some(until)) => format!(
            "votes for {holder}, for {} more, epoch {}",
            span(until.since(now)),
            witness.epoch.counter
        ),
        (_, _) => "votes for nobody now".to_owned(),
    };
    format!("{title}  this host is a witness; it {vote}\n")
}

/// What the voters say.
fn protected(group: &GroupStatus, now: BootTime, paint: Paint) -> String {
    let Some(lease) = &group.lease else {
        return paint.apply(Tone::Bad, "  protection lease, but no voters are known");
    };
    let holds = |voter: &&VoterStatus| voter.promised_until.is_some_and(|until| now < until);
    let promised: Vec<&str> = lease
        .voters
        .iter()
        .filter(holds)
        .map(|voter| voter.host.as_str())
        .collect();
    let votes = lease.voters.len() + 1;
    let text = match (group.role, group.deadline) {
        (Role::Active, _) if lease.lapsed => {
            let text = format!(
                "  protection lease: LAPSED, no majority of {votes} voters answers; the addresses \
                 are silent"
            );
            return paint.apply(Tone::Bad, &text);
        }
        (Role::Active, Some(deadline)) => format!(
            "  protection lease: held for {} more, by the word of {}",
            span(deadline.since(now)),
            if promised.is_empty() {
                "nobody new".to_owned()
            } else {
                promised.join(", ")
            }
        ),
        (_, _) => format!("  protection lease: a majority of {votes} voters decides"),
    };
    paint.apply(Tone::Plain, &text)
}

fn vip_table(group: &GroupStatus, now: BootTime) -> Table {
    let mut table = Table::new(2, ["VIP", "INTERFACE", "HELD", "GUARD", ">SILENCED"]);
    for vip in &group.vips {
        let guards = &mut group.guard.iter();
        let guard = guards.find(|guard| guard.vip.address == vip.vip.address);
        let (state, dropped) = guarded(guard, group.drain.as_ref(), now);
        table.row([
            vip.vip.to_string().into(),
            vip.interface.as_str().into(),
            Cell::new(
                yes(vip.held),
                if vip.held { Tone::Good } else { Tone::Plain },
            ),
            state,
            dropped,
        ]);
    }
    table
}

/// What the kernel's guard does with an address, and what it dropped.
fn guarded(guard: Option<&VipGuard>, drain: Option<&DrainStatus>, now: BootTime) -> (Cell, Cell) {
    let Some(guard) = guard else {
        return ("none".into(), "-".into());
    };
    let state = match guard.until {
        Some(until) if now < until => Cell::new("open", Tone::Good),
        Some(_) => Cell::new("lapsed", Tone::Bad),
        None => match drain {
            Some(DrainStatus {
                connections: Some(left),
                ..
            }) => format!("draining ({left} left)").into(),
            Some(_) => "draining".into(),
            None => "silent".into(),
        },
    };
    (state, count(guard.dropped_rx + guard.dropped_tx).into())
}

const fn role_tone(role: Role) -> Tone {
    match role {
        Role::Active => Tone::Good,
        Role::Joining | Role::Stopped => Tone::Warning,
        Role::Shadow | Role::Witness => Tone::Plain,
    }
}

fn member_table(group: &GroupStatus) -> Table {
    let mut table = Table::new(2, ["MEMBER", "ROLE", ">PRIORITY", "ELIGIBLE", "SUSPECTED"]);
    for member in &group.members {
        let role = match member.role {
            Some(Role::Shadow) if member.spare => "spare".into(),
            Some(role) => Cell::new(role.to_string(), role_tone(role)),
            None => Cell::new("not heard", Tone::Warning),
        };
        let bad = |is_bad: bool| if is_bad { Tone::Bad } else { Tone::Plain };
        table.row([
            member.host.as_str().into(),
            role,
            member.priority.to_string().into(),
            Cell::new(may_own(member), bad(!member.eligible)),
            Cell::new(yes(member.suspected), bad(member.suspected)),
        ]);
    }
    table
}

/// Whether a member could own the group, and if not, why.
fn may_own(member: &MemberStatus) -> String {
    match member.reason {
        Some(Cause::Spare) if !member.eligible => "when enlisted".to_owned(),
        Some(reason) if !member.eligible => format!("no: {reason}"),
        _ => yes(member.eligible).to_owned(),
    }
}

fn unit_table(units: &[UnitStatus]) -> Table {
    let mut table = Table::new(2, ["UNIT", "MODE", "STATE", ">MAIN PID"]);
    for unit in units {
        let tone = match unit.state.as_str() {
            "active" => Tone::Good,
            "failed" => Tone::Bad,
            _ => Tone::Plain,
        };
        table.row([
            unit.unit.as_str().into(),
            match unit.mode {
                UnitMode::Warm => "warm",
                UnitMode::Cold => "cold",
            }
            .into(),
            Cell::new(&unit.state, tone),
            unit.main_pid
                .map_or_else(|| "-".to_owned(), |pid| pid.to_string())
                .into(),
        ]);
    }
    table
}

fn capture(capture: &CaptureStatus, paint: Paint) -> String {
    let mut table = Table::new(0, ["PROBE", "STATE", "HOOK", "FEEDS"]);
    for probe in &capture.probes {
        let state = match (&probe.degraded, &probe.hook) {
            (None, Some(_)) => Cell::new("on", Tone::Good),
            (Some(_), Some(_)) => Cell::new("reduced", Tone::Warning),
            (_, None) => Cell::new("off", Tone::Warning),
        };
        table.row([
            probe.name.as_str().into(),
            state,
            probe.hook.as_deref().unwrap_or("-").into(),
            probe.feeds.as_str().into(),
        ]);
    }
    let mut text = table.render(paint);
    for probe in &capture.probes {
        if let Some(why) = &probe.degraded {
            let line = format!("  {}: {}", clean(&probe.name), clean(why));
            text.push_str(&paint.apply(Tone::Warning, &line));
            text.push('\n');
        }
    }
    text.push_str(&losses(capture.losses, paint));
    text.push_str(&forgotten(capture, paint));
    text.push_str(&history(&capture.history, paint));
    text
}

/// What the daemon's tables had no room for; nothing when all had.
fn forgotten(capture: &CaptureStatus, paint: Paint) -> String {
    let full = capture.tables.iter().filter(|table| table.evicted > 0);
    let full: Vec<String> = full
        .map(|table| {
            let (evicted, limit) = (count(table.evicted), count(table.limit));
            format!("{} {evicted} (room for {limit})", clean(&table.name))
        })
        .collect();
    if full.is_empty() {
        return String::new();
    }
    let line = format!("forgotten for want of room: {}", full.join(", "));
    format!("{}\n", paint.apply(Tone::Warning, &line))
}

/// What is recorded, in one line; nothing when nothing ever was.
fn history(history: &HistoryStatus, paint: Paint) -> String {
    if *history == HistoryStatus::default() {
        return String::new();
    }
    let corrupt = format!("{} corrupt", count(history.corrupt));
    let tone = if history.corrupt > 0 {
        Tone::Warning
    } else {
        Tone::Plain
    };
    let oldest = history.oldest_ms.map_or_else(|| "none".to_owned(), local);
    format!(
        "history: {} records, {}, {} not recorded, {} of {}, oldest {oldest}\n",
        count(history.records),
        paint.apply(tone, &corrupt),
        count(history.dropped),
        bytes(history.bytes),
        bytes(history.max_bytes),
    )
}

/// What capture saw and lost, in one line.
pub(super) fn losses(losses: Losses, paint: Paint) -> String {
    let dropped = format!("{} dropped", count(losses.dropped));
    let tone = if losses.dropped > 0 {
        Tone::Warning
    } else {
        Tone::Plain
    };
    format!(
        "records since start: {} seen, {}, {} unattributed\n",
        count(losses.seen),
        paint.apply(tone, &dropped),
        count(losses.unattributed),
    )
}

/// Shown only when something was turned away.
fn socket(counters: &SocketCounters) -> String {
    let turned_away =
        counters.rejected + counters.malformed + counters.forbidden + counters.timed_out;
    if turned_away == 0 {
        return String::new();
    }
    format!(
        "socket: {} requests, {} malformed, {} forbidden, {} timed out, {} connections rejected\n",
        count(counters.requests),
        count(counters.malformed),
        count(counters.forbidden),
        count(counters.timed_out),
        count(counters.rejected),
    )
}
