//! The faults that a seed gives, and their moments. Pure.

use std::fmt;
use std::time::Duration;

use super::fault::Kind;
use crate::random::Random;

/// What is done in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The fault.
    pub kind: Kind,
    /// From a group that is well to the fault.
    pub phase: Duration,
    /// How long it lasts, after another host answers if it lasts until then.
    pub lasts: Duration,
    /// Another fault that begins so much later, before the first is undone.
    pub second: Option<(Kind, Duration)>,
}

impl Step {
    /// Whether it lasts at least until another host answers.
    pub const fn until_takeover(&self) -> bool {
        self.kind.lasts_ms().2
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        match self.second {
            Some((kind, _)) => write!(f, " + {}", kind.name()),
            None => Ok(()),
        }
    }
}

/// One round in so many has a second fault.
const OVERLAPPING: usize = 5;
/// A whole number of heartbeats, so that faults meet every part of one.
const PHASE: Duration = Duration::from_millis(100);
/// The second fault begins while the first is being noticed.
const APART: Duration = Duration::from_millis(150);
/// What a short plan must have.
const ESSENTIAL: [Kind; 3] = [Kind::StopActive, Kind::KillActive, Kind::FreezeActive];

/// The steps that a seed gives: decks of all kinds, each shuffled.
pub fn plan(seed: u64, faults: usize) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut kinds: Vec<Kind> = Vec::new();
    while kinds.len() < faults {
        let mut deck = match faults < Kind::ALL.len() {
            true => short(&mut random, faults),
            false => whole(),
        };
        shuffle(&mut deck, &mut random);
        kinds.extend(deck);
    }
    kinds.truncate(faults);
    kinds
        .into_iter()
        .map(|kind| step(kind, &mut random))
        .collect()
}

fn whole() -> Vec<Kind> {
    let every = Kind::ALL.into_iter();
    every
        .flat_map(|kind| std::iter::repeat_n(kind, kind.weight()))
        .collect()
}

/// The essential kinds first, then others, none twice before all came once.
fn short(random: &mut Random, faults: usize) -> Vec<Kind> {
    let mut others: Vec<Kind> = Kind::ALL.to_vec();
    others.retain(|kind| !ESSENTIAL.contains(kind));
    shuffle(&mut others, random);
    ESSENTIAL.into_iter().chain(others).take(faults).collect()
}

fn step(kind: Kind, random: &mut Random) -> Step {
    let (least, most, _) = kind.lasts_ms();
    let spread = Duration::from_millis(most - least);
    let lasts = Duration::from_millis(least) + random.below(spread);
    let phase = random.below(PHASE);
    let (is_second, other, apart) = (
        random.number(OVERLAPPING) == 0,
        Kind::ALL[random.number(Kind::ALL.len())],
        random.below(APART),
    );
    Step {
        kind,
        phase,
        lasts,
        second: (is_second && other != kind && other.comes_from_outside())
            .then_some((other, apart)),
    }
}

fn shuffle(kinds: &mut [Kind], random: &mut Random) {
    for last in (1..kinds.len()).rev() {
        kinds.swap(last, random.number(last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(steps: &[Step], kind: Kind) -> usize {
        steps.iter().filter(|step| step.kind == kind).count()
    }

    #[test]
    fn a_seed_gives_the_same_plan_and_another_seed_another() {
        assert_eq!(plan(7, 50), plan(7, 50));
        assert_ne!(plan(7, 50), plan(8, 50));
    }

    #[test]
    fn a_long_plan_has_every_kind_and_a_short_one_what_matters() {
        let long = plan(3, 200);
        assert_eq!(long.len(), 200);
        assert!(Kind::ALL.into_iter().all(|kind| count(&long, kind) >= 7));
        assert!(count(&long, Kind::StopActive) >= 35);
        assert!(long.iter().any(|step| step.second.is_some()));
        for seed in 0..20 {
            let short = plan(seed, 12);
            assert_eq!(short.len(), 12);
            assert!(ESSENTIAL.into_iter().all(|kind| count(&short, kind) == 1));
        }
    }

    #[test]
    fn times_are_within_their_bounds() {
        for step in plan(11, 300) {
            let (least, most, _) = step.kind.lasts_ms();
            let ms = step.lasts.as_millis() as u64;
            assert!(least <= ms && ms <= most && step.phase < PHASE, "{step:?}");
        }
    }
}
