//! What a seed makes go wrong, and when.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use shadowd::config::settings::{FlapSettings, PolicySettings};
use shadowd::facts::Protection;

use super::broken::Broken;
use super::host::SUSPECT_AFTER;

/// One thing that goes wrong, and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The host stops at once and comes back rebooted.
    Crash(usize),
    /// The daemon dies, its addresses stay; it is started again.
    Kill(usize),
    /// The daemon gets no turn (SIGSTOP, starvation) and goes on later.
    Stall(usize),
    /// All but the failover thread waits long for its turns.
    Starve(usize),
    /// The member finds out that it lacks something of the group's profile: it goes last.
    Unready(usize),
    /// The daemon is stopped cleanly and started again.
    Stop(usize),
    /// The daemon is restarted cleanly.
    Restart(usize),
    /// The warm unit dies and comes back.
    Unit(usize),
    /// The interface loses its link.
    Link(usize),
    /// Nothing passes between the host and all others, in both directions.
    Isolate(usize),
    /// Nothing passes from the first to the second.
    OneWay(usize, usize),
    /// Nothing reaches the host.
    Deaf(usize),
    /// Nothing that the host sends arrives.
    Mute(usize),
    /// Nothing passes between the hosts in this set (a bit each) and those outside.
    Split(u32),
    /// Datagrams are lost, with this probability in percent.
    Loss(u8),
    /// Datagrams are late, with this probability in percent: others overtake them.
    Late(u8),
    /// The host's daemon is stopped and started with the other set of voters.
    Reconfigure(usize),
    /// A virtual machine is paused, and its boot clock with it: beyond what leases permit.
    Pause(usize),
    /// An operator hands the group over, to whoever is best.
    Handover,
    /// An operator puts the host into maintenance, also when nobody else could own the group.
    Maintenance(usize),
    /// An operator freezes the group at the host, which ends by itself or by order at its end.
    Freeze(usize),
    /// A live drill: whoever owns the group lends it, until the end.
    Lend,
}

impl Fault {
    /// Whether an owner may be restarted, and pause.
    pub fn restarts(&self) -> bool {
        matches!(self, Self::Restart(_) | Self::Reconfigure(_))
    }
}

/// The set of voters changes by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The host that is a voter before or after.
    pub host: usize,
    /// It is added, not removed.
    pub joins: bool,
}

/// What exceeds the bound that leases are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// Clocks drift by up to so many times 0.1 %.
    Drift(u32),
    /// Stalls are pauses of the virtual machine.
    Pause,
}

/// A run's cluster, network and faults.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Members of the group, 2 to 4.
    pub members: usize,
    /// Hosts that vote only, after the members.
    pub witnesses: usize,
    /// Hosts that do not vote and own the group only while they are enlisted, after the witnesses.
    pub spares: usize,
    /// For how long members may be missed before a spare is enlisted, and for how long they have to
    /// be back before it is released.
    pub missed: Duration,
    /// What protects the group.
    pub protection: Protection,
    /// By how much each host's clock is fast, in millionths.
    pub drift_ppm: Vec<i64>,
    /// How the set of voters changes, if it does.
    pub change: Option<Change>,
    /// What exceeds the bound that leases are made for.
    pub beyond: Option<Beyond>,
    /// A rule that is broken on purpose.
    pub broken: Option<Broken>,
    /// The length of leases.
    pub lease: Duration,
    /// How long an address action takes at most.
    pub slowest: Duration,
    /// What every daemon did is replayed from its journal when it ends.
    pub replays: bool,
    /// Whether the group has a cold unit beside the warm one.
    pub cold_unit: bool,
    /// Longest one-way delay of a datagram.
    pub max_delay: Duration,
    /// Probability that a datagram arrives twice, in percent.
    pub duplicated: u8,
    /// Probability that a step (an address action, a unit job) fails, in percent.
    pub failing: u8,
    /// Each fault with its begin and its length.
    pub faults: Faults,
    /// Failback and the flap budget.
    pub policy: PolicySettings,
    /// Whether all members have the same priority.
    pub equal: bool,
    /// When the last fault ends.
    pub healed_at: Duration,
}

/// Faults with their begins and their lengths.
pub type Faults = Vec<(Duration, Duration, Fault)>;

