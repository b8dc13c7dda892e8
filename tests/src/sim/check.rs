//! The invariants.

use std::fmt;
use std::time::Duration;

use shadowd::decide::cluster::Group;
use shadowd::facts::{Cause, Epoch, Protection, Role};

use super::daemon::Input;
use super::faults::Plan;
use super::host::Host;
use super::world::World;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, in simulated time.
    pub at: Duration,
    /// Which, and who.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:.3} ms: {}", self.at.as_secs_f64() * 1e3, self.what)
    }
}

/// Follows a run and checks every step.
pub struct Checker {
    only_handovers: bool,
    /// Longest time two connected, responsive hosts may both hold the addresses.
    overlap_bound: Duration,
    /// Since when each pair, connected and responsive, both hold the addresses.
    overlaps: Vec<Vec<Option<Duration>>>,
    /// Two held the addresses after the last step.
    overlapped: bool,
    seen: Vec<Seen>,
    settled: bool,
}

#[derive(Clone, Copy)]
struct Seen {
    incarnation: u32,
    newest: Epoch,
    owned: Option<Epoch>,
    /// A spare that was not enlisted.
    barred: bool,
}

impl Checker {
    /// A checker for a run of `plan`.
    pub fn new(plan: &Plan) -> Self {
        let seen = Seen {
            incarnation: 0,
            newest: Epoch::NONE,
            owned: None,
            barred: false,
        };
        Self {
            only_handovers: plan.only_handovers() && plan.beyond.is_none(),
            // A heartbeat tells the loser, which then drops its addresses.
            // Where removing fails, it is tried again every 100 ms.
            overlap_bound: Duration::from_millis(10 + 10 + 6)
                + plan.max_delay
                + Duration::from_millis(if plan.failing > 0 { 500 } else { 0 }),
            overlaps: vec![vec![None; plan.hosts()]; plan.hosts()],
            overlapped: false,
            seen: vec![seen; plan.hosts()],
            settled: false,
        }
    }

    /// Checks what must hold at every instant.
    pub fn step(&mut self, world: &World) -> Result<(), Violation> {
        // Whoever got no turn is as it was.
        let touched = |index: &usize| world.touched & (1 << index) != 0;
        for index in (0..world.hosts.len()).filter(touched) {
            let host = &world.hosts[index];
            self.epochs_only_grow(world, index, host)?;
            addresses_belong_to_the_owner(world, index, host)?;
        }
        if let Some(what) = &world.unjust {
            return violation(world, what.clone());
        }
        // Two hold the addresses rarely, and what follows is about that.
        let holders = world.hosts.iter().filter(|host| host.vips).count();
        self.settled |= holders == 1;
        if holders > 1 {
            one_answers(world)?;
        }
        let within = world.plan.beyond.is_none();
        if within && (holders > 1 || self.overlapped) {
            self.overlapped = holders > 1;
            self.two_owners_end(world)?;
        }
        self.a_handover_never_overlaps(world, holders)
    }

    fn epochs_only_grow(
        &mut self,
        world: &World,
        index: usize,
        host: &Host,
    ) -> Result<(), Violation> {
        let Some(core) = host.member() else {
            return Ok(());
        };
        let before = self.seen[index];
        let newest = core.newest_epoch();
        let owned = core.active_epoch();
        if newest < before.newest && before.incarnation == host.incarnation {
            return violation(world, format!("h{index} forgot epoch {:?}", before.newest));
        }
        if let Some(epoch) = owned
            && owned != before.owned
        {
            if before.incarnation == host.incarnation && epoch <= before.newest {
                return violation(world, format!("h{index} claimed an old epoch {epoch:?}"));
            }
            // An owner whom nobody could relieve may rise above a newer epoch that was left.
            let owner = before.owned.is_some();
            let clock = host.clock(world.now);
            let maintained = core.remembered(clock).maintenance.is_some();
            let barred = before.barred && world.plan.is_leased();
            // A daemon that was stalled may read of a vacancy before it reads of its own trouble.
            let unread = host.inbox.iter().any(Input::is_local);
            let could = host.link && host.warm && !maintained && !barred || unread;
            if !owner && !could {
                return violation(
                    world,
                    format!("h{index} claimed although it is not eligible"),
                );
            }
        }
        self.seen[index] = Seen {
            incarnation: host.incarnation,
            newest,
            owned,
            barred: host.settings.spare && is_barred(world, host),
        };
        Ok(())
    }

