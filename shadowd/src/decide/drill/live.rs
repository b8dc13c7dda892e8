//! What a live drill does next, and what came of it.
//!
//! The core of the group lends and asks back ([`LoanPhase`]); this looks at how far that is, has the
//! checks made meanwhile, ends the loan early when one fails, and judges. The checks are made on the
//! host that lent the group, over the link, as a client would: so not before the connections of its
//! own have ended, while which the addresses are here as well.
//!
//! | phase | addresses here | a check failed | next |
//! |---|---|---|---|
//! | `Handing` | | | wait |
//! | `Out` | yes | | wait |
//! | `Out` | no | no | check, again after [`AGAIN`] |
//! | `Out` | | yes | recall, once |
//! | `Asking` | | | wait |
//! | `Ended` | | | end |
//! | no such loan | | | end |

use std::time::Duration;

use crate::facts::{BootTime, DrillState, LoanEnd, LoanPhase, LoanStatus};

/// Between two rounds of checks.
const AGAIN: Duration = Duration::from_secs(15);

/// What a live drill sees at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its loan; none when the core knows of none.
    pub loan: Option<&'a LoanStatus>,
    /// The virtual IPs are on this host: a check would ask itself.
    pub holds: bool,
}

/// What a live drill does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until something has changed or this moment has come.
    Wait(Option<BootTime>),
    /// Makes every check once and says what came of them ([`Course::on_checked`]).
    Check,
    /// Asks for the group now.
    Recall,
    /// It is over: the verdict and, unless it passed, why.
    End(DrillState, String),
}

/// The course of one live drill.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// Whether there is anything to check.
    checks: bool,
    rounds: u32,
    failed: Option<String>,
    recalled: bool,
    /// When the checks are made next; none before the first time.
    again: Option<BootTime>,
}

impl Course {
    /// One that begins, or goes on after `rounds` of checks of which the first failure was `failed`.
    pub fn new(checks: bool, rounds: u32, failed: Option<String>) -> Self {
        Self {
            checks,
            rounds,
            failed,
            ..Self::default()
        }
    }

    /// What is to be done at `now`.
    pub fn next(&mut self, seen: Seen<'_>, now: BootTime) -> Next {
        let Some(loan) = seen.loan else {
            let why = "nobody remembers to whom the group was lent".to_owned();
            return Next::End(DrillState::Failed, why);
        };
        match &loan.phase {
            LoanPhase::Handing | LoanPhase::Asking { .. } => Next::Wait(None),
            LoanPhase::Out { .. } if self.failed.is_some() => {
                if std::mem::replace(&mut self.recalled, true) {
                    Next::Wait(None)
                } else {
                    Next::Recall
                }
            }
            LoanPhase::Out { .. } if seen.holds || !self.checks => Next::Wait(None),
            LoanPhase::Out { .. } => match self.again {
                Some(again) if now < again => Next::Wait(Some(again)),
                Some(_) | None => Next::Check,
            },
            LoanPhase::Ended(end) => self.judge(loan, end),
        }
    }

    /// Every check was made: `Err` says which failed first and how.
    pub fn on_checked(&mut self, result: Result<(), String>, now: BootTime) {
        self.rounds = self.rounds.saturating_add(1);
        self.again = Some(now.after(AGAIN));
        if let Err(why) = result {
            self.failed.get_or_insert(why);
        }
    }

    /// How often every check was made.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    fn judge(&self, loan: &LoanStatus, end: &LoanEnd) -> Next {
        let to = &loan.to;
        let stays = match end {
            LoanEnd::Returned => None,
            LoanEnd::NotTaken => Some(format!("{to} did not take the group: it is here")),
            LoanEnd::Lost(None) => Some(format!("{to} lost the group: this host took it over")),
            LoanEnd::Lost(Some(owner)) => Some(format!(
                "{to} does not own the group any more: {owner} does, and it stays there"
            )),
            LoanEnd::Kept => Some(format!(
                "not returned: this host could not take the group back in time, it stays on {to}"
            )),
        };
        let why = match (&self.failed, stays) {
            (Some(failed), None) => failed.clone(),
            (Some(failed), Some(stays)) => format!("{failed}; {stays}"),
            (None, Some(stays)) => stays,
            (None, None) if loan.disturbed => {
                format!("{to} did not own the group all the time; it was returned")
            }
            (None, None) if self.checks && self.rounds == 0 => {
                "no check could be made: this host served connections of before until the end"
                    .to_owned()
            }
            (None, None) => return Next::End(DrillState::Passed, String::new()),
        };
        Next::End(DrillState::Failed, why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_nanos(seconds * 1_000_000_000)
    }

