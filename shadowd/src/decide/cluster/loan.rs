//! The loan behind a live drill: what the lender knows of it. [`LoanPhase`] has the diagram.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::facts::{
    BootTime, Cause, Epoch, LoanEnd, LoanPhase, LoanStatus, LoanWord, Name, RememberedLoan,
};

/// One loan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Loan {
    tag: u64,
    /// The borrower; none before it was offered the group.
    to: Option<Name>,
    span: Duration,
    patience: Duration,
    pub phase: LoanPhase,
    /// The borrower's; [`Epoch::NONE`] before it was heard.
    epoch: Epoch,
    /// Since when this member has given the group up.
    left: Option<BootTime>,
    gap: Option<Duration>,
    disturbed: bool,
}

/// What the lender sees of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It owns the group, which is being offered.
    Offers,
    /// It owns the group.
    Owns,
    /// It has given the group up and tells nobody yet.
    Leaves,
    /// It begins to own the group, because of this.
    Gets(Cause),
    /// A member owns it, in this epoch.
    Follows(Name, Epoch),
    /// Nobody is known to.
    Nobody,
}

impl Loan {
    /// One that is about to begin, with nobody yet.
    pub fn new(tag: u64, span: Duration, patience: Duration) -> Self {
        Self {
            tag,
            to: None,
            span,
            patience,
            phase: LoanPhase::Handing,
            epoch: Epoch::NONE,
            left: None,
            gap: None,
            disturbed: false,
        }
    }

    /// The same, to this member.
    pub fn to(self, to: Name) -> Self {
        let to = Some(to);
        Self { to, ..self }
    }

    /// The same, with the borrower being asked for it.
    pub fn recalled(self, now: BootTime) -> Self {
        let phase = self.asking(now);
        Self { phase, ..self }
    }

    /// What the lender says of it.
    pub fn word(&self) -> Option<LoanWord> {
        let back = match self.phase {
            LoanPhase::Out { .. } => false,
            LoanPhase::Asking { .. } => true,
            LoanPhase::Handing | LoanPhase::Ended(_) => return None,
        };
        let epoch = self.epoch.counter;
        Some(LoanWord { epoch, back })
    }

    fn is(&self, name: &Name) -> bool {
        self.to.as_ref() == Some(name)
    }

    /// Takes a look; whether anything has changed.
    pub fn see(&mut self, seen: &Seen, now: BootTime) -> bool {
        let before = self.clone();
        if let (LoanPhase::Handing, Seen::Leaves) = (&self.phase, seen) {
            self.left.get_or_insert(now);
        }
        self.follow_epoch(seen);
        self.phase = self.next(seen, now);
        if before.phase == LoanPhase::Handing && self.word().is_some() {
            self.gap = self.left.map(|left| now.since(left));
        }
        *self != before
    }

    /// A borrower whose epoch changes has not owned the group all the time.
    fn follow_epoch(&mut self, seen: &Seen) {
        if let Seen::Follows(owner, epoch) = seen
            && self.is(owner)
        {
            let known = std::mem::replace(&mut self.epoch, *epoch);
            self.disturbed |= known != *epoch && known != Epoch::NONE;
        }
    }

    fn next(&self, seen: &Seen, now: BootTime) -> LoanPhase {
        let lost = |owner: &Name| LoanPhase::Ended(LoanEnd::Lost(Some(owner.clone())));
        match (&self.phase, seen) {
            (LoanPhase::Ended(end), _) => LoanPhase::Ended(end.clone()),
            (_, Seen::Follows(owner, _)) if !self.is(owner) => lost(owner),
            (LoanPhase::Handing, Seen::Offers | Seen::Leaves | Seen::Nobody) => LoanPhase::Handing,
            (LoanPhase::Handing, Seen::Owns | Seen::Gets(_)) => LoanPhase::Ended(LoanEnd::NotTaken),
            (LoanPhase::Handing, Seen::Follows(..)) => LoanPhase::Out {
                until: now.after(self.span),
            },
            (
                LoanPhase::Out { .. } | LoanPhase::Asking { .. },
                Seen::Gets(Cause::Handover) | Seen::Offers | Seen::Owns | Seen::Leaves,
            ) => LoanPhase::Ended(LoanEnd::Returned),
            (LoanPhase::Out { .. } | LoanPhase::Asking { .. }, Seen::Gets(_)) => {
                LoanPhase::Ended(LoanEnd::Lost(None))
            }
            (LoanPhase::Out { until }, Seen::Follows(..) | Seen::Nobody) => {
                if now >= *until || self.disturbed {
                    self.asking(now)
                } else {
                    LoanPhase::Out { until: *until }
                }
            }
            (LoanPhase::Asking { until }, Seen::Follows(..) | Seen::Nobody) => {
                if now >= *until {
                    LoanPhase::Ended(LoanEnd::Kept)
                } else {
                    LoanPhase::Asking { until: *until }
                }
            }
        }
    }

