//! Transitions of [`Group`], one by one. What emerges from many of them is tested by simulation.

use std::time::Duration;

use super::{Action, Done, Group, Peer, Refusal, Step};
use crate::config::settings::{GroupSettings, UnitSettings};
use crate::facts::{
    Body, BootTime, Cause, Epoch, EventKind, GroupMessage, HostId, Name, Protection, Role, UnitMode,
};

const HEARTBEAT: Duration = Duration::from_millis(10);
const SUSPECT: Duration = Duration::from_millis(30);
const JOIN: Duration = Duration::from_millis(300);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn id(number: u8) -> HostId {
    HostId::from_bytes([number; 32])
}

fn epoch(counter: u64, owner: u8) -> Epoch {
    Epoch {
        counter,
        owner: id(owner),
    }
}

/// A group on host `a` (number 1, priority 100) with the other member `b` (number 2), and a clock.
struct Bench {
    group: Group,
    now: BootTime,
    sent: u64,
    actions: Vec<Action>,
}

impl Bench {
    fn new(cold: bool) -> Self {
        let mut units = vec![UnitSettings {
            name: name("warm.service"),
            mode: UnitMode::Warm,
        }];
        if cold {
            units.push(UnitSettings {
                name: name("cold.service"),
                mode: UnitMode::Cold,
            });
        }
        let settings = GroupSettings {
            name: name("web"),
            members: vec![name("b")],
            priority: 100,
            protection: Protection::None,
            heartbeat: HEARTBEAT,
            suspect_after: SUSPECT,
            join_wait: JOIN,
            interface: "eth0".to_owned(),
            vips: vec!["192.0.2.10/24".parse().unwrap()],
            units,
        };
        let now = BootTime::from_nanos(5_000_000_000);
        let me = Peer {
            name: name("a"),
            id: id(1),
        };
        let other = Peer {
            name: name("b"),
            id: id(2),
        };
        let group = Group::new(settings, me, vec![other], Epoch::NONE, now);
        let mut bench = Self {
            group,
            now,
            sent: 1,
            actions: Vec::new(),
        };
        bench.group.on_carrier(true, now);
        bench.group.on_unit(&name("warm.service"), true, now);
        bench.take();
        bench
    }

    fn take(&mut self) {
        while let Some(action) = self.group.poll_action() {
            self.actions.push(action);
        }
    }

    /// Lets time pass heartbeat by heartbeat; `b` says `body` at each, or nothing.
    fn pass(&mut self, span: Duration, heard: Option<(Epoch, Body)>) {
        let end = self.now.after(span);
        while self.now < end {
            self.now = self
                .group
                .next_deadline()
                .min(end)
                .max(self.now.after(Duration::from_micros(1)));
            if let Some((epoch, body)) = &heard {
                self.hear(*epoch, body.clone());
            }
            self.group.on_timer(self.now);
            self.take();
        }
    }

    fn hear(&mut self, epoch: Epoch, body: Body) {
        self.sent += 1_000_000;
        self.hear_sent(self.sent, epoch, body);
    }

    fn hear_sent(&mut self, sent: u64, epoch: Epoch, body: Body) {
        let message = GroupMessage {
            group: name("web"),
            epoch,
            body,
        };
        let sent = BootTime::from_nanos(sent);
        self.group.on_message(&name("b"), sent, &message, self.now);
        self.take();
    }

    fn done(&mut self, done: Done) {
        self.group.on_done(done, self.now);
        self.take();
    }

    fn role(&self) -> Role {
        self.group.status(self.now).role
    }

    fn took(&self) -> Option<Epoch> {
        self.actions.iter().find_map(|action| match action {
            Action::TakeVips { epoch, .. } => Some(*epoch),
            _ => None,
        })
    }

    fn said(&self, wanted: impl Fn(&Body) -> bool) -> bool {
        self.actions
            .iter()
            .any(|action| matches!(action, Action::Send { body, .. } if wanted(body)))
    }

    fn recorded(&self, wanted: EventKind) -> bool {
        self.actions
            .iter()
            .any(|action| matches!(action, Action::Record(record) if record.kind == wanted))
    }

    /// A shadow that follows `b`, active in epoch 1.
    fn shadow(cold: bool) -> Self {
        let mut bench = Self::new(cold);
        bench.hear(epoch(1, 2), active());
        assert_eq!(bench.role(), Role::Shadow);
        bench.actions.clear();
        bench
    }

