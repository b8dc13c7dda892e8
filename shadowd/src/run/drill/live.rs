//! A live drill: another member owns the group for a time, and this host has it checked meanwhile.
//!
//! The core of the group lends the group and asks for it ([`crate::facts::LoanPhase`]); this follows
//! that, makes the checks and judges. A daemon that starts goes on with what the one before it began.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::{Drills, millis, words};
use crate::act::drill::{self as place, Probe};
use crate::act::hooks::{End, Run};
use crate::config::settings::{CheckKind, CheckSettings};
use crate::decide::drill::{Course, Next, Seen};
use crate::facts::{
    DrillReport, DrillState, EventKind, GroupStatus, LiveDrill, LoanEnd, LoanPhase, LoanStatus,
    Name, PolicyOrder,
};
use crate::observe::sys::boot_time;
use crate::run::failover::Input;
use crate::run::handovers::OrderReply;
use crate::run::record::wall_ms;
use crate::serve::protocol::{Code, HANDOVER_TIMEOUT, LiveRequest, OrderDone, Refusal};

/// A check that needs no program reports by itself so long before its deadline.
const BEFORE_DEADLINE: Duration = Duration::from_millis(300);
/// A daemon that goes on with a drill knows its groups within this time.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);

impl Drills {
    /// Begins a live drill of `name`: returns when the group is being handed over.
    pub async fn begin_live(
        self: &Arc<Self>,
        name: &Name,
        wanted: LiveRequest,
    ) -> Result<DrillReport, Refusal> {
        let (number, seen) = self.member_of(name)?;
        let turn = self.take_turn()?;
        let (tag, span) = (wall_ms(), Duration::from_secs(wanted.for_s));
        let order = PolicyOrder::Lend {
            tag,
            to: wanted.to,
            span,
            patience: self.groups[number].1.return_within,
        };
        let (to, _) = self.order(name, order).await?;
        let live = LiveDrill {
            to: to.ok_or_else(stopping)?,
            for_ms: millis(span),
            moved_ms: None,
            gap_ns: None,
            rounds: 0,
            returned_ms: None,
        };
        let how = format!("live: began by an operator, {} for {span:?}", live.to);
        let report = self.begun(name, tag, false, Some(live));
        self.event(EventKind::Drill, name, seen.epoch.counter, how);
        self.save().await;
        let drills = Arc::clone(self);
        tokio::spawn(async move {
            drills.play_live(number, tag).await;
            drop(turn);
        });
        Ok(report)
    }

    /// Ends a live drill of `name`, on the host that lent the group or on the one that has it.
    pub async fn end_live(&self, name: &Name) -> Result<OrderDone, Refusal> {
        let (to, handover) = self.order(name, PolicyOrder::Recall).await?;
        if let Some(handover) = handover {
            let late = || {
                let message = "the handover did not end in time";
                Refusal::new(Code::TimedOut, message, "see `shadowctl events`")
            };
            let ended = timeout(HANDOVER_TIMEOUT, handover).await;
            ended.map_err(|_| late())?.map_err(|_| stopping())??;
        }
        Ok(OrderDone {
            group: name.clone(),
            handed_to: to,
            kept: false,
        })
    }

    /// Goes on with the live drills that an earlier daemon began.
    pub(super) async fn resume_live(self: &Arc<Self>) {
        let running = self.reports().into_iter();
        let running = running.filter(|report| report.state == DrillState::Running);
        for report in running.filter(|report| report.live.is_some()) {
            let numbers = &mut self.groups.iter();
            let number = numbers.position(|(group, _)| group.name == report.group);
            // Nothing else has begun yet: the turn is free but for another one of these.
            if let Some(number) = number {
                let (drills, turn) = (Arc::clone(self), Arc::clone(&self.turn));
                tokio::spawn(async move {
                    let _turn = turn.lock().await;
                    drills.play_live(number, report.began_ms).await;
                });
            }
        }
    }

