//! What would happen if a host died now: the cores of the survivors in virtual time.
//!
//! This member's own core is the one that runs here; the others are put together from what they
//! said last, and witnesses from what was heard of them. Messages take no time worth mentioning and
//! none is lost. Whoever is not heard now is taken for dead too.

use std::time::Duration;

use serde::Serialize;

use super::group::{Active, Cold, Group, Peer, State, View};
use super::member::Said;
use super::survivors::{Core, Node, World};
use super::voter::Promise;
use super::witness::Witness;
use crate::facts::{BootTime, Cause, Epoch, Name, PolicyOrder, Role, UnitMode};

/// No longer is looked ahead, whatever the settings.
const AHEAD_MAX: Duration = Duration::from_secs(60);
/// A witness that was not heard for so long is not there.
const WITNESS_HEARD: Duration = Duration::from_secs(2);

/// What would happen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prospect {
    /// Who dies.
    pub host: Name,
    /// Who owns the group now, as far as is known.
    pub owner: Option<Name>,
    /// Who takes it over; none: nobody does, or the owner stays.
    pub takeover: Option<Takeover>,
    /// When the owner's lease would run out, if it would; in nanoseconds from now.
    pub lapses_after_ns: Option<u64>,
    /// What each other host has to do with it.
    pub reasons: Vec<Reason>,
}

/// A member takes the group over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Takeover {
    /// Who.
    pub by: Name,
    /// After so long; the addresses follow within some milliseconds.
    pub after_ns: u64,
    /// Why.
    pub cause: Option<Cause>,
}

/// How a host stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The host.
    pub host: Name,
    /// In words.
    pub says: String,
}

/// There is no such member and no such witness.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is neither a member nor a witness of this group")]
pub struct UnknownHost(pub Name);

/// Looks ahead from `core`, as it is `now`, with `dead` gone at once.
///
/// # Errors
/// [`UnknownHost`].
pub fn simulate(core: &Group, now: BootTime, dead: &Name) -> Result<Prospect, UnknownHost> {
    let view = Look { core, now, dead };
    if !view.knows(dead) {
        return Err(UnknownHost(dead.clone()));
    }
    let mut world = World::new(view.nodes(), now);
    let settings = core.settings();
    let ahead = settings.suspect_after * 40 + core.wanted_lease() * 40 + Duration::from_secs(1);
    // What was promised for a restart keeps the others out for longer.
    let held = core.lease.as_ref().and_then(|lease| lease.own.held(now));
    let ahead = ahead + held.map_or(Duration::ZERO, |(_, until)| until.since(now));
    world.run(now.after(ahead.min(AHEAD_MAX)));
    let nanos = |at: BootTime| at.as_nanos().saturating_sub(now.as_nanos());
    let takeover = world.claimed.as_ref().map(|(node, record)| Takeover {
        by: world.nodes[*node].peer.name.clone(),
        after_ns: nanos(record.at),
        cause: record.cause,
    });
    Ok(Prospect {
        host: dead.clone(),
        owner: core.active().cloned(),
        lapses_after_ns: world.lapsed.map(nanos),
        reasons: view.reasons(&world),
        takeover,
    })
}

struct Look<'a> {
    core: &'a Group,
    now: BootTime,
    dead: &'a Name,
}