    /// The active in epoch 1, with `b` as a shadow that could take over.
    fn active(cold: bool) -> Self {
        let mut bench = Self::new(cold);
        bench.pass(JOIN, Some((Epoch::NONE, shadow(true))));
        assert_eq!(bench.took(), Some(epoch(1, 1)));
        bench.done(Done::VipsTaken { epoch: epoch(1, 1) });
        bench.actions.clear();
        bench
    }
}

fn active() -> Body {
    Body::Beat {
        role: Role::Active,
        priority: 90,
        eligible: true,
    }
}

fn shadow(eligible: bool) -> Body {
    Body::Beat {
        role: Role::Shadow,
        priority: 90,
        eligible,
    }
}

#[test]
fn a_starting_member_claims_nothing_before_it_has_listened() {
    let mut bench = Bench::new(false);
    bench.pass(JOIN - HEARTBEAT, None);
    assert_eq!(bench.took(), None);
    bench.pass(HEARTBEAT * 2, None);
    assert_eq!(bench.took(), Some(epoch(1, 1)));
}

#[test]
fn a_starting_member_follows_the_active_it_hears() {
    let mut bench = Bench::shadow(false);
    bench.pass(JOIN * 3, Some((epoch(1, 2), active())));
    assert_eq!(bench.took(), None);
    assert_eq!(bench.group.active(), Some(&name("b")));
}

#[test]
fn silence_promotes_after_the_bound_and_not_before() {
    let mut bench = Bench::shadow(false);
    bench.pass(SUSPECT - Duration::from_millis(1), None);
    assert_eq!(bench.took(), None);
    bench.pass(Duration::from_millis(2), None);
    assert_eq!(bench.took(), Some(epoch(2, 1)));
    assert!(bench.recorded(EventKind::PeerSuspected));
}

#[test]
fn silence_in_a_stall_of_this_process_is_no_evidence() {
    let mut bench = Bench::shadow(false);
    bench.pass(HEARTBEAT, Some((epoch(1, 2), active())));
    bench.now = bench.now.after(SUSPECT * 4);
    bench.group.on_timer(bench.now);
    bench.take();
    assert_eq!(
        bench.took(),
        None,
        "this process did not run, so it could not hear"
    );
    bench.pass(SUSPECT, None);
    assert_eq!(bench.took(), Some(epoch(2, 1)));
}

#[test]
fn a_member_whose_units_or_link_are_down_or_unknown_never_claims() {
    for trouble in ["unit", "link", "unknown"] {
        let mut bench = Bench::shadow(false);
        match trouble {
            "unit" => bench.group.on_unit(&name("warm.service"), false, bench.now),
            "link" => bench.group.on_carrier(false, bench.now),
            _ => {
                let settings = bench.group.settings().clone();
                let me = Peer {
                    name: name("a"),
                    id: id(1),
                };
                let other = Peer {
                    name: name("b"),
                    id: id(2),
                };
                bench.group = Group::new(settings, me, vec![other], Epoch::NONE, bench.now);
            }
        }
        bench.pass(JOIN * 2, None);
        assert_eq!(bench.took(), None, "{trouble}");
    }
}

#[test]
fn a_resignation_is_acted_on_at_once() {
    let mut bench = Bench::shadow(false);
    bench.hear(
        epoch(1, 2),
        Body::Resign {
            cause: Cause::UnitDied,
        },
    );
    assert_eq!(bench.took(), Some(epoch(2, 1)));
}

#[test]
fn a_resignation_of_an_older_epoch_changes_nothing() {
    let mut bench = Bench::new(false);
    bench.hear(epoch(5, 2), active());
    bench.hear(
        epoch(4, 2),
        Body::Resign {
            cause: Cause::UnitDied,
        },
    );
    assert_eq!(bench.took(), None);
    assert_eq!(bench.role(), Role::Shadow);
}

#[test]
fn an_overtaken_message_changes_nothing_but_a_reboot_is_believed() {
    let mut bench = Bench::shadow(false);
    let resign = Body::Resign {
        cause: Cause::UnitDied,
    };
    bench.hear_sent(bench.sent - 500_000, epoch(1, 2), resign);
    assert_eq!(bench.took(), None);
    bench.sent += 60_000_000_000;
    bench.hear(epoch(1, 2), active());
    let joining = Body::Beat {
        role: Role::Joining,
        priority: 90,
        eligible: true,
    };
    bench.hear_sent(1_000, epoch(1, 2), joining);
    assert_eq!(
        bench.group.active(),
        None,
        "b has rebooted and no longer owns the group"
    );
}

