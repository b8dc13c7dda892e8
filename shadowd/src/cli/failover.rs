//! `failover`: what an operator asks of groups.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::client::{CallError, Client};
use super::decisions::{self, ReplayArguments, Wanted};
use super::human::span;
use super::{Failure, Screen};
use crate::facts::Name;
use crate::serve::protocol::{
    self, DEFAULT_FREEZE, FREEZE, FreezeRequest, HandoverDone, HandoverRequest, MAINTENANCE,
    MAX_ORDER, MaintenanceRequest, OrderDone, StatusAnswer, UNFREEZE, UnfreezeRequest,
};

/// The commands of `failover`.
#[derive(Debug, Subcommand)]
pub enum Failover {
    /// Give a group that this host owns to another member, without a gap
    #[command(after_help = "\
Run it on the active host, as root. The other member is made ready first, so nobody waits.

Examples:
  sudo shadowctl failover handover web
  sudo shadowctl failover handover web --to b")]
    Handover {
        /// The group
        group: Name,
        /// The host that shall take over; the best member if left out
        #[arg(long, value_name = "HOST")]
        to: Option<Name>,
    },
    /// Keep this host from owning a group, or all groups, for as long as somebody works on it
    #[command(
        allow_missing_positional = true,
        after_help = "\
A group that this host owns is handed to the best member first; where nobody could own it, this is
refused, or with --force this host keeps it until somebody can. It outlasts restarts and reboots,
and ends with `off` or after --for.

Examples:
  sudo shadowctl failover maintenance web on --for 30m --reason 'new disk'
  sudo shadowctl failover maintenance --all on
  sudo shadowctl failover maintenance --all off"
    )]
    Maintenance {
        /// The group
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        group: Option<Name>,
        /// Begin or end
        state: OnOff,
        /// All groups of this host
        #[arg(long)]
        all: bool,
        /// Ends by itself after so long
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        span: Option<Duration>,
        /// Why, shown in status and events
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// Also when nobody else could own the group
        #[arg(long)]
        force: bool,
    },
    /// Keep a group where it is: no member takes it over by itself, not even from a dead host
    #[command(after_help = "\
The members that hear each other tell it on, whichever it was said to. Handovers by hand go on, and
so does the lease with all that it keeps apart. While it holds, an owner that dies is not replaced.

Examples:
  sudo shadowctl failover freeze web --for 30m --reason 'switch upgrade'
  sudo shadowctl failover unfreeze web")]
    Freeze {
        /// The group
        group: Name,
        /// Ends by itself after so long [default: 1h]
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        span: Option<Duration>,
        /// Why, shown in status and events
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Tell a decision of this host in sentences: what led to it, and what came of it
    #[command(after_help = "\
Times are relative to the decision. The newest 64 decisions of each group are kept.

Examples:
  shadowctl failover explain
  shadowctl failover explain web --epoch 8")]
    Explain(Wanted),
    /// Run a recorded decision again and compare: the same inputs must give the same actions
    #[command(after_help = "\
The core runs in this process, from what it was some seconds before the decision. Exit code 1 if
anything came out differently.

Examples:
  shadowctl failover replay web --epoch 8
  shadowctl failover replay --all")]
    Replay(ReplayArguments),
    /// Say what would happen if a host died now: who would take over, when, and why
    #[command(after_help = "\
This host's core looks ahead; the others are taken for what they said last. Nothing is touched.

Example:
  shadowctl failover simulate b --group web")]
    Simulate {
        /// The member or witness that dies
        host: Name,
        /// The group; may be left out where this host is in one only
        #[arg(long, value_name = "GROUP")]
        group: Option<Name>,
    },
    /// Try a takeover: beside production on this shadow, or for a time in its place
    #[command(after_help = "\
Without --live, run it on a shadow, as root. The virtual IPs and copies of the units live in a network
that leads nowhere; the copies read the host's files and write none. What is demanded of them stands
in [[group.check]]. All of it is gone at the end, whatever the end is.

With --live, run it on the active, as root. The group is handed to another member, as by `handover`;
this host checks it as a client would, and asks for it after the time. A check that fails ends the
time. It goes on when this command is interrupted, and after a restart of the daemon; --end ends it,
here or on the member that has the group.

Examples:
  sudo shadowctl failover drill web
  sudo shadowctl --json failover drill web | jq -r '.steps[] | select(.ok | not)'
  sudo shadowctl failover drill web --live --for 10m --to b
  sudo shadowctl failover drill web --end")]
    Drill(DrillArguments),
    /// Show what came of the drills of this host, the oldest first
    Drills,
    /// Let members take a frozen group over again
    #[command(after_help = "\
Example:
  sudo shadowctl failover unfreeze web")]
    Unfreeze {
        /// The group
        group: Name,
    },
}

