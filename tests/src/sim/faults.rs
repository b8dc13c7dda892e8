//! What a seed makes go wrong, and when.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use shadowd::config::settings::{FlapSettings, PolicySettings};
use shadowd::facts::Protection;

/// One thing that goes wrong, and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The host stops at once and comes back rebooted.
    Crash(usize),
    /// The daemon dies, its addresses stay; it is started again.
    Kill(usize),
    /// The daemon gets no turn (SIGSTOP, starvation) and goes on later.
    Stall(usize),
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
    /// Datagrams are lost, with this probability in percent.
    Loss(u8),
    /// An operator hands the group over, to whoever is best.
    Handover,
    /// An operator puts the host into maintenance, also when nobody else could own the group.
    Maintenance(usize),
    /// An operator freezes the group at the host, which ends by itself or by order at its end.
    Freeze(usize),
}

/// A run's cluster, network and faults.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Members of the group, 2 to 4.
    pub members: usize,
    /// Hosts that vote only, after the members.
    pub witnesses: usize,
    /// What protects the group.
    pub protection: Protection,
    /// By how much each host's clock is fast, in millionths.
    pub drift_ppm: Vec<i64>,
    /// Witnesses break the rule: they grant before what they promised ran out.
    pub broken: bool,
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
    pub faults: Vec<(Duration, Duration, Fault)>,
    /// Failback and the flap budget.
    pub policy: PolicySettings,
    /// Whether all members have the same priority.
    pub equal: bool,
    /// When the last fault ends.
    pub healed_at: Duration,
}

/// Faults begin after the cluster had time to settle.
const SETTLED: Duration = Duration::from_millis(700);
/// Clocks are off by at most this; the core's margin is for so much (`voter.rs`).
const DRIFT_PPM: i64 = 1_000;

impl Plan {
    /// The plan of a seed's generator.
    pub fn random(rng: &mut ChaCha8Rng) -> Self {
        let members = rng.random_range(2..=4);
        let witnesses = usize::from(rng.random_bool(0.6));
        let hosts = members + witnesses;
        let leased = hosts >= 3 && (witnesses > 0 || rng.random_bool(0.5));
        let mut faults = Vec::new();
        for _ in 0..rng.random_range(1..=4) {
            let begin = SETTLED + Duration::from_micros(rng.random_range(0..1_200_000));
            let length = Duration::from_micros(rng.random_range(5_000..600_000));
            faults.push((begin, length, Self::fault(members, hosts, rng)));
        }
        let healed_at = faults
            .iter()
            .map(|(begin, length, _)| *begin + *length)
            .max();
        let drift = |_| rng.random_range(-DRIFT_PPM..=DRIFT_PPM);
        let drift_ppm = (0..hosts).map(drift).collect();
        Self {
            members,
            witnesses: if leased { witnesses } else { 0 },
            protection: if leased {
                Protection::Lease
            } else {
                Protection::None
            },
            drift_ppm,
            broken: false,
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
            healed_at: healed_at.unwrap_or(SETTLED),
        }
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

    /// Members and witnesses.
    pub fn hosts(&self) -> usize {
        self.members + self.witnesses
    }

    fn fault(members: usize, hosts: usize, rng: &mut ChaCha8Rng) -> Fault {
        let host = rng.random_range(0..hosts);
        let member = host % members;
        match rng.random_range(0..15) {
            0 => Fault::Crash(host),
            1 => Fault::Kill(host),
            2 => Fault::Stall(host),
            3 => Fault::Stop(host),
            4 => Fault::Unit(member),
            5 => Fault::Link(host),
            6 => Fault::Isolate(host),
            7 => Fault::OneWay(host, (host + 1) % hosts),
            8 => Fault::Loss(rng.random_range(1..60)),
            9 => Fault::Maintenance(member),
            10 => Fault::Freeze(member),
            11..=12 => Fault::Restart(host),
            _ => Fault::Handover,
        }
    }

    /// Whether nothing but planned handovers happens.
    pub fn only_handovers(&self) -> bool {
        self.failing == 0
            && self
                .faults
                .iter()
                .all(|(_, _, fault)| *fault == Fault::Handover)
    }
}