#[test]
fn a_stranger_and_another_group_are_not_heard() {
    let mut bench = Bench::shadow(false);
    let message = GroupMessage {
        group: name("web"),
        epoch: epoch(9, 3),
        body: Body::Resign {
            cause: Cause::UnitDied,
        },
    };
    bench
        .group
        .on_message(&name("stranger"), bench.now, &message, bench.now);
    let other = GroupMessage {
        group: name("db"),
        ..message
    };
    bench
        .group
        .on_message(&name("b"), bench.now, &other, bench.now);
    bench.take();
    assert_eq!(bench.took(), None);
    assert_eq!(bench.group.newest_epoch(), epoch(1, 2));
}

#[test]
fn a_dead_unit_moves_the_group_to_a_member_that_can_own_it() {
    let mut bench = Bench::active(false);
    bench.group.on_unit(&name("warm.service"), false, bench.now);
    bench.take();
    assert!(
        bench
            .actions
            .contains(&Action::DropVips { epoch: epoch(1, 1) })
    );
    let resigned = |body: &Body| {
        matches!(
            body,
            Body::Resign {
                cause: Cause::UnitDied
            }
        )
    };
    assert!(!bench.said(resigned), "the addresses go before the word");
    bench.done(Done::VipsDropped { epoch: epoch(1, 1) });
    assert!(bench.said(resigned));
    assert_eq!(bench.role(), Role::Shadow);
}

#[test]
fn a_dead_unit_is_kept_where_nobody_could_do_better() {
    let mut bench = Bench::active(false);
    bench.hear(epoch(1, 1), shadow(false));
    bench.group.on_unit(&name("warm.service"), false, bench.now);
    bench.take();
    assert_eq!(bench.role(), Role::Active);
    bench.hear(epoch(1, 1), shadow(true));
    assert!(
        bench
            .actions
            .contains(&Action::DropVips { epoch: epoch(1, 1) })
    );
}

#[test]
fn the_newer_of_two_owners_stays_and_announces_again() {
    let mut bench = Bench::active(false);
    bench.hear(epoch(1, 0), active());
    bench.actions.clear();
    bench.hear(epoch(1, 1), shadow(true));
    assert!(
        bench
            .actions
            .contains(&Action::Announce { epoch: epoch(1, 1) })
    );
    bench.hear(epoch(2, 2), active());
    assert!(
        bench
            .actions
            .contains(&Action::DropVips { epoch: epoch(1, 1) })
    );
    bench.done(Done::VipsDropped { epoch: epoch(1, 1) });
    assert_eq!(bench.group.active(), Some(&name("b")));
}

#[test]
fn an_owner_rises_above_a_newer_epoch_that_was_left() {
    let mut bench = Bench::active(false);
    let joining = Body::Beat {
        role: Role::Joining,
        priority: 90,
        eligible: true,
    };
    bench.hear(epoch(7, 2), joining);
    assert_eq!(bench.took(), Some(epoch(8, 1)));
    assert_eq!(bench.role(), Role::Active);
}

#[test]
fn a_handover_drops_the_addresses_before_it_transfers() {
    let mut bench = Bench::active(false);
    assert_eq!(
        bench.group.hand_over(Some(&name("b")), bench.now),
        Ok(name("b"))
    );
    assert_eq!(bench.group.hand_over(None, bench.now), Err(Refusal::Busy));
    bench.take();
    assert!(bench.said(|body| *body == Body::Offer { to: id(2) }));
    bench.hear(epoch(1, 1), Body::Ready);
    assert!(
        bench
            .actions
            .contains(&Action::DropVips { epoch: epoch(1, 1) })
    );
    let transferred = |body: &Body| *body == Body::Transfer { to: id(2) };
    assert!(!bench.said(transferred));
    bench.done(Done::VipsDropped { epoch: epoch(1, 1) });
    assert!(bench.said(transferred));
}

#[test]
fn a_handover_nobody_answers_is_given_up_and_the_group_stays() {
    let mut bench = Bench::active(false);
    bench.group.hand_over(None, bench.now).unwrap();
    bench.pass(SUSPECT * 11, Some((epoch(1, 1), shadow(true))));
    assert_eq!(bench.role(), Role::Active);
    assert!(!bench.group.handing_over());
}

#[test]
fn a_handover_is_refused_with_the_reason() {
    let mut bench = Bench::active(false);
    let refusal = bench.group.hand_over(Some(&name("z")), bench.now);
    assert_eq!(refusal, Err(Refusal::NoSuchMember(name("z"))));
    bench.hear(epoch(1, 1), shadow(false));
    let refusal = bench.group.hand_over(Some(&name("b")), bench.now);
    assert_eq!(refusal, Err(Refusal::NotReady(name("b"))));
    let mut bench = Bench::shadow(false);
    let refusal = bench.group.hand_over(None, bench.now);
    assert_eq!(
        refusal,
        Err(Refusal::NotActive {
            active: Some(name("b"))
        })
    );
}