/// What kind of drill, or its end.
#[derive(Debug, Args)]
pub struct DrillArguments {
    /// The group
    pub group: Name,
    /// Hand the group of this host to another member for a time
    #[arg(long, requires = "span")]
    pub live: bool,
    /// How long the other member has it, 5s to 1day
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, requires = "live")]
    pub span: Option<Duration>,
    /// The member; the best one if left out
    #[arg(long, value_name = "HOST", requires = "live")]
    pub to: Option<Name>,
    /// End a live drill now: the group goes back
    #[arg(long, conflicts_with_all = ["live", "span", "to"])]
    pub end: bool,
}

/// Whether something begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// Begin
    On,
    /// End
    Off,
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).ok();
    let range = Duration::from_secs(1)..=MAX_ORDER;
    span.filter(|span| range.contains(span))
        .ok_or_else(|| "a duration from 1s to 30days, such as 30m or 2h".to_owned())
}

/// Carries out one of them.
pub(super) async fn run(
    client: &Client,
    screen: &mut Screen<'_>,
    wanted: Failover,
) -> Result<(), Failure> {
    match wanted {
        Failover::Handover { group, to } => handover(client, screen, &group, to).await,
        Failover::Maintenance {
            group,
            state,
            all: _,
            span,
            reason,
            force,
        } => {
            let request = MaintenanceRequest {
                on: state == OnOff::On,
                for_s: span.map(|span| span.as_secs()),
                reason,
                force,
            };
            maintenance(client, screen, group, &request).await
        }
        Failover::Freeze {
            group,
            span: wanted,
            reason,
        } => {
            let for_s = wanted.map(|span| span.as_secs());
            let path = protocol::group_path(FREEZE, &group);
            let done: OrderDone = client.post(&path, &FreezeRequest { for_s, reason }).await?;
            let length = span(wanted.unwrap_or(DEFAULT_FREEZE));
            let text = format!("group {}: frozen for {length}\n", done.group);
            screen.show(&done, text)
        }
        Failover::Explain(wanted) => decisions::explain(client, screen, &wanted).await,
        Failover::Replay(wanted) => decisions::replay(client, screen, &wanted).await,
        Failover::Simulate { host, group } => {
            decisions::simulate(client, screen, &host, group.as_ref()).await
        }
        Failover::Drill(wanted) if wanted.end => {
            super::drill::end_live(client, screen, &wanted.group).await
        }
        Failover::Drill(wanted) => super::drill::drill(client, screen, wanted).await,
        Failover::Drills => super::drill::drills(client, screen).await,
        Failover::Unfreeze { group } => {
            let path = protocol::group_path(UNFREEZE, &group);
            let done: OrderDone = client.post(&path, &UnfreezeRequest {}).await?;
            let text = format!("group {}: not frozen\n", done.group);
            screen.show(&done, text)
        }
    }
}

async fn handover(
    client: &Client,
    screen: &mut Screen<'_>,
    group: &Name,
    to: Option<Name>,
) -> Result<(), Failure> {
    let path = protocol::handover_path(group);
    let done: HandoverDone = client.post(&path, &HandoverRequest { to }).await?;
    let text = format!(
        "group {}: {} -> {}, epoch {}, {} ms\n",
        done.group, done.from, done.to, done.epoch, done.took_ms
    );
    screen.show(&done, text)
}

/// One group, or all of this host. A group that refuses keeps no other from being asked.
async fn maintenance(
    client: &Client,
    screen: &mut Screen<'_>,
    group: Option<Name>,
    request: &MaintenanceRequest,
) -> Result<(), Failure> {
    let groups = match group {
        Some(group) => vec![group],
        None => {
            let answer: StatusAnswer = client.get(protocol::STATUS).await?;
            let groups = answer.status.groups.into_iter();
            groups.map(|group| group.group).collect()
        }
    };
    let mut refused: Option<CallError> = None;
    for group in groups {
        let path = protocol::group_path(MAINTENANCE, &group);
        match client.post::<_, OrderDone>(&path, request).await {
            Ok(done) => {
                let text = format!("group {}: {}\n", done.group, outcome(&done, request.on));
                screen.show(&done, text)?;
            }
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    refused.map_or(Ok(()), |error| Err(error.into()))
}

fn outcome(done: &OrderDone, on: bool) -> String {
    match (&done.handed_to, done.kept) {
        (Some(to), _) => format!("in maintenance, {to} owns it now"),
        (None, true) => "in maintenance, but this host owns it until another member can".to_owned(),
        (None, false) if on => "in maintenance, another member owns it or nobody does".to_owned(),
        (None, false) => "not in maintenance".to_owned(),
    }
}