impl Look<'_> {
    fn witnesses(&self) -> Vec<(Peer, Option<BootTime>)> {
        let ballots = self.core.lease.iter().flat_map(|lease| &lease.ballots);
        let witnesses = ballots.filter(|ballot| ballot.witness).map(|ballot| {
            let (name, id) = (ballot.name.clone(), ballot.id);
            (Peer { name, id }, ballot.heard)
        });
        witnesses.collect()
    }

    fn members(&self) -> Vec<Peer> {
        let others = self.core.members.iter().map(|member| Peer {
            name: member.name.clone(),
            id: member.id,
        });
        std::iter::once(self.core.me.clone())
            .chain(others)
            .collect()
    }

    fn is_spare(&self, name: &Name) -> bool {
        if *name == self.core.me.name {
            return self.core.settings.spare;
        }
        self.core.settings.spares.contains(name)
    }

    fn knows(&self, name: &Name) -> bool {
        let witnesses = self.witnesses();
        let names = witnesses.iter().map(|(peer, _)| &peer.name);
        let members = self.members();
        members
            .iter()
            .map(|peer| &peer.name)
            .chain(names)
            .any(|one| one == name)
    }

    fn said(&self, name: &Name) -> Option<Said> {
        let core = self.core;
        if *name == core.me.name {
            return Some(Said {
                heard: self.now,
                sent: self.now,
                role: core.role(),
                priority: core.settings.priority,
                eligible: core.trouble(self.now).is_none(),
                lease: core.wanted_lease(),
                reason: core.trouble(self.now),
                paused: Duration::ZERO,
                loan: None,
            });
        }
        let member = core.members.iter().find(|member| member.name == *name)?;
        let (heard, sent) = (self.now, self.now);
        let said = member.said.filter(|_| member.alive());
        said.map(|said| Said {
            heard,
            sent,
            // Nobody hands anything over in what is looked at.
            loan: None,
            ..said
        })
    }

    fn nodes(&self) -> Vec<Node> {
        let mut nodes = Vec::new();
        for peer in self.members() {
            let Some(said) = self.said(&peer.name).filter(|_| peer.name != *self.dead) else {
                continue;
            };
            let group = if peer.name == self.core.me.name {
                self.own()
            } else {
                self.other(&peer, said)
            };
            let core = Core::Member(Box::new(group));
            nodes.push(Node { peer, core });
        }
        for (peer, heard) in self.witnesses() {
            let there = heard.is_some_and(|heard| self.now.since(heard) < WITNESS_HEARD);
            if peer.name != *self.dead && there {
                let core = Core::Witness(Box::new(self.witness(&peer)));
                nodes.push(Node { peer, core });
            }
        }
        nodes
    }

    /// All clocks are this member's.
    fn own(&self) -> Group {
        let mut own = self.core.clone();
        own.actions.clear();
        for member in &mut own.members {
            if let Some(said) = &mut member.said {
                said.sent = said.heard;
            }
        }
        own
    }

    fn other(&self, peer: &Peer, said: Said) -> Group {
        let (now, newest) = (self.now, self.core.newest);
        let others: Vec<Peer> = self
            .members()
            .into_iter()
            .filter(|one| one != peer)
            .collect();
        let witnesses: Vec<Peer> = self.witnesses().into_iter().map(|(peer, _)| peer).collect();
        let mut settings = self.core.settings.clone();
        settings.priority = said.priority;
        let names = |spare: bool| {
            let others = others
                .iter()
                .filter(|one| self.is_spare(&one.name) == spare);
            others.map(|one| one.name.clone()).collect()
        };
        (settings.members, settings.spares) = (names(false), names(true));
        settings.spare = self.is_spare(&peer.name);
        let mut group = Group::new(settings, peer.clone(), others, &witnesses, newest, now);
        group.policy = self.core.policy.without_own();
        let owns = said.role == Role::Active && newest.owner == peer.id;
        let units = group.settings.units.iter();
        let run = units.filter(|unit| owns || unit.mode == UnitMode::Warm);
        group.units = run.map(|unit| (unit.name.clone(), true)).collect();
        group.carrier = Some(true);
        for member in &mut group.members {
            member.said = self.said(&member.name);
        }
        self.hold_back(&mut group, said);
        let owner = self.core.active();
        let follows = group
            .members
            .iter()
            .position(|one| Some(&one.name) == owner);
        group.state = match follows {
            _ if owns => State::Active(Active {
                epoch: newest,
                deadline: self.lease_end(),
                lapsed: false,
                cold: Cold::Run,
                offer: None,
            }),
            Some(member) => State::Shadow(View::Follows { member, since: now }),
            None => State::Shadow(View::Vacant {
                cause: Cause::NoActive,
                claim_at: now,
            }),
        };
        let (promise, end) = (self.promise(), self.lease_end());
        if let Some(lease) = &mut group.lease {
            lease.own.quiet_until = now;
            lease.own.promise = promise;
            for ballot in &mut lease.ballots {
                ballot.until = end.filter(|_| owns).unwrap_or_default();
            }
        }
        group.actions.clear();
        group
    }

    /// Why it could not own the group, by its own word.
    fn hold_back(&self, group: &mut Group, said: Said) {
        let force = true;
        group.proven_until = self.now.after(AHEAD_MAX * 2);
        match said.reason {
            _ if said.eligible => {}
            Some(Cause::Maintenance) => {
                let (span, reason) = (None, String::new());
                let order = PolicyOrder::MaintenanceOn {
                    span,
                    reason,
                    force,
                };
                // Only an owner can be refused, and it is none yet.
                let _ = group.on_order(order, self.now);
            }
            // As after a failed step, it goes last.
            Some(Cause::Flapping | Cause::StepFailed) => {
                group.held_until = self.now.after(AHEAD_MAX * 2);
            }
            Some(Cause::NotReady) => group.unready = true,
            Some(Cause::UnitDied | Cause::Unanswered) if !group.units.is_empty() => {
                group.units.clear();
            }
            Some(_) | None => group.carrier = Some(false),
        }
    }

    fn witness(&self, peer: &Peer) -> Witness {
        let witnesses = self.witnesses().into_iter().map(|(peer, _)| peer);
        let others: Vec<Peer> = witnesses.filter(|one| one != peer).collect();
        let mut settings = self.core.settings.clone();
        let newest = self.core.newest;
        let members = self.members();
        settings.spares = members
            .iter()
            .filter(|one| self.is_spare(&one.name))
            .map(|one| one.name.clone())
            .collect();
        let mut witness = Witness::new(settings, peer, members, &others, newest, self.now);
        witness.voter.quiet_until = self.now;
        witness.voter.promise = self.promise();
        witness
    }

    /// The voters renewed their promise a moment ago.
    fn promise(&self) -> Option<Promise> {
        let epoch: Epoch = self.core.newest;
        self.core.active()?;
        self.lease_end().map(|until| Promise { epoch, until })
    }

    fn lease_end(&self) -> Option<BootTime> {
        let owner = self.core.active()?;
        let length = self
            .said(owner)
            .map_or(self.core.settings.lease, |said| said.lease);
        self.core.lease.as_ref().map(|_| self.now.after(length))
    }

    fn reasons(&self, world: &World) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let mut add = |host: &Name, says: String| {
            let host = host.clone();
            reasons.push(Reason { host, says });
        };
        for peer in self.members().iter().filter(|peer| peer.name != *self.dead) {
            let node = world.nodes.iter().find(|node| node.peer == *peer);
            match (node.map(|node| &node.core), self.said(&peer.name)) {
                (Some(Core::Member(group)), Some(said)) => {
                    let says = stands(group, said, world);
                    add(
                        &peer.name,
                        format!("member, priority {}: {says}", said.priority),
                    );
                }
                _ => add(&peer.name, "member: is not heard now".to_owned()),
            }
        }
        for (peer, _) in self.witnesses() {
            let there = world.nodes.iter().any(|node| node.peer == peer);
            if peer.name != *self.dead {
                let says = if there {
                    "votes"
                } else {
                    "is not heard now: its vote is missing"
                };
                add(&peer.name, format!("witness: {says}"));
            }
        }
        reasons
    }
}

/// How a member stands at the end.
fn stands(group: &Group, said: Said, world: &World) -> String {
    let now = world.now;
    if group.active_epoch().is_some() {
        return "owns the group".to_owned();
    }
    if group.frozen_out(now) {
        return "may not take it: the group is frozen".to_owned();
    }
    if let Some(reason) = said.reason.or(group.trouble(now)) {
        return format!("could not own it: {reason}");
    }
    match (&group.state, &group.lease) {
        (State::Shadow(View::Follows { member, .. }), _) => {
            format!("follows {}", group.members[*member].name)
        }
        (State::Shadow(View::Asking(_) | View::Vacant { .. }), Some(lease)) => {
            let voting = |node: &&Node| {
                let mut members = group.members.iter();
                let spare = members.any(|one| one.spare && one.id == node.peer.id);
                let own = group.settings.spare && group.me.id == node.peer.id;
                !spare && !own
            };
            let (there, all) = (world.nodes.iter().filter(voting).count(), lease.count());
            format!("could own it, but no majority promised: {there} of {all} voters are left")
        }
        _ => "could own it".to_owned(),
    }
}
