//! A group that is lent for a live drill: both sides of it.

use super::*;
use crate::facts::{LoanEnd, LoanPhase, LoanWord, PolicyOrder};

const SPAN: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(1);

fn lend() -> PolicyOrder {
    PolicyOrder::Lend {
        tag: 7,
        to: None,
        span: SPAN,
        patience: PATIENCE,
    }
}

fn says(role: Role, priority: u8, loan: Option<LoanWord>) -> Body {
    let policy = PolicyWord {
        loan,
        ..PolicyWord::default()
    };
    Body::Beat {
        role,
        priority,
        eligible: true,
        lease: Duration::ZERO,
        electorate: 0,
        policy,
    }
}

impl Bench {
    fn ask(&mut self, order: PolicyOrder) -> Result<Option<Name>, Refusal> {
        let answer = self.group.on_order(order, self.now);
        self.take();
        answer
    }

    /// `a` owned the group and has lent it to `b`, which owns it in epoch 2.
    fn lender() -> Self {
        let mut bench = Self::active(false);
        assert_eq!(bench.ask(lend()), Ok(Some(name("b"))));
        bench.hear(epoch(1, 1), Body::Ready { passes_back: None });
        bench.done(Done::VipsDropped { epoch: epoch(1, 1) });
        bench.hear(epoch(2, 2), active());
        assert_eq!(bench.role(), Role::Shadow);
        bench
    }

    /// `b` has lent the group to `a`, which owns it in epoch 1.
    fn borrower(back: bool) -> (Self, Body) {
        let word = LoanWord { epoch: 1, back };
        let mut bench = Self::active(false);
        bench.group.settings.policy.failback = Some(SUSPECT);
        (bench, says(Role::Shadow, 200, Some(word)))
    }

    fn phase(&self) -> Option<LoanPhase> {
        let loan = self.group.status(self.now).policy.loan;
        loan.map(|loan| loan.phase)
    }

    fn last_word(&self) -> Option<LoanWord> {
        let words = self.actions.iter().rev();
        let mut words = words.filter_map(|action| match action {
            Action::Send {
                body: Body::Beat { policy, .. },
                ..
            } => Some(policy.loan),
            _ => None,
        });
        words.next().flatten()
    }

    fn offers(&self) -> bool {
        self.said(|body| *body == Body::Offer { to: id(2) })
    }
}

#[test]
fn a_lender_asks_after_the_time_and_has_the_group_back_without_a_penalty() {
    let mut bench = Bench::lender();
    assert!(matches!(bench.phase(), Some(LoanPhase::Out { .. })));
    bench.pass(SPAN * 9 / 10, Some((epoch(2, 2), active())));
    let word = |back| Some(LoanWord { epoch: 2, back });
    assert_eq!(bench.last_word(), word(false));
    bench.pass(SPAN / 5, Some((epoch(2, 2), active())));
    assert_eq!(bench.last_word(), word(true));
    bench.actions.clear();
    let transfer = Body::Transfer {
        to: id(1),
        deadline: BootTime::default(),
        drain: None,
    };
    bench.hear(epoch(2, 2), transfer);
    assert!(bench.took().is_some());
    assert_eq!(bench.phase(), Some(LoanPhase::Ended(LoanEnd::Returned)));
    assert_eq!(bench.last_word(), None);
    let policy = bench.group.status(bench.now).policy;
    assert!(policy.flap_penalty < 1.0, "{policy:?}");
}

#[test]
fn a_borrower_that_dies_ends_the_loan_by_an_ordinary_failover() {
    let mut bench = Bench::lender();
    bench.actions.clear();
    bench.pass(SUSPECT * 20, None);
    assert!(bench.took().is_some());
    assert_eq!(bench.phase(), Some(LoanPhase::Ended(LoanEnd::Lost(None))));
}

#[test]
fn a_borrower_that_takes_the_offer_for_nothing_leaves_the_group_here() {
    let mut bench = Bench::active(false);
    bench.ask(lend()).unwrap();
    bench.pass(SUSPECT * 11, Some((epoch(1, 1), shadow(true))));
    assert_eq!(bench.role(), Role::Active);
    assert_eq!(bench.phase(), Some(LoanPhase::Ended(LoanEnd::NotTaken)));
}