    fn asking(&self, now: BootTime) -> LoanPhase {
        let until = now.after(self.patience);
        LoanPhase::Asking { until }
    }

    /// While a freeze holds nothing moves: the time for asking begins when it ends.
    pub fn put_off(&mut self, now: BootTime) {
        if let LoanPhase::Asking { .. } = self.phase {
            self.phase = self.asking(now);
        }
    }

    pub fn sentence(&self) -> String {
        let to = self.to.as_ref().map_or("nobody", Name::as_str);
        match &self.phase {
            LoanPhase::Handing => format!("live: the group is offered to {to}"),
            LoanPhase::Out { .. } => {
                let span = self.span;
                format!("live: {to} owns the group, for {span:?}")
            }
            LoanPhase::Asking { .. } if self.disturbed => {
                format!("live: {to} lost the group meanwhile, and is asked for it")
            }
            LoanPhase::Asking { .. } => format!("live: {to} is asked for the group"),
            LoanPhase::Ended(LoanEnd::Returned) => format!("live: {to} gave the group back"),
            LoanPhase::Ended(LoanEnd::NotTaken) => format!("live: {to} did not take the group"),
            LoanPhase::Ended(LoanEnd::Lost(None)) => {
                format!("live: {to} lost the group, this host owns it")
            }
            LoanPhase::Ended(LoanEnd::Lost(Some(owner))) => {
                format!("live: {to} does not own the group any more, {owner} does")
            }
            LoanPhase::Ended(LoanEnd::Kept) => {
                let patience = self.patience;
                format!("live: {to} keeps the group: it was asked for {patience:?} in vain")
            }
        }
    }

    /// For people.
    pub fn status(&self) -> Option<LoanStatus> {
        Some(LoanStatus {
            tag: self.tag,
            to: self.to.clone()?,
            phase: self.phase.clone(),
            gap_ns: self.gap.map(nanos),
            disturbed: self.disturbed,
        })
    }

    /// What a restart should not forget, as of `now`. Of one that is being handed over nobody knows
    /// how that ends: the next daemon hears it.
    pub fn remembered(&self, now: BootTime) -> Option<RememberedLoan> {
        let (left, asking, ended) = match &self.phase {
            LoanPhase::Handing => (self.span, false, None),
            LoanPhase::Out { until } => (until.since(now), false, None),
            LoanPhase::Asking { until } => (until.since(now), true, None),
            LoanPhase::Ended(end) => (Duration::ZERO, false, Some(end.clone())),
        };
        Some(RememberedLoan {
            tag: self.tag,
            to: self.to.clone()?,
            epoch: self.epoch,
            left_ms: millis(left),
            patience_ms: millis(self.patience),
            asking,
            ended,
            gap_ns: self.gap.map(nanos),
            disturbed: self.disturbed,
        })
    }

