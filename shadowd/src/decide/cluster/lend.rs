//! Lending the group for a live drill: this owner hands it over for a time, and asks for it after.
//!
//! Only the lender remembers. What it says with each heartbeat keeps failback away from the group
//! and, once the time is over, has the borrower begin a planned handover like any other: a lender
//! that is not ready does not get it, and nothing moves under a freeze.

use super::group::{Group, State, View};
use super::handover::Refusal;
use super::loan::{Loan, Seen};
use crate::facts::{BootTime, Cause, EventKind, LoanPhase, Name};

impl Group {
    /// Hands the group over as `loan` says.
    pub(super) fn lend(
        &mut self,
        to: Option<&Name>,
        loan: Loan,
        now: BootTime,
    ) -> Result<Name, Refusal> {
        if self.frozen(now) || self.in_maintenance(now) {
            return Err(Refusal::Ordered);
        }
        if self.owned().is_some()
            && let Some((lender, _)) = self.lender()
        {
            return Err(Refusal::Borrowed(lender.clone()));
        }
        let to = self.offer(to, Cause::Drill, now)?;
        self.note_loan(loan.to(to.clone()), now);
        Ok(to)
    }

    /// What was lent goes back now. A borrower hands it over; whom to.
    pub(super) fn recall(&mut self, now: BootTime) -> Result<Option<Name>, Refusal> {
        match self.policy.loan.clone() {
            Some(loan) if loan.word().is_some() => {
                if let LoanPhase::Out { .. } = loan.phase {
                    self.note_loan(loan.recalled(now), now);
                }
                Ok(None)
            }
            Some(_) | None => match self.lender() {
                Some((lender, _)) if self.owned().is_some() => {
                    let lender = lender.clone();
                    self.offer(Some(&lender), Cause::Drill, now).map(Some)
                }
                Some(_) | None => Err(Refusal::NoDrill),
            },
        }
    }

    fn note_loan(&mut self, loan: Loan, now: BootTime) {
        let said = loan.sentence();
        self.policy.loan = Some(loan);
        self.policy.changes += 1;
        self.record(EventKind::Drill, Some(Cause::Drill), said, now);
    }

    /// Who lent the group that is owned in the newest epoch, and whether it asks for it.
    pub(super) fn lender(&self) -> Option<(&Name, bool)> {
        let epoch = self.active_epoch().unwrap_or(self.newest);
        let own = self.policy.loan.as_ref().and_then(Loan::word);
        let own = own.map(|word| (&self.me.name, word));
        let others = self.members.iter().filter(|member| member.alive());
        let others = others.filter_map(|member| Some((&member.name, member.said?.loan?)));
        let mut words = own.into_iter().chain(others);
        let (lender, word) = words.find(|(_, word)| word.epoch == epoch.counter)?;
        Some((lender, word.back))
    }

    pub(super) fn review_loan(&mut self, now: BootTime) {
        let seen = match &self.state {
            State::Active(active) if active.offer.is_some() => Seen::Offers,
            State::Active(_) => Seen::Owns,
            State::Leaving { .. } => Seen::Leaves,
            // The newest epoch is the owner's, unless somebody asks for one.
            State::Shadow(View::Follows { member, .. })
                if self.newest.owner == self.members[*member].id =>
            {
                Seen::Follows(self.members[*member].name.clone(), self.newest)
            }
            State::Shadow(_) | State::Joining { .. } | State::Stopped => Seen::Nobody,
        };
        let frozen = self.frozen(now);
        if let Some(loan) = &mut self.policy.loan
            && frozen
        {
            loan.put_off(now);
        }
        self.see_loan(&seen, now);
    }

    /// This member begins to own the group because of `cause`.
    pub(super) fn loan_ends_here(&mut self, cause: Cause, now: BootTime) {
        if self.owned().is_none() {
            self.see_loan(&Seen::Gets(cause), now);
        }
    }

    fn see_loan(&mut self, seen: &Seen, now: BootTime) {
        let Some(mut loan) = self.policy.loan.take() else {
            return;
        };
        let before = loan.phase.clone();
        let changed = loan.see(seen, now);
        if loan.phase != before {
            self.record(EventKind::Drill, Some(Cause::Drill), loan.sentence(), now);
        }
        self.policy.changes += u64::from(changed);
        self.policy.loan = Some(loan);
    }
}
