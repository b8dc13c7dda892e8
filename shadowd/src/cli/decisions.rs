//! `failover explain`, `replay` and `simulate`: why it happened, whether it would again, what would.
//!
//! The daemon hands out bytes; the real core runs in this process, so that nothing of it disturbs
//! the one that keeps the group.

use clap::Args;
use data_encoding::BASE64;
use serde::Serialize;

use super::client::{CallError, Client};
use super::human::{clean, wall};
use super::{Failure, Screen};
use crate::decide::cluster::{
    Explanation, Line, Prospect, Replayed, Window, explain as tell, replay as run_again,
    simulate as look_ahead,
};
use crate::facts::{BootTime, Decision, Event, EventKind, Name};
use crate::serve::protocol::{
    self, CORE, Code, CoreNow, DECISIONS, Decisions, EVENTS, Events, MAX_EVENTS, RecordedDecision,
    Refusal, StatusAnswer,
};

/// Events of the same boot as the decision: the wall clock may be set a little meanwhile.
const SAME_BOOT_MS: u64 = 60_000;

/// Which decision.
#[derive(Clone, Debug, Args)]
pub struct Wanted {
    /// The group; may be left out where this host is in one only
    pub group: Option<Name>,
    /// The decision of this epoch [default: the newest]
    #[arg(long, value_name = "N")]
    pub epoch: Option<u64>,
}

/// Which decisions.
#[derive(Clone, Debug, Args)]
pub struct ReplayArguments {
    /// Which one.
    #[command(flatten)]
    pub wanted: Wanted,
    /// Every decision that is kept
    #[arg(long, conflicts_with = "epoch")]
    pub all: bool,
}

/// What `explain` says in JSON.
#[derive(Serialize)]
struct Explained<'a> {
    decision: &'a Decision,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

/// What `replay` says in JSON, of each decision.
#[derive(Serialize)]
struct Once {
    decision: Decision,
    same: bool,
    #[serde(flatten)]
    replayed: Replayed,
}

/// Tells a decision in sentences.
pub(super) async fn explain(
    client: &Client,
    screen: &mut Screen<'_>,
    wanted: &Wanted,
) -> Result<(), Failure> {
    let group = group_of(client, wanted.group.as_ref()).await?;
    let all = list(client, &group).await?;
    let decision = chosen(all, &group, wanted.epoch)?;
    let window = window(client, &group, &decision).await?;
    let mut explanation = tell(&window).map_err(Failure::Window)?;
    let events: Events = client.get(&format!("{EVENTS}?limit={MAX_EVENTS}")).await?;
    add_events(&mut explanation, &decision, &group, events.events);
    let text = sentences(&explanation, &decision);
    let explained = Explained {
        decision: &decision,
        explanation: &explanation,
    };
    screen.show(&explained, text)
}

/// Runs decisions again.
pub(super) async fn replay(
    client: &Client,
    screen: &mut Screen<'_>,
    wanted: &ReplayArguments,
) -> Result<(), Failure> {
    let group = group_of(client, wanted.wanted.group.as_ref()).await?;
    let mut decisions = list(client, &group).await?;
    if !wanted.all {
        decisions = vec![chosen(decisions, &group, wanted.wanted.epoch)?];
    }
    let (mut runs, mut text) = (Vec::new(), String::new());
    for decision in decisions {
        let window = match window(client, &group, &decision).await {
            // It went while the others were looked at: newer ones came.
            Err(Failure::Call(CallError::Refused(refusal)))
                if wanted.all && refusal.code == Code::NothingRecorded =>
            {
                continue;
            }
            window => window?,
        };
        let replayed = run_again(&window).map_err(Failure::Window)?;
        text.push_str(&outcome(&decision, &replayed));
        runs.push(Once {
            same: replayed.difference.is_none(),
            decision,
            replayed,
        });
    }
    let differ = runs.iter().filter(|run| !run.same).count();
    screen.show(&runs, text)?;
    match differ {
        0 => Ok(()),
        count => Err(Failure::Differs { count }),
    }
}

/// Says what would happen if a host died now.
pub(super) async fn simulate(
    client: &Client,
    screen: &mut Screen<'_>,
    host: &Name,
    group: Option<&Name>,
) -> Result<(), Failure> {
    let group = group_of(client, group).await?;
    let now: CoreNow = client.get(&protocol::group_path(CORE, &group)).await?;
    let decision = Decision {
        number: 0,
        at: now.now,
        wall_ms: 0,
        kind: EventKind::RoleChanged,
        epoch: 0,
        first_epoch: 0,
        last_epoch: 0,
        cause: None,
    };
    let window = decoded(decision, &now.core)?;
    let prospect = look_ahead(&window.checkpoint, now.now, host).map_err(|error| {
        let remedy = "see `shadowctl status` for the members and witnesses";
        refused(Code::UnknownMember, error.to_string(), remedy)
    })?;
    let text = prospects(&prospect, &group);
    screen.show(&prospect, text)
}

fn refused(code: Code, message: String, remedy: &str) -> Failure {
    CallError::Refused(Refusal::new(code, message, remedy)).into()
}

/// The group that is meant.
pub(super) async fn group_of(client: &Client, group: Option<&Name>) -> Result<Name, Failure> {
    if let Some(group) = group {
        return Ok(group.clone());
    }
    let answer: StatusAnswer = client.get(protocol::STATUS).await?;
    let names: Vec<String> = answer
        .status
        .groups
        .iter()
        .map(|one| one.group.to_string())
        .collect();
    match answer.status.groups.as_slice() {
        [one] => Ok(one.group.clone()),
        _ => {
            let message = format!(
                "this host is in {} groups: {}",
                names.len(),
                names.join(", ")
            );
            Err(refused(Code::BadRequest, message, "name one"))
        }
    }
}