#[test]
fn a_lender_that_cannot_own_asks_for_a_bounded_time() {
    let mut bench = Bench::lender();
    let theirs = Some((epoch(2, 2), active()));
    bench.pass(SPAN + PATIENCE / 2, theirs.clone());
    assert!(matches!(bench.phase(), Some(LoanPhase::Asking { .. })));
    bench.pass(PATIENCE, theirs);
    assert_eq!(bench.phase(), Some(LoanPhase::Ended(LoanEnd::Kept)));
    assert_eq!(bench.last_word(), None);
    assert_eq!(bench.ask(PolicyOrder::Recall), Err(Refusal::NoDrill));
}

#[test]
fn a_freeze_puts_the_return_off_and_a_restart_does_not_forget_it() {
    let mut bench = Bench::lender();
    let span = SPAN + PATIENCE * 4;
    let reason = String::new();
    bench.ask(PolicyOrder::Freeze { span, reason }).unwrap();
    let theirs = Some((epoch(2, 2), active()));
    bench.pass(SPAN + PATIENCE * 3, theirs.clone());
    assert!(matches!(bench.phase(), Some(LoanPhase::Asking { .. })));
    let memory = bench.group.remembered(bench.now);
    let mut again = Bench::shadow(false);
    again.group.restore(memory, PATIENCE / 2, again.now);
    again.hear(epoch(2, 2), active());
    assert_eq!(
        again.last_word().map(|word| word.back),
        None,
        "not said yet"
    );
    again.pass(HEARTBEAT * 2, theirs);
    assert_eq!(
        again.last_word(),
        Some(LoanWord {
            epoch: 2,
            back: true
        })
    );
}

#[test]
fn a_frozen_group_and_a_host_in_maintenance_are_not_lent() {
    let mut bench = Bench::active(false);
    let (span, reason) = (SPAN, String::new());
    bench.ask(PolicyOrder::Freeze { span, reason }).unwrap();
    assert_eq!(bench.ask(lend()), Err(Refusal::Ordered));
    assert_eq!(bench.phase(), None);
    bench.ask(PolicyOrder::Unfreeze).unwrap();
    assert_eq!(bench.ask(lend()), Ok(Some(name("b"))));
    let mut shadow = Bench::shadow(false);
    let refused = shadow.ask(lend());
    assert!(matches!(refused, Err(Refusal::NotActive { .. })));
}

#[test]
fn a_borrower_keeps_failback_away_and_hands_over_when_it_is_asked() {
    let (mut bench, lent) = Bench::borrower(false);
    bench.pass(SUSPECT * 20, Some((epoch(1, 1), lent)));
    assert!(!bench.offers(), "failback would end the drill early");
    let status = bench.group.status(bench.now).policy;
    assert_eq!(status.failback, None);
    assert_eq!(status.borrowed.unwrap().from, name("b"));
    let refused = bench.ask(lend());
    assert_eq!(refused, Err(Refusal::Borrowed(name("b"))));
    let (_, asked) = Bench::borrower(true);
    bench.hear(epoch(1, 1), asked);
    assert!(bench.offers());
}

#[test]
fn a_word_for_another_epoch_and_one_under_a_freeze_move_nothing() {
    let mut bench = Bench::active(false);
    let other = LoanWord {
        epoch: 9,
        back: true,
    };
    let other = says(Role::Shadow, 50, Some(other));
    bench.pass(SUSPECT * 4, Some((epoch(1, 1), other)));
    assert!(!bench.offers());
    let (mut bench, asked) = Bench::borrower(true);
    let (span, reason) = (SPAN, String::new());
    bench.ask(PolicyOrder::Freeze { span, reason }).unwrap();
    bench.pass(SPAN / 2, Some((epoch(1, 1), asked.clone())));
    assert!(!bench.offers(), "frozen");
    bench.pass(SPAN, Some((epoch(1, 1), asked)));
    assert!(bench.offers());
}

#[test]
fn an_operator_ends_a_loan_on_either_side() {
    let mut lender = Bench::lender();
    assert_eq!(lender.ask(PolicyOrder::Recall), Ok(None));
    assert_eq!(
        lender.last_word(),
        Some(LoanWord {
            epoch: 2,
            back: true
        })
    );
    let (mut borrower, lent) = Bench::borrower(false);
    assert_eq!(borrower.ask(PolicyOrder::Recall), Err(Refusal::NoDrill));
    borrower.hear(epoch(1, 1), lent);
    assert_eq!(borrower.ask(PolicyOrder::Recall), Ok(Some(name("b"))));
    assert!(borrower.offers());
}
