//! Whether two hosts answered for an address at the same instant. Pure: frames and events in,
//! verdict out.
//!
//! Each answer belongs to the newest claim of its host. All answers of one claim are a span; the
//! spans of two hosts may not overlap, in the order of their epochs. Frames are compared by the
//! kernel's nanoseconds, without any allowance. What the frames show needs no event but the claims;
//! what the events say besides (released, lapsed, claimed by another) is held against the frames
//! too.

use std::collections::BTreeMap;

use super::answer::{Answer, Kind, Vip};
use super::record::{Lapse, Mark, Record};

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// A newer owner had answered before: two hosts answer.
    Overlaps,
    /// The host had never claimed the group.
    Unclaimed,
    /// Two hosts answered in the same epoch.
    SharesEpoch,
    /// A newer owner, which answered later, had claimed before.
    AfterNewerClaim,
    /// The host itself had given this epoch up before.
    AfterRelease,
    /// The host's lease had run out.
    AfterDeadline,
}

impl Wrong {
    /// In words.
    pub const fn says(self) -> &'static str {
        match self {
            Self::Overlaps => "answered although a newer owner had answered",
            Self::Unclaimed => "answered without a claim",
            Self::SharesEpoch => "answered in another host's epoch",
            Self::AfterNewerClaim => "answered although a newer owner had claimed",
            Self::AfterRelease => "answered although it had given the epoch up",
            Self::AfterDeadline => "answered although its lease had run out",
        }
    }
}

/// Answers of one host for one address in one epoch that should not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong.
    pub wrong: Wrong,
    /// For which address.
    pub vip: Vip,
    /// The number of the host.
    pub host: u8,
    /// The epoch of its newest claim; 0 without one.
    pub epoch: u64,
    /// The first such answer.
    pub first_ns: u64,
    /// The last.
    pub last_ns: u64,
    /// How many there are.
    pub frames: u64,
}

/// An address went from one host to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Which address.
    pub vip: Vip,
    /// Who had it.
    pub from: u8,
    /// Who got it.
    pub to: u8,
    /// The last answer of the old owner.
    pub last_ns: u64,
    /// The first answer of the new one.
    pub first_ns: u64,
    /// Its first announcement.
    pub announced_ns: Option<u64>,
}

impl Transition {
    /// From the last answer of the old owner to the first of the new one; negative when both
    /// answered.
    pub const fn gap_ns(&self) -> i64 {
        self.first_ns as i64 - self.last_ns as i64
    }
}

/// What the frames show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What should not be.
    pub violations: Vec<Violation>,
    /// Moves of an address, in order.
    pub transitions: Vec<Transition>,
}

#[derive(Clone, Copy)]
struct Span {
    first_ns: u64,
    last_ns: u64,
    announced_ns: Option<u64>,
}

/// Address, epoch, host.
type Owner = (Vip, u64, u8);

/// Judges answers, whatever their order.
pub fn judge(answers: &[Answer], record: &Record) -> Verdict {
    let mut answers: Vec<Answer> = answers.to_vec();
    answers.sort_by_key(|answer| answer.at_ns);
    let reigns = Reigns::of(record);
    let mut found = Findings::default();
    let mut spans = BTreeMap::<Owner, Span>::new();
    for answer in &answers {
        let Some(reign) = reigns.newest(answer) else {
            found.add(Wrong::Unclaimed, 0, answer);
            continue;
        };
        let epoch = reign.claim.epoch;
        if reign.released_ns.is_some_and(|end| end < answer.at_ns) {
            found.add(Wrong::AfterRelease, epoch, answer);
        }
        if reign.is_lapsed(answer.at_ns) {
            found.add(Wrong::AfterDeadline, epoch, answer);
        }
        let span = spans
            .entry((answer.vip, epoch, answer.host))
            .or_insert(Span {
                first_ns: answer.at_ns,
                last_ns: answer.at_ns,
                announced_ns: None,
            });
        span.last_ns = answer.at_ns;
        if answer.kind == Kind::Announcement {
            span.announced_ns.get_or_insert(answer.at_ns);
        }
    }
    for ((vip, epoch, host), wrong, since_ns) in trespassers(&spans, record) {
        for answer in &answers {
            let is_own = answer.vip == vip && answer.host == host && answer.at_ns >= since_ns;
            if is_own
                && reigns
                    .newest(answer)
                    .is_some_and(|reign| reign.claim.epoch == epoch)
            {
                found.add(wrong, epoch, answer);
            }
        }
    }
    Verdict {
        violations: found.0.into_values().collect(),
        transitions: transitions(&spans),
    }
}