async fn list(client: &Client, group: &Name) -> Result<Vec<Decision>, Failure> {
    let path = protocol::group_path(DECISIONS, group);
    let answer: Decisions = client.get(&path).await?;
    if answer.decisions.is_empty() {
        let message = format!("no decision of group {group} is kept yet");
        let remedy = "decisions are kept half a second after they were taken";
        return Err(refused(Code::NothingRecorded, message, remedy));
    }
    Ok(answer.decisions)
}

/// The decision of an epoch, else the newest one that says most.
fn chosen(all: Vec<Decision>, group: &Name, epoch: Option<u64>) -> Result<Decision, Failure> {
    let within = |one: &Decision, epoch| (one.first_epoch..=one.last_epoch).contains(&epoch);
    let known = |one: &&Decision| epoch.is_none_or(|epoch| within(one, epoch));
    let claimed = |one: &&Decision| epoch.is_some() && one.kind == EventKind::Claimed;
    let newest = || all.iter().rev().filter(known);
    let found = newest().find(claimed).or_else(|| newest().next());
    found.cloned().ok_or_else(|| {
        let epoch = epoch.unwrap_or_default();
        let message = format!("no decision of group {group} in epoch {epoch} is kept here");
        let remedy = "the newest 64 are; try the host that owned the group then";
        refused(Code::NothingRecorded, message, remedy)
    })
}

async fn window(client: &Client, group: &Name, decision: &Decision) -> Result<Window, Failure> {
    let path = protocol::decision_path(group, decision.number);
    let answer: RecordedDecision = client.get(&path).await?;
    decoded(answer.decision, &answer.window)
}

fn decoded(decision: Decision, text: &str) -> Result<Window, Failure> {
    let bytes = BASE64.decode(text.as_bytes()).map_err(|_| Failure::Text)?;
    Window::from_bytes(decision, &bytes).map_err(Failure::Window)
}

/// What the hands did is in the events alone.
fn add_events(told: &mut Explanation, decision: &Decision, group: &Name, events: Vec<Event>) {
    let span = told.lines.first().zip(told.lines.last());
    let Some((from, to)) = span.map(|(first, last)| (first.at, last.at)) else {
        return;
    };
    let of_hands = |event: &Event| {
        matches!(
            event.kind,
            EventKind::VipAdded
                | EventKind::VipRemoved
                | EventKind::Announced
                | EventKind::Drained
                | EventKind::UnitAction
        ) && event.group.as_ref() == Some(group)
            && event.wall_ms.abs_diff(decision.wall_ms) < SAME_BOOT_MS
            && (from..=to).contains(&event.boot_ns)
    };
    let lines = events.into_iter().filter(of_hands).map(|event| Line {
        at: event.boot_ns,
        text: format!("{}: {}", event.kind, event.detail),
    });
    told.lines.extend(lines);
    told.lines.sort_by_key(|line| line.at);
    told.lines.dedup();
}

fn relative(at: BootTime, to: BootTime) -> String {
    let nanos = i128::from(at.as_nanos()) - i128::from(to.as_nanos());
    format!("{:+.1} ms", nanos as f64 / 1e6)
}

fn sentences(told: &Explanation, decision: &Decision) -> String {
    let mut text = format!(
        "{}  decision {}: {}\n",
        wall(decision.wall_ms),
        decision.number,
        clean(&told.summary)
    );
    for line in &told.lines {
        let at = relative(line.at, decision.at);
        text.push_str(&format!("  {at:>14}  {}\n", clean(&line.text)));
    }
    text
}

fn outcome(decision: &Decision, replayed: &Replayed) -> String {
    let head = format!(
        "decision {}, epoch {}, {}",
        decision.number, decision.epoch, decision.kind
    );
    let counts = format!("{} inputs, {} actions", replayed.inputs, replayed.actions);
    match &replayed.difference {
        None if replayed.decided => format!("{head}: same ({counts})\n"),
        None => format!("{head}: same ({counts}), but the decision itself is not among them\n"),
        Some(difference) => {
            let at = relative(difference.at, decision.at);
            let recorded = clean(&format!("{:?}", difference.recorded));
            let now = clean(&format!("{:?}", difference.replayed));
            format!(
                "{head}: differs after {counts}, at {at}\n  recorded: {recorded}\n  now:      {now}\n"
            )
        }
    }
}

fn prospects(prospect: &Prospect, group: &Name) -> String {
    let host = &prospect.host;
    let owner = prospect.owner.as_ref();
    let mut text = match (&prospect.takeover, owner) {
        (Some(takeover), _) => {
            let cause = takeover
                .cause
                .map_or_else(String::new, |cause| format!(" ({cause})"));
            format!(
                "if {host} died now, {} would own group {group} after about {:.0} ms{cause}\n",
                takeover.by,
                takeover.after_ns as f64 / 1e6
            )
        }
        (None, Some(owner)) if owner != host => match prospect.lapses_after_ns {
            Some(after) => format!(
                "if {host} died now, the lease of {owner} would lapse after about {:.0} ms: nobody \
                 would answer for group {group}\n",
                after as f64 / 1e6
            ),
            None => format!("if {host} died now, {owner} would go on owning group {group}\n"),
        },
        (None, _) => format!("if {host} died now, nobody would own group {group}\n"),
    };
    for reason in &prospect.reasons {
        text.push_str(&format!("  {}: {}\n", reason.host, clean(&reason.says)));
    }
    text
}