/// Faults that come and go stop when there are so many.
const FAULTS_MAX: usize = 40;
/// Faults begin after the cluster had time to settle.
const SETTLED: Duration = Duration::from_millis(700);
/// Clocks are off by at most this; the core's margin is for so much (`voter.rs`).
const DRIFT_PPM: i64 = 1_000;

impl Change {
    fn random(members: usize, hosts: usize, rng: &mut ChaCha8Rng) -> Self {
        // Two members are left at least.
        let first = if members > 2 { 0 } else { members };
        Self {
            host: rng.random_range(first..hosts),
            joins: rng.random_bool(0.5),
        }
    }
}

impl Plan {
    /// The plan of a seed's generator.
    pub fn random(rng: &mut ChaCha8Rng) -> Self {
        let members = [2, 2, 2, 3, 3, 4][rng.random_range(0..6)];
        let leased = rng.random_bool(0.8);
        // Electorates of 3 to 5.
        let fewest = 3_usize.saturating_sub(members);
        let witnesses = if leased {
            rng.random_range(fewest..=5 - members)
        } else {
            0
        };
        let hosts = members + witnesses;
        let mut faults = Vec::new();
        for _ in 0..rng.random_range(1..=4) {
            let begin = SETTLED + Duration::from_micros(rng.random_range(0..1_200_000));
            let length = Duration::from_micros(rng.random_range(5_000..600_000));
            let fault = Self::fault(members, hosts, rng);
            if rng.random_bool(0.15) {
                flap(&mut faults, begin, length, &fault, rng);
            } else {
                faults.push((begin, length, fault));
            }
        }
        let may_change = leased && hosts >= 4 && rng.random_bool(0.3);
        let change = may_change.then(|| Change::random(members, hosts, rng));
        if change.is_some() {
            reconfigure(&mut faults, hosts, rng);
        }
        let drift = |_| rng.random_range(-DRIFT_PPM..=DRIFT_PPM);
        let drift_ppm = (0..hosts).map(drift).collect();
        let mut plan = Self {
            members,
            witnesses,
            spares: 0,
            missed: Duration::from_millis(rng.random_range(40..300)),
            protection: if leased {
                Protection::Lease
            } else {
                Protection::None
            },
            drift_ppm,
            change,
            beyond: None,
            broken: None,
            lease: SUSPECT_AFTER,
            slowest: Duration::from_millis(3),
            replays: false,
            cold_unit: rng.random_bool(0.5),
            max_delay: Duration::from_micros(rng.random_range(100..6_000)),
            duplicated: rng.random_range(0..20),
            failing: if rng.random_bool(0.25) {
                rng.random_range(1..15)
            } else {
                0
            },
            faults,
            policy: Self::policy(rng),
            equal: rng.random_bool(0.3),
            healed_at: SETTLED,
        };
        if plan.change.is_none() && rng.random_bool(0.3) {
            plan.add_spares(rng.random_range(1..=2), rng);
        }
        plan.heal();
        plan
    }

    /// Adds spares, to which things happen as well.
    pub fn add_spares(&mut self, spares: usize, rng: &mut ChaCha8Rng) {
        self.spares = spares;
        let drift = |_| rng.random_range(-DRIFT_PPM..=DRIFT_PPM);
        let drifts: Vec<i64> = (0..spares).map(drift).collect();
        self.drift_ppm.extend(drifts);
        let host = self.hosts() - 1;
        let begin = SETTLED + Duration::from_micros(rng.random_range(0..1_200_000));
        let length = Duration::from_micros(rng.random_range(5_000..600_000));
        let fault = match rng.random_range(0..8) {
            0 => Fault::Crash(host),
            1 => Fault::Stall(host),
            2 => Fault::Isolate(host),
            3 => Fault::Restart(host),
            4 => Fault::Mute(host),
            5 => Fault::Deaf(host),
            _ => return,
        };
        self.faults.push((begin, length, fault));
    }

    /// Healed is when the last fault has ended.
    pub fn heal(&mut self) {
        let ends = self
            .faults
            .iter()
            .map(|(begin, length, _)| *begin + *length);
        self.healed_at = ends.max().unwrap_or(SETTLED);
    }