    /// What was remembered `elapsed` ago. The time for asking counts from when the loan was to end,
    /// whether the daemon ran or not.
    pub fn restored(loan: RememberedLoan, elapsed: Duration, now: BootTime) -> Self {
        let left = Duration::from_millis(loan.left_ms);
        let patience = Duration::from_millis(loan.patience_ms);
        let over = elapsed.saturating_sub(left);
        let phase = match loan.ended {
            Some(end) => LoanPhase::Ended(end),
            None if loan.asking && over.is_zero() => LoanPhase::Asking {
                until: now.after(left - elapsed),
            },
            None if over.is_zero() => LoanPhase::Out {
                until: now.after(left - elapsed),
            },
            None if !loan.asking && over < patience => LoanPhase::Asking {
                until: now.after(patience - over),
            },
            None => LoanPhase::Ended(LoanEnd::Kept),
        };
        Self {
            tag: loan.tag,
            to: Some(loan.to),
            span: left,
            patience,
            phase,
            epoch: loan.epoch,
            left: None,
            gap: loan.gap_ns.map(Duration::from_nanos),
            disturbed: loan.disturbed,
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::HostId;

    const SPAN: Duration = Duration::from_secs(60);
    const PATIENCE: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> BootTime {
        BootTime::from_nanos(seconds * 1_000_000_000)
    }

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    fn epoch(counter: u64) -> Epoch {
        let owner = HostId::from_bytes([2; 32]);
        Epoch { counter, owner }
    }

    fn owned_by(owner: &str, counter: u64) -> Seen {
        Seen::Follows(name(owner), epoch(counter))
    }

    /// One to `b`, which is heard in epoch 2 unless it is still being handed over.
    fn loan(phase: LoanPhase) -> Loan {
        let known = phase != LoanPhase::Handing;
        Loan {
            to: Some(name("b")),
            phase,
            epoch: if known { epoch(2) } else { Epoch::NONE },
            ..Loan::new(7, SPAN, PATIENCE)
        }
    }

    #[test]
    fn every_phase_and_every_sight_has_its_next_phase() {
        use LoanPhase::{Asking, Ended, Handing, Out};
        let (out, asking) = (Out { until: at(60) }, Asking { until: at(90) });
        let ended = |end| Ended(end);
        let lost = || ended(LoanEnd::Lost(Some(name("c"))));
        let (taken, returned) = (ended(LoanEnd::Lost(None)), ended(LoanEnd::Returned));
        let refused = || ended(LoanEnd::NotTaken);
        let silence = || Seen::Gets(Cause::Silence);
        let back = || Seen::Gets(Cause::Handover);
        let table = [
            (Handing, Seen::Offers, 1, Handing),
            (Handing, Seen::Leaves, 1, Handing),
            (Handing, Seen::Nobody, 1, Handing),
            (Handing, Seen::Owns, 1, refused()),
            (Handing, silence(), 1, refused()),
            (Handing, back(), 1, refused()),
            (Handing, owned_by("b", 2), 1, Out { until: at(61) }),
            (Handing, owned_by("c", 2), 1, lost()),
            (out.clone(), Seen::Nobody, 1, out.clone()),
            (out.clone(), owned_by("b", 2), 59, out.clone()),
            (out.clone(), owned_by("b", 2), 60, asking.clone()),
            (out.clone(), Seen::Nobody, 60, asking.clone()),
            // The borrower lost it and has it again: it goes back at once.
            (out.clone(), owned_by("b", 3), 1, Asking { until: at(31) }),
            (out.clone(), owned_by("c", 3), 1, lost()),
            (out.clone(), back(), 1, returned.clone()),
            (out.clone(), silence(), 1, taken.clone()),
            (out, Seen::Owns, 1, returned.clone()),
            (asking.clone(), owned_by("b", 2), 89, asking.clone()),
            (asking.clone(), owned_by("b", 2), 90, ended(LoanEnd::Kept)),
            (asking.clone(), Seen::Nobody, 90, ended(LoanEnd::Kept)),
            (asking.clone(), owned_by("c", 3), 61, lost()),
            (asking.clone(), back(), 61, returned.clone()),
            (asking, silence(), 61, taken.clone()),
            (returned.clone(), owned_by("c", 9), 99, returned),
            (taken.clone(), back(), 99, taken),
        ];
        for (phase, seen, now, next) in table {
            let mut loan = loan(phase.clone());
            loan.see(&seen, at(now));
            assert_eq!(loan.phase, next, "{phase:?}, {seen:?} at {now} s");
        }
    }

    #[test]
    fn the_gap_is_from_when_the_lender_leaves_until_the_borrower_is_heard() {
        let mut loan = loan(LoanPhase::Handing);
        for (seen, now) in [
            (Seen::Offers, 1),
            (Seen::Leaves, 2),
            (Seen::Leaves, 3),
            (Seen::Nobody, 4),
            (owned_by("b", 2), 5),
            (owned_by("b", 2), 9),
        ] {
            loan.see(&seen, at(now));
        }
        let status = loan.status().expect("it has a borrower");
        assert_eq!(status.gap_ns, Some(3_000_000_000));
        assert!(!status.disturbed);
        assert_eq!(
            loan.word(),
            Some(LoanWord {
                epoch: 2,
                back: false
            })
        );
        loan.see(&owned_by("b", 4), at(10));
        assert!(loan.status().is_some_and(|status| status.disturbed));
        assert_eq!(
            loan.word(),
            Some(LoanWord {
                epoch: 4,
                back: true
            })
        );
    }

    #[test]
    fn a_restart_forgets_nothing_and_time_goes_on_without_the_daemon() {
        use LoanPhase::{Asking, Ended, Handing, Out};
        let kept = || Ended(LoanEnd::Kept);
        let second = Duration::from_secs(1);
        let table = [
            (Out { until: at(60) }, 20, Out { until: at(40) }),
            (Out { until: at(60) }, 70, Asking { until: at(20) }),
            (Out { until: at(60) }, 90, kept()),
            (Asking { until: at(20) }, 5, Asking { until: at(15) }),
            (Asking { until: at(20) }, 21, kept()),
            (Handing, 5, Out { until: at(55) }),
            (Ended(LoanEnd::NotTaken), 5, Ended(LoanEnd::NotTaken)),
        ];
        for (phase, elapsed, expected) in table {
            let before = loan(phase.clone());
            let memory = before.remembered(at(0)).expect("it has a borrower");
            let after = Loan::restored(memory, second * elapsed, at(0));
            assert_eq!(after.phase, expected, "{phase:?} after {elapsed} s");
            assert_eq!((after.tag, after.epoch), (before.tag, before.epoch));
        }
    }
}