    async fn order(
        &self,
        name: &Name,
        order: PolicyOrder,
    ) -> Result<(Option<Name>, Option<OrderReply>), Refusal> {
        let (reply, answer) = oneshot::channel();
        let input = Input::Order {
            group: name.clone(),
            order,
            reply,
        };
        let busy = |_| {
            let message = "the failover loop is busy";
            Refusal::new(Code::Busy, message, "try again in a second")
        };
        self.inputs.try_send(input).map_err(busy)?;
        let answer = answer.await.map_err(|_| stopping())??;
        Ok((answer.to, answer.handover))
    }

    /// Follows one until it has ended, or the daemon ends.
    async fn play_live(&self, number: usize, tag: u64) {
        let (group, settings) = &self.groups[number];
        let name = &group.name;
        let checks: Vec<_> = settings.checks.iter().filter(|check| check.live).collect();
        let mut course = self.course(name, !checks.is_empty());
        let began = Instant::now();
        let (mut seen, mut stop) = (self.seen.subscribe(), self.stopping.subscribe());
        let known = |groups: &Arc<[GroupStatus]>| loan_of(groups, name, tag).is_some();
        let _ = timeout(KNOWN_WITHIN, seen.wait_for(known)).await;
        let mut asked = None;
        loop {
            let groups = seen.borrow_and_update().clone();
            let loan = loan_of(&groups, name, tag);
            self.note_progress(name, loan, (began, &mut asked));
            let status = groups.iter().find(|group| group.group == *name);
            let view = Seen {
                loan,
                holds: status.is_none_or(holds),
            };
            let until = match course.next(view, boot_time()) {
                Next::Check => {
                    let to = loan.map(|loan| loan.to.clone());
                    let result = self.check_live(number, &checks, to.as_ref()).await;
                    course.on_checked(result, boot_time());
                    self.note_rounds(name, course.rounds());
                    continue;
                }
                Next::Recall => {
                    // Refused only where the loan has ended meanwhile, which is seen next.
                    let _ = self.order(name, PolicyOrder::Recall).await;
                    None
                }
                Next::Wait(until) => until,
                Next::End(state, why) => {
                    let epoch = status.map_or(0, |status| status.epoch.counter);
                    return self.end(name, epoch, state, why).await;
                }
            };
            let wait = until.map_or(Duration::MAX, |until| until.since(boot_time()));
            // Both senders live as long as this.
            let stopping = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => true,
                _ = seen.changed() => false,
                () = sleep(wait) => false,
            };
            if stopping {
                return self.save().await;
            }
        }
    }

    /// Where an earlier daemon left it.
    fn course(&self, name: &Name, checks: bool) -> Course {
        let report = self.last(name);
        let rounds = report.as_ref().and_then(|report| report.live.as_ref());
        let rounds = rounds.map_or(0, |live| live.rounds);
        let steps = report.iter().flat_map(|report| &report.steps);
        let mut failed = steps.filter(|step| !step.ok && step.what.starts_with("check "));
        let failed = failed.next();
        let failed = failed.map(|step| format!("{}: {}", step.what, step.said));
        Course::new(checks, rounds, failed)
    }

    /// Writes down what the core says of the loan; the verdict is the course's.
    fn note_progress(
        &self,
        name: &Name,
        loan: Option<&LoanStatus>,
        (began, asked): (Instant, &mut Option<Instant>),
    ) {
        let live = self.last(name).and_then(|last| last.live);
        let (Some(loan), Some(mut live)) = (loan, live) else {
            return;
        };
        if let LoanPhase::Asking { .. } = loan.phase {
            asked.get_or_insert_with(Instant::now);
        }
        let to = &live.to;
        let (what, said) = match &loan.phase {
            LoanPhase::Out { .. } if live.moved_ms.is_none() => {
                (live.moved_ms, live.gap_ns) = (Some(wall_ms()), loan.gap_ns);
                let gap = loan.gap_ns.map(Duration::from_nanos);
                let gap = gap.map(|gap| format!(", nobody answered for at most {gap:?}"));
                let said = format!("{to} owns the group{}", gap.unwrap_or_default());
                ("handover", Ok(said))
            }
            LoanPhase::Handing | LoanPhase::Out { .. } | LoanPhase::Asking { .. } => return,
            LoanPhase::Ended(LoanEnd::Returned) => {
                live.returned_ms = Some(wall_ms());
                ("return", Ok(format!("{to} gave the group back")))
            }
            LoanPhase::Ended(LoanEnd::NotTaken) => {
                ("handover", Err(format!("{to} did not take the group")))
            }
            LoanPhase::Ended(LoanEnd::Kept | LoanEnd::Lost(_)) => {
                ("return", Err(format!("{to} did not give the group back")))
            }
        };
        if let Some(report) = self.record().of_mut(name) {
            report.live = Some(live);
        }
        let back = || asked.unwrap_or_else(Instant::now);
        let began = if what == "return" { back() } else { began };
        let _ = self.step(name, what.to_owned(), began, said);
    }

    fn note_rounds(&self, name: &Name, rounds: u32) {
        if let Some(report) = self.record().of_mut(name)
            && let Some(live) = &mut report.live
        {
            live.rounds = rounds;
        }
    }

    /// Makes every check once, as a client of the virtual IPs; the first failure.
    async fn check_live(
        &self,
        number: usize,
        checks: &[&CheckSettings],
        to: Option<&Name>,
    ) -> Result<(), String> {
        let name = &self.groups[number].0.name;
        let mut worst = Ok(());
        for check in checks {
            let began = Instant::now();
            let said = match &check.kind {
                CheckKind::Command(command) => {
                    let run = Run {
                        unit: place::live_check_unit(name, &check.name),
                        description: format!("shadowd: check {} of a live drill", check.name),
                        command,
                        environment: self.live_environment(number, to),
                        input: None,
                        more: Vec::new(),
                    };
                    match self.hooks.run(&run).await {
                        Ok(End::Exited(0)) => Ok("exit 0".to_owned()),
                        Ok(end) => Err(format!("{end}: see `journalctl -u {}`", run.unit)),
                        Err(error) => Err(words(error)),
                    }
                }
                kind @ (CheckKind::Tcp(_) | CheckKind::Http { .. }) => {
                    let probe = Probe {
                        kind: kind.clone(),
                        patience: check.deadline.saturating_sub(BEFORE_DEADLINE),
                    };
                    let probed = tokio::task::spawn_blocking(move || place::probe(&probe)).await;
                    let probed = probed.map_err(|error| error.to_string());
                    probed.and_then(|said| said.map_err(words))
                }
            };
            let ended = self.step(name, format!("check {}", check.name), began, said);
            worst = worst.and(ended);
        }
        worst
    }

    fn live_environment(&self, number: usize, to: Option<&Name>) -> Vec<String> {
        let group = &self.groups[number].0;
        let vips = group.vips.iter().map(|vip| vip.address.to_string());
        let vips: Vec<String> = vips.collect();
        vec![
            format!("SHADOWD_GROUP={}", group.name),
            format!("SHADOWD_HOST={}", self.host),
            format!("SHADOWD_VIPS={}", vips.join(" ")),
            format!("SHADOWD_ACTIVE={}", to.map_or("", Name::as_str)),
            "SHADOWD_DRILL=live".to_owned(),
        ]
    }
}

fn loan_of<'a>(groups: &'a [GroupStatus], name: &Name, tag: u64) -> Option<&'a LoanStatus> {
    let group = groups.iter().find(|group| group.group == *name)?;
    group.policy.loan.as_ref().filter(|loan| loan.tag == tag)
}

/// Whether the virtual IPs are here, if only for connections of before.
fn holds(group: &GroupStatus) -> bool {
    group.drain.is_some() || group.vips.iter().any(|vip| vip.held)
}

fn stopping() -> Refusal {
    let message = "the daemon is stopping";
    Refusal::new(Code::Stopping, message, "try again when it runs")
}