    fn policy(rng: &mut ChaCha8Rng) -> PolicySettings {
        let failback = Duration::from_millis(rng.random_range(50..300));
        PolicySettings {
            failback: rng.random_bool(0.4).then_some(failback),
            failback_window: None,
            // Of the same order as a run.
            flap: FlapSettings {
                half_life: Duration::from_secs(rng.random_range(1..10)),
                suppress: 1_500,
                reuse: 500,
            },
        }
    }

    /// Whether a lease protects the group.
    pub fn is_leased(&self) -> bool {
        self.protection == Protection::Lease
    }

    /// Members, witnesses and spares.
    pub fn hosts(&self) -> usize {
        self.voters() + self.spares
    }

    /// Members and witnesses.
    pub fn voters(&self) -> usize {
        self.members + self.witnesses
    }

    /// The host that is no voter before the set of voters changes, or after it did.
    pub fn outside(&self, changed: bool) -> Option<usize> {
        let change = self.change.filter(|change| change.joins != changed)?;
        Some(change.host)
    }

    /// Exceeds the bound that leases are made for.
    pub fn exceed(&mut self, beyond: Beyond) {
        self.beyond = Some(beyond);
        match beyond {
            Beyond::Drift(times) => {
                for drift in &mut self.drift_ppm {
                    *drift *= i64::from(times);
                }
                // Slow networks hide what fast clocks do.
                self.max_delay = (self.max_delay / 8).max(Duration::from_micros(100));
                self.slowest = Duration::from_micros(200);
            }
            Beyond::Pause => {
                for (_, _, fault) in &mut self.faults {
                    if let Fault::Stall(host) | Fault::Kill(host) | Fault::Isolate(host) = *fault {
                        *fault = Fault::Pause(host);
                    }
                }
            }
        }
    }

    fn fault(members: usize, hosts: usize, rng: &mut ChaCha8Rng) -> Fault {
        let host = rng.random_range(0..hosts);
        let member = host % members;
        match rng.random_range(0..23) {
            0 => Fault::Crash(host),
            1 => Fault::Kill(host),
            2 => Fault::Stall(host),
            3 => Fault::Stop(host),
            4 => Fault::Unit(member),
            5 => Fault::Link(host),
            6 | 7 => Fault::Isolate(host),
            8 => Fault::OneWay(host, (host + rng.random_range(1..hosts)) % hosts),
            9 => Fault::Deaf(host),
            10 => Fault::Mute(host),
            11 => Fault::Split(rng.random_range(1..1 << (hosts - 1))),
            12 => Fault::Loss(rng.random_range(1..60)),
            13 => Fault::Late(rng.random_range(1..40)),
            14 => Fault::Maintenance(member),
            15 => Fault::Freeze(member),
            16 | 17 => Fault::Restart(host),
            18 => Fault::Lend,
            19 => Fault::Starve(member),
            20 => Fault::Unready(member),
            _ => Fault::Handover,
        }
    }

    /// Whether nothing but planned handovers happens.
    pub fn only_handovers(&self) -> bool {
        self.failing == 0
            && self
                .faults
                .iter()
                .all(|(_, _, fault)| matches!(fault, Fault::Handover | Fault::Lend))
    }
}

/// The fault comes and goes.
fn flap(
    faults: &mut Faults,
    begin: Duration,
    length: Duration,
    fault: &Fault,
    rng: &mut ChaCha8Rng,
) {
    let period = Duration::from_micros(rng.random_range(4_000..80_000));
    let share = rng.random_range(0.1..0.9);
    let end = begin + length;
    let mut at = begin;
    while at < end && faults.len() < FAULTS_MAX {
        faults.push((at, period.mul_f64(share), fault.clone()));
        at += period;
    }
}

/// Every host gets the other set of voters, in any order: all at once, or one after the other.
fn reconfigure(faults: &mut Faults, hosts: usize, rng: &mut ChaCha8Rng) {
    let mut at = SETTLED + Duration::from_micros(rng.random_range(0..600_000));
    let apart = if rng.random_bool(0.5) {
        20_000
    } else {
        600_000
    };
    let mut order: Vec<usize> = (0..hosts).collect();
    for left in (1..hosts).rev() {
        order.swap(left, rng.random_range(0..=left));
    }
    for host in order {
        let length = Duration::from_micros(rng.random_range(1_000..60_000));
        faults.push((at, length, Fault::Reconfigure(host)));
        at += Duration::from_micros(rng.random_range(0..apart));
    }
}
