//! For how long nobody answers although a majority is well, and for how long two do.

use std::time::Duration;

use shadowd::decide::cluster::Group;
use shadowd::facts::PolicyMemory;

use super::check::Violation;
use super::daemon::Core;
use super::faults::Beyond;
use super::host::SUSPECT_AFTER;
use super::restart::KEPT_ALONE_MAX;
use super::world::{Outcome, World};

/// While a majority is well and nobody else disturbs it, somebody answers again within this, where
/// leases are as long as usual.
pub const DARK_MAX: Duration = Duration::from_millis(1_000);

/// Follows a run with a lease.
#[derive(Default)]
pub struct Service {
    /// The hosts that are well, a bit each; none when they are no majority.
    well: u32,
    /// Since when they are, and may vote.
    well_since: Duration,
    /// Somebody else can send to them.
    disturbed: bool,
    /// Until when a voter may keep others out for an owner that paused.
    paused_until: Duration,
    /// Counts what each daemon has learned of orders, when they were looked at.
    orders: Vec<u64>,
    /// Since when nobody answers.
    dark_since: Option<Duration>,
    /// Until when somebody answered at the last step.
    lit_until: Duration,
    /// Since when, and until when, two answer.
    both: Option<(Duration, Duration)>,
    longest: Longest,
}

#[derive(Default)]
struct Longest {
    dark: Duration,
    dark_disturbed: Duration,
    both: Duration,
}

impl Service {
    /// At the begin of a run.
    pub fn new(world: &World) -> Self {
        let mut service = Self::default();
        service.look(world);
        service
    }

    /// After each step.
    pub fn step(&mut self, world: &World) -> Result<(), Violation> {
        let (mut first, mut second) = (Duration::ZERO, Duration::ZERO);
        for host in world.hosts.iter().filter(|host| host.vips) {
            if host.answers(world.now) {
                let until = world.now.saturating_add(host.answers_for(world.now));
                second = second.max(first.min(until));
                first = first.max(until);
            }
        }
        self.both(world.now, second);
        self.dark(world.now, first);
        self.note_pauses(world);
        if world.touched == u32::MAX || self.orders_changed(world) {
            self.look(world);
        }
        self.judge(world)
    }

    fn both(&mut self, now: Duration, until: Duration) {
        if let Some((since, end)) = self.both {
            self.longest.both = self.longest.both.max(end.min(now) - since);
            if end < now {
                self.both = None;
            }
        }
        self.both = (until > now).then(|| (self.both.map_or(now, |(since, _)| since), until));
    }

    fn dark(&mut self, now: Duration, until: Duration) {
        let since = *self.dark_since.get_or_insert(self.lit_until.min(now));
        let well_since = self.well_since.max(since).max(self.paused_until);
        if self.well != 0 && well_since < now {
            let dark = now - well_since;
            let longest = if self.disturbed {
                &mut self.longest.dark_disturbed
            } else {
                &mut self.longest.dark
            };
            *longest = dark.max(*longest);
        }
        if until > now {
            self.dark_since = None;
            self.lit_until = until;
        }
    }

    fn judge(&self, world: &World) -> Result<(), Violation> {
        let bound = match world.plan.beyond {
            None => Duration::ZERO,
            // The fastest voter and the slowest holder, at either end of the drift.
            Some(Beyond::Drift(times)) => longest_promise(world).mul_f64(f64::from(times) * 0.0025),
            // What is left of the lease when the clock goes on.
            Some(Beyond::Pause) => longest_promise(world),
        };
        let leases = world.plan.lease.as_secs_f64() / SUSPECT_AFTER.as_secs_f64();
        let what = if self.longest.both > bound {
            format!("two answered for {:?}", self.longest.both)
        } else if self.longest.dark > DARK_MAX.mul_f64(leases) {
            format!(
                "nobody answered for {:?} although a majority was well",
                self.longest.dark
            )
        } else {
            return Ok(());
        };
        let at = world.now;
        Err(Violation { at, what })
    }

    /// A voter that promised for longer than leases last did so for a pause. Nobody can claim
    /// before that is over, and its owner still answers, if it lives.
    fn note_pauses(&mut self, world: &World) {
        for (index, host) in world.hosts.iter().enumerate() {
            if world.touched >> index & 1 == 0 {
                continue;
            }
            let Some(until) = host.core.as_ref().and_then(Core::promised_until) else {
                continue;
            };
            let left = until.since(host.clock(world.now)).mul_f64(1.001);
            if left > quiet(world, index) {
                self.paused_until = self.paused_until.max(world.now + left);
            }
        }
    }