    fn loan(phase: LoanPhase) -> LoanStatus {
        LoanStatus {
            tag: 1,
            to: "b".parse().expect("a name"),
            phase,
            gap_ns: None,
            disturbed: false,
        }
    }

    fn passed() -> Next {
        Next::End(DrillState::Passed, String::new())
    }

    fn is_failed(next: Next, word: &str) -> bool {
        matches!(next, Next::End(DrillState::Failed, why) if why.contains(word))
    }

    #[test]
    fn each_phase_has_its_next_step() {
        let out = || LoanPhase::Out { until: at(60) };
        let asking = LoanPhase::Asking { until: at(99) };
        let failed = Some("check http: 500");
        let table = [
            (LoanPhase::Handing, false, 0, None, Next::Wait(None)),
            (LoanPhase::Handing, true, 0, failed, Next::Wait(None)),
            (out(), true, 0, None, Next::Wait(None)),
            (out(), false, 0, None, Next::Check),
            (out(), true, 1, failed, Next::Recall),
            (out(), false, 1, failed, Next::Recall),
            (asking.clone(), false, 1, None, Next::Wait(None)),
            (asking, false, 1, failed, Next::Wait(None)),
            (LoanPhase::Ended(LoanEnd::Returned), true, 1, None, passed()),
        ];
        for (phase, holds, rounds, failed, next) in table {
            let mut course = Course::new(true, rounds, failed.map(str::to_owned));
            let loan = loan(phase);
            let seen = Seen {
                loan: Some(&loan),
                holds,
            };
            assert_eq!(
                course.next(seen, at(1)),
                next,
                "{loan:?} {holds} {failed:?}"
            );
        }
    }

    #[test]
    fn checks_are_made_again_and_the_first_failure_ends_the_loan_once() {
        let loan = loan(LoanPhase::Out { until: at(600) });
        let seen = Seen {
            loan: Some(&loan),
            holds: false,
        };
        let mut course = Course::new(true, 0, None);
        assert_eq!(course.next(seen, at(1)), Next::Check);
        course.on_checked(Ok(()), at(2));
        assert_eq!(course.next(seen, at(3)), Next::Wait(Some(at(17))));
        assert_eq!(course.next(seen, at(17)), Next::Check);
        course.on_checked(Err("check a: exit 1".to_owned()), at(18));
        assert_eq!(course.rounds(), 2);
        assert_eq!(course.next(seen, at(18)), Next::Recall);
        assert_eq!(course.next(seen, at(19)), Next::Wait(None));
        let mut none = Course::new(false, 0, None);
        assert_eq!(none.next(seen, at(1)), Next::Wait(None));
    }

    #[test]
    fn only_what_came_back_undisturbed_and_checked_has_passed() {
        let b = "b".parse().expect("a name");
        let broken = Some("check http: 500");
        let table = [
            (LoanEnd::Returned, 1, None, ""),
            (LoanEnd::Returned, 0, None, "no check could be made"),
            (LoanEnd::Returned, 1, broken, "check http: 500"),
            (LoanEnd::NotTaken, 0, None, "did not take the group"),
            (LoanEnd::Lost(None), 1, None, "took it over"),
            (LoanEnd::Lost(Some(b)), 1, None, "b does, and it stays"),
            (LoanEnd::Kept, 1, None, "stays on b"),
            (LoanEnd::Kept, 1, broken, "check http: 500; not returned"),
        ];
        for (end, rounds, failed, why) in table {
            let mut loan = loan(LoanPhase::Ended(end.clone()));
            let mut course = Course::new(true, rounds, failed.map(str::to_owned));
            let seen = Seen {
                loan: Some(&loan),
                holds: true,
            };
            let next = course.next(seen, at(1));
            if why.is_empty() {
                assert_eq!(next, passed(), "{end:?}");
            } else {
                assert!(is_failed(next, why), "{end:?} {failed:?}");
            }
            loan.disturbed = true;
            let seen = Seen {
                loan: Some(&loan),
                holds: true,
            };
            assert_ne!(course.next(seen, at(1)), passed(), "{end:?}");
        }
        let mut forgotten = Course::new(false, 0, None);
        let seen = Seen {
            loan: None,
            holds: false,
        };
        assert!(is_failed(forgotten.next(seen, at(1)), "nobody remembers"));
    }

    #[test]
    fn a_group_without_checks_passes_by_going_and_coming_back() {
        let loan = loan(LoanPhase::Ended(LoanEnd::Returned));
        let seen = Seen {
            loan: Some(&loan),
            holds: true,
        };
        assert_eq!(Course::new(false, 0, None).next(seen, at(1)), passed());
    }
}