#[test]
fn the_offered_member_answers_and_takes_over_when_told() {
    let mut bench = Bench::shadow(false);
    bench.hear(epoch(1, 2), Body::Offer { to: id(1) });
    assert!(bench.said(|body| *body == Body::Ready));
    bench.hear(epoch(1, 2), Body::Transfer { to: id(1) });
    assert_eq!(bench.took(), Some(epoch(2, 1)));
}

#[test]
fn a_member_that_was_not_named_leaves_the_group_to_the_one_that_was() {
    let mut bench = Bench::shadow(false);
    bench.hear(epoch(1, 2), Body::Transfer { to: id(3) });
    bench.pass(SUSPECT * 9, None);
    assert_eq!(bench.took(), None);
    bench.pass(SUSPECT * 2, None);
    assert_eq!(bench.took(), Some(epoch(2, 1)), "nobody came");
}

#[test]
fn cold_units_start_after_the_addresses_and_stop_before_a_transfer() {
    let mut bench = Bench::active(true);
    bench.done(Done::VipsTaken { epoch: epoch(1, 1) });
    assert!(
        bench
            .actions
            .contains(&Action::StartUnits { epoch: epoch(1, 1) })
    );
    bench.done(Done::UnitsStarted { epoch: epoch(1, 1) });
    assert_eq!(
        bench.role(),
        Role::Active,
        "the reading that it runs is still on its way"
    );
    bench.group.on_unit(&name("cold.service"), true, bench.now);
    bench.group.hand_over(None, bench.now).unwrap();
    bench.actions.clear();
    bench.hear(epoch(1, 1), Body::Ready);
    assert!(
        bench
            .actions
            .contains(&Action::StopUnits { epoch: epoch(1, 1) })
    );
    assert!(
        !bench
            .actions
            .contains(&Action::DropVips { epoch: epoch(1, 1) })
    );
    bench.done(Done::UnitsStopped { epoch: epoch(1, 1) });
    assert!(
        bench
            .actions
            .contains(&Action::DropVips { epoch: epoch(1, 1) })
    );
}

#[test]
fn a_cold_unit_left_running_on_a_shadow_is_stopped_once() {
    let mut bench = Bench::shadow(true);
    bench.group.on_unit(&name("cold.service"), true, bench.now);
    bench.pass(SUSPECT, Some((epoch(1, 2), active())));
    let stops = bench
        .actions
        .iter()
        .filter(|action| matches!(action, Action::StopUnits { .. }));
    assert_eq!(stops.count(), 1);
}

#[test]
fn a_failed_step_moves_the_group_on_and_holds_this_member_back() {
    let mut bench = Bench::active(false);
    let failed = Done::Failed {
        epoch: epoch(1, 1),
        step: Step::TakeVips,
        why: "no".to_owned(),
    };
    bench.done(failed);
    assert!(
        bench
            .actions
            .contains(&Action::DropVips { epoch: epoch(1, 1) })
    );
    bench.done(Done::VipsDropped { epoch: epoch(1, 1) });
    bench.actions.clear();
    bench.pass(Duration::from_secs(29), None);
    assert_eq!(bench.took(), None);
    bench.pass(Duration::from_secs(2), None);
    assert_eq!(bench.took(), Some(epoch(2, 1)), "nobody else came");
}

#[test]
fn a_stopped_owner_gives_the_group_up_before_it_ends() {
    let mut bench = Bench::active(false);
    bench.group.on_stop(bench.now);
    bench.take();
    assert!(!bench.group.stopped());
    bench.done(Done::VipsDropped { epoch: epoch(1, 1) });
    assert!(bench.said(|body| matches!(
        body,
        Body::Resign {
            cause: Cause::DaemonStopped
        }
    )));
    assert!(!bench.group.stopped(), "last words are said again");
    bench.pass(Duration::from_millis(100), None);
    assert!(bench.group.stopped());
}

#[test]
fn a_report_of_an_epoch_that_is_over_changes_nothing() {
    let mut bench = Bench::active(false);
    for done in [
        Done::VipsDropped { epoch: epoch(9, 1) },
        Done::UnitsStopped { epoch: epoch(9, 1) },
        Done::Failed {
            epoch: epoch(9, 1),
            step: Step::StartUnits,
            why: String::new(),
        },
    ] {
        bench.done(done);
        assert_eq!(bench.role(), Role::Active);
    }
}