/// Spans that reach into a newer owner's, with the moment from which on they do.
fn trespassers(spans: &BTreeMap<Owner, Span>, record: &Record) -> Vec<(Owner, Wrong, u64)> {
    let mut found = Vec::new();
    for (owner, span) in spans {
        let (vip, epoch, host) = *owner;
        let mut worst: Option<(Wrong, u64)> = None;
        for ((other_vip, other_epoch, other_host), other) in spans {
            if *other_vip != vip || *other_host == host || *other_epoch < epoch {
                continue;
            }
            let claim = record
                .claims
                .iter()
                .find(|mark| mark.host == *other_host && mark.epoch == *other_epoch);
            let claimed_ns = claim.map_or(other.first_ns, |mark| mark.at_ns);
            let wrong = match (*other_epoch == epoch, span.last_ns >= other.first_ns) {
                (true, _) => (Wrong::SharesEpoch, 0),
                (false, true) => (Wrong::Overlaps, other.first_ns),
                (false, false) if span.last_ns >= claimed_ns => {
                    (Wrong::AfterNewerClaim, claimed_ns)
                }
                (false, false) => continue,
            };
            worst = Some(worst.map_or(wrong, |worst| worst.min(wrong)));
        }
        found.extend(worst.map(|(wrong, since_ns)| (*owner, wrong, since_ns)));
    }
    found
}

fn transitions(spans: &BTreeMap<Owner, Span>) -> Vec<Transition> {
    let mut found = Vec::new();
    let mut before: Option<(Owner, Span)> = None;
    for (owner, span) in spans {
        if let Some(((vip, _, from), old)) = before
            && vip == owner.0
            && from != owner.2
        {
            found.push(Transition {
                vip,
                from,
                to: owner.2,
                last_ns: old.last_ns,
                first_ns: span.first_ns,
                announced_ns: span.announced_ns,
            });
        }
        before = Some((*owner, *span));
    }
    found.sort_by_key(|transition| transition.first_ns);
    found
}

/// Ownerships by host in the order of time, so that each answer finds its own quickly.
struct Reigns(BTreeMap<u8, Vec<Reign>>);

/// A claim and what is known of its end.
struct Reign {
    claim: Mark,
    released_ns: Option<u64>,
    lapses: Vec<Lapse>,
}

impl Reigns {
    fn of(record: &Record) -> Self {
        let mut by_host = BTreeMap::<u8, Vec<Reign>>::new();
        let mut claims = record.claims.clone();
        claims.sort_by_key(|mark| (mark.at_ns, mark.epoch));
        for claim in claims {
            let is_same = |mark: &&Mark| mark.host == claim.host && mark.epoch == claim.epoch;
            let lapses = record
                .lapses
                .iter()
                .filter(|lapse| lapse.host == claim.host);
            let ends_after = |lapse: &&Lapse| lapse.until_ns.is_none_or(|end| end > claim.at_ns);
            by_host.entry(claim.host).or_default().push(Reign {
                claim,
                released_ns: record.releases.iter().find(is_same).map(|mark| mark.at_ns),
                lapses: lapses.filter(ends_after).copied().collect(),
            });
        }
        // A lapse belongs to the claim before it only.
        for reigns in by_host.values_mut() {
            for place in 1..reigns.len() {
                let end = reigns[place].claim.at_ns;
                reigns[place - 1].lapses.retain(|lapse| lapse.from_ns < end);
            }
        }
        Self(by_host)
    }

    fn newest(&self, answer: &Answer) -> Option<&Reign> {
        let reigns = self.0.get(&answer.host)?;
        let later = reigns.partition_point(|reign| reign.claim.at_ns <= answer.at_ns);
        reigns[..later].last()
    }
}

impl Reign {
    fn is_lapsed(&self, at_ns: u64) -> bool {
        self.lapses
            .iter()
            .any(|lapse| lapse.from_ns < at_ns && lapse.until_ns.is_none_or(|until| at_ns < until))
    }
}

#[derive(Default)]
struct Findings(BTreeMap<(Wrong, Vip, u8, u64), Violation>);

impl Findings {
    fn add(&mut self, wrong: Wrong, epoch: u64, answer: &Answer) {
        let key = (wrong, answer.vip, answer.host, epoch);
        let violation = self.0.entry(key).or_insert(Violation {
            wrong,
            vip: answer.vip,
            host: answer.host,
            epoch,
            first_ns: answer.at_ns,
            last_ns: answer.at_ns,
            frames: 0,
        });
        violation.last_ns = answer.at_ns;
        violation.frames += 1;
    }
}

#[cfg(test)]
mod tests;