    /// Two hosts that can talk do not both go on holding the addresses. While the set of voters
    /// changes one of the new set may not know one of the old: the kernel silences one of them,
    /// as [`one_answers`] checks.
    fn two_owners_end(&mut self, world: &World) -> Result<(), Violation> {
        for one in 0..world.hosts.len() {
            for other in 0..one {
                let both = [one, other].map(|index| &world.hosts[index]);
                let overlap = both.iter().all(|host| host.vips && host.responsive())
                    && both[0].runs_changed == both[1].runs_changed
                    && world.connected(one, other);
                let since = &mut self.overlaps[one][other];
                if !overlap {
                    *since = None;
                    continue;
                }
                let began = *since.get_or_insert(world.now);
                if world.now.saturating_sub(began) > self.overlap_bound {
                    let what =
                        format!("h{one} and h{other} both hold the addresses since {began:?}");
                    return violation(world, what);
                }
            }
        }
        Ok(())
    }

    /// With nothing but planned handovers, and no step that fails, there is never more than one
    /// holder. How long there is none in between is not checked here.
    fn a_handover_never_overlaps(&self, world: &World, holders: usize) -> Result<(), Violation> {
        if self.only_handovers && self.settled && holders > 1 {
            return violation(
                world,
                format!("{holders} hosts hold the addresses in a handover"),
            );
        }
        Ok(())
    }

    /// Checks what must hold some time after everything was healed.
    pub fn end(&mut self, world: &World) -> Result<(), Violation> {
        let holders: Vec<usize> = (0..world.hosts.len())
            .filter(|index| world.hosts[*index].vips && world.hosts[*index].configured)
            .collect();
        if holders.len() != 1 {
            return violation(world, format!("healed, but {holders:?} hold the addresses"));
        }
        let witnesses = world.plan.members..world.plan.voters();
        let hosts = world.hosts.iter().enumerate();
        let members = hosts.filter(|(index, _)| !witnesses.contains(index));
        for (index, host) in members.filter(|(_, host)| host.configured) {
            let Some(core) = host.member() else {
                return violation(world, format!("healed, but h{index} does not run"));
            };
            let wanted = if holders[0] == index {
                Role::Active
            } else {
                Role::Shadow
            };
            if holders[0] == index && !host.answers(world.now) {
                return violation(world, format!("healed, but h{index} holds no lease"));
            }
            if core.role() != wanted {
                return violation(world, format!("healed, but h{index} is {}", core.role()));
            }
            if core.active() != Some(&world.hosts[holders[0]].peer.name) {
                return violation(
                    world,
                    format!("healed, but h{index} follows {:?}", core.active()),
                );
            }
            if host.settings.units.len() > 1 && host.cold != (wanted == Role::Active) {
                return violation(
                    world,
                    format!("healed, but h{index} runs cold: {}", host.cold),
                );
            }
        }
        Ok(())
    }
}

/// With a lease no two hosts answer for the addresses at the same instant: whatever the daemons
/// believe, hung and dead ones included.
fn one_answers(world: &World) -> Result<(), Violation> {
    // Beyond the bound on clocks `service.rs` measures for how long.
    if world.plan.protection == Protection::None || world.plan.beyond.is_some() {
        return Ok(());
    }
    let answers = |index: &usize| world.hosts[*index].answers(world.now);
    let answering: Vec<usize> = (0..world.hosts.len()).filter(answers).collect();
    if answering.len() > 1 {
        return violation(world, format!("{answering:?} answer for the addresses"));
    }
    Ok(())
}

/// A spare that no owner has enlisted.
fn is_barred(world: &World, host: &Host) -> bool {
    let reason = |core: &Group| core.trouble(host.clock(world.now));
    host.member().and_then(reason) == Some(Cause::Spare)
}

/// A running daemon that does not own the group has no addresses.
fn addresses_belong_to_the_owner(
    world: &World,
    index: usize,
    host: &Host,
) -> Result<(), Violation> {
    let Some(core) = host.member() else {
        return Ok(());
    };
    let role = core.role();
    if host.vips && host.responsive() && !host.busy && role != Role::Active {
        return violation(world, format!("h{index} is {role} and holds the addresses"));
    }
    Ok(())
}

fn violation(world: &World, what: String) -> Result<(), Violation> {
    Err(Violation {
        at: world.now,
        what,
    })
}