    /// Whether a daemon has learned of an order since the last time.
    fn orders_changed(&mut self, world: &World) -> bool {
        let mut changed = false;
        self.orders.resize(world.hosts.len(), 0);
        for (index, host) in world.hosts.iter().enumerate() {
            if world.touched >> index & 1 == 1 {
                let orders = host.member().map_or(0, Group::policy_changes);
                changed |= std::mem::replace(&mut self.orders[index], orders) != orders;
            }
        }
        changed
    }

    /// Faults began or ended, or orders did: who is well now?
    fn look(&mut self, world: &World) {
        // Who votes; a spare helps where it can, and disturbs where it is half there.
        let all = 0..world.plan.voters();
        let spares = all.end..world.hosts.len();
        let able: Vec<bool> = (0..world.hosts.len())
            .map(|host| able(world, host))
            .collect();
        let joined = |one: usize, other: usize| one == other || world.connected(one, other);
        let is_well = |set: u32| {
            let inside: Vec<usize> = all.clone().filter(|host| set >> host & 1 == 1).collect();
            let agree = |host: &usize| world.hosts[*host].changed == world.hosts[inside[0]].changed;
            let Some(first) = inside.first() else {
                return false;
            };
            let outside = world.plan.outside(world.hosts[*first].changed);
            let voters = all.len() - usize::from(outside.is_some());
            let owner = |host: &usize| may_own(world, *host);
            let frozen = |host: &usize| memory(world, *host).is_some_and(|it| it.freeze.is_some());
            inside.len() * 2 > voters
                && inside.iter().all(|host| able[*host])
                && inside.iter().all(agree)
                && inside.iter().any(owner)
                && !inside.iter().any(frozen)
                && inside
                    .iter()
                    .all(|one| inside.iter().all(|other| joined(*one, *other)))
        };
        let no_chance = world.plan.failing > 0 || world.loss + world.late > 0;
        let mut sets = (1..1_u32 << all.len()).filter(|set| is_well(*set));
        let well = if no_chance {
            0
        } else if is_well(self.well) {
            self.well
        } else {
            sets.by_ref()
                .max_by_key(|set| set.count_ones())
                .unwrap_or_default()
        };
        let inside = |set: u32| all.clone().filter(move |host| set >> host & 1 == 1);
        let disturbs = |host: usize| {
            let running = world.hosts[host].core.is_some() && world.hosts[host].link;
            running && inside(well).any(|other| world.cuts[host][other] == 0)
        };
        let outside = all
            .clone()
            .any(|host| well >> host & 1 == 0 && disturbs(host));
        let half = |host: usize| !able[host] || !inside(well).all(|other| joined(host, other));
        let disturbed = outside || spares.into_iter().any(|host| half(host) && disturbs(host));
        if (well, disturbed) != (self.well, self.disturbed) {
            let may_vote = inside(well).map(|host| world.hosts[host].started + quiet(world, host));
            self.well_since = may_vote.max().unwrap_or_default().max(world.now);
            (self.well, self.disturbed) = (well, disturbed);
        }
    }

    /// Enters what was found.
    pub fn note(&self, outcome: &mut Outcome) {
        outcome.both = self.longest.both;
        outcome.dark = self.longest.dark;
        outcome.dark_disturbed = self.longest.dark_disturbed;
    }
}

/// A lease, or a pause where an owner may be restarted.
fn longest_promise(world: &World) -> Duration {
    let mut faults = world.plan.faults.iter();
    let restarts = faults.any(|(_, _, fault)| fault.restarts());
    let pause = if restarts {
        KEPT_ALONE_MAX
    } else {
        Duration::ZERO
    };
    world.hosts[0].quiet().max(pause)
}

fn quiet(world: &World, host: usize) -> Duration {
    world.hosts[host].quiet().mul_f64(1.001)
}

/// The host's daemon runs and goes on doing so.
fn able(world: &World, host: usize) -> bool {
    let host = &world.hosts[host];
    let asked = host.stopping || host.restarting;
    host.responsive() && !asked && host.link && host.configured
}

/// Nothing but its flap penalty keeps this member from owning, which only makes it the last.
fn may_own(world: &World, host: usize) -> bool {
    world.hosts[host].warm && memory(world, host).is_some_and(|it| it.maintenance.is_none())
}

/// What the member knows of orders.
fn memory(world: &World, host: usize) -> Option<PolicyMemory> {
    let host = &world.hosts[host];
    Some(host.member()?.remembered(host.clock(world.now)))
}
