//! From what a group is at a moment to what is worth telling of it.

use std::time::Duration;

use crate::facts::{BootTime, GroupStatus, Name, RedundancyStatus, Role, Topic};

/// What a notice is about. Notices of one subject replace each other: only the last one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// What this host is to the group.
    Role,
    /// Whether somebody owns the group.
    Owner,
    /// Whether another member could take over.
    Redundancy,
    /// Whether this owner has its majority.
    Lease,
    /// Whether every path to the others carries.
    Paths,
    /// Others that say they have a virtual IP.
    Claims,
    /// Planned handovers.
    Handovers,
    /// Steps that failed.
    Failures,
    /// Drills that ended.
    Drills,
}

impl Subject {
    /// The subjects that are a state, and not something that happened.
    pub const STATES: [Self; 5] = [
        Self::Role,
        Self::Owner,
        Self::Redundancy,
        Self::Lease,
        Self::Paths,
    ];

    /// What `topic` is about; none for a test.
    pub const fn of(topic: Topic) -> Option<Self> {
        match topic {
            Topic::Active | Topic::Shadow | Topic::Stopped => Some(Self::Role),
            Topic::Lost | Topic::Owned => Some(Self::Owner),
            Topic::RedundancyLost | Topic::RedundancyRestored => Some(Self::Redundancy),
            Topic::LeaseLapsed | Topic::LeaseHeld => Some(Self::Lease),
            Topic::PathLost | Topic::PathBack => Some(Self::Paths),
            Topic::VipClaimed => Some(Self::Claims),
            Topic::Handover => Some(Self::Handovers),
            Topic::Failure => Some(Self::Failures),
            Topic::DrillPassed | Topic::DrillFailed => Some(Self::Drills),
            Topic::Test => None,
        }
    }

    /// The word for it, in keys and in the store.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::Owner => "owner",
            Self::Redundancy => "redundancy",
            Self::Lease => "lease",
            Self::Paths => "paths",
            Self::Claims => "claims",
            Self::Handovers => "handovers",
            Self::Failures => "failures",
            Self::Drills => "drills",
        }
    }

    /// What holds before anything was told: nobody is told that all is well from the start. A role
    /// is always told.
    pub const fn unsaid(self) -> Option<Topic> {
        match self {
            Self::Owner => Some(Topic::Owned),
            Self::Redundancy => Some(Topic::RedundancyRestored),
            Self::Lease => Some(Topic::LeaseHeld),
            Self::Paths => Some(Topic::PathBack),
            Self::Role | Self::Claims | Self::Handovers | Self::Failures | Self::Drills => None,
        }
    }

    /// How long a state lasts before it is told. Each takeover leaves a group without an owner for
    /// some milliseconds, and a busy host suspects now and then.
    pub const fn settles_after(self) -> Duration {
        match self {
            Self::Owner => Duration::from_secs(2),
            Self::Redundancy | Self::Paths => Duration::from_secs(3),
            Self::Lease => Duration::from_secs(1),
            Self::Role | Self::Claims | Self::Handovers | Self::Failures | Self::Drills => {
                Duration::ZERO
            }
        }
    }
}

/// What matters of a group at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The group.
    pub group: Name,
    /// This host's role.
    pub role: Role,
    /// Counter of the newest epoch.
    pub epoch: u64,
    /// Who owns it.
    pub active: Option<Name>,
    /// Whether as many members other than the active one could own it as are wanted.
    pub redundant: bool,
    /// Why not, or how it came back, in words.
    pub redundancy: String,
    /// Whether this host is active without a lease.
    pub lapsed: bool,
    /// Paths to the others that carry nothing, in words.
    pub lost_paths: Vec<String>,
}

impl Sighting {
    /// What matters of `status`.
    pub fn of(status: &GroupStatus) -> Self {
        let ready = status.members.iter().filter(|member| {
            status.active.as_ref() != Some(&member.host) && member.eligible && !member.suspected
        });
        // Only the owner knows how many are wanted, and why they are missed.
        let redundancy = status.redundancy.as_ref();
        Self {
            group: status.group.clone(),
            role: status.role,
            epoch: status.epoch.counter,
            active: status.active.clone(),
            redundant: redundancy.map_or_else(|| ready.count() > 0, |it| it.full),
            redundancy: redundancy.map_or_else(String::new, told),
            lapsed: status.lease.as_ref().is_some_and(|lease| lease.lapsed),
            lost_paths: status.lost_paths.clone(),
        }
    }

    /// What is true of `subject`; none while this member cannot tell.
    pub(super) fn level(&self, subject: Subject) -> Option<Topic> {
        let either = |well: bool, good, bad| Some(if well { good } else { bad });
        match (subject, self.role) {
            (_, Role::Joining | Role::Witness) => None,
            (Subject::Role, Role::Active) => Some(Topic::Active),
            (Subject::Role, Role::Shadow) => Some(Topic::Shadow),
            (Subject::Role, Role::Stopped) => Some(Topic::Stopped),
            (_, Role::Stopped) => None,
            (Subject::Owner, _) => either(self.active.is_some(), Topic::Owned, Topic::Lost),
            (Subject::Redundancy, Role::Active) => either(
                self.redundant,
                Topic::RedundancyRestored,
                Topic::RedundancyLost,
            ),
            // The owner tells of it; a shadow only ends what it told when it was the owner.
            (Subject::Redundancy, Role::Shadow) => {
                (self.redundant && self.active.is_some()).then_some(Topic::RedundancyRestored)
            }
            (Subject::Lease, Role::Active) => {
                either(!self.lapsed, Topic::LeaseHeld, Topic::LeaseLapsed)
            }
            (Subject::Lease, Role::Shadow) => Some(Topic::LeaseHeld),
            (Subject::Paths, Role::Active | Role::Shadow) => {
                either(self.lost_paths.is_empty(), Topic::PathBack, Topic::PathLost)
            }
            (Subject::Claims | Subject::Handovers | Subject::Failures | Subject::Drills, _) => None,
        }
    }

    /// Owning a group again is news; being a shadow of another owner is not.
    pub(super) fn identity(&self, topic: Topic) -> State {
        let epoch = if topic == Topic::Active {
            self.epoch
        } else {
            0
        };
        State { topic, epoch }
    }
}

fn told(status: &RedundancyStatus) -> String {
    match (&status.why, &status.last) {
        (Some(why), _) => why.clone(),
        (None, Some(last)) => {
            let took = Duration::from_nanos(last.took_ns).as_secs_f64();
            format!("{} is ready ({}), after {took:.1} s", last.host, last.by)
        }
        (None, None) => String::new(),
    }
}

/// A state that can be told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) topic: Topic,
    /// 0 where the epoch makes no difference.
    pub(super) epoch: u64,
}

/// One subject of one group: what it is, once it has lasted long enough.
#[derive(Clone, Debug, Default)]
pub(super) struct Settling {
    settled: Option<State>,
    /// What it may become, and since when it is so.
    candidate: Option<(State, BootTime)>,
}

impl Settling {
    /// A member that cannot tell leaves things as they are.
    pub(super) fn see(&mut self, state: Option<State>, now: BootTime) {
        match state {
            Some(state) if self.settled == Some(state) => self.candidate = None,
            Some(state) => match self.candidate {
                Some((known, _)) if known == state => {}
                _ => self.candidate = Some((state, now)),
            },
            None => self.candidate = None,
        }
    }

    /// When [`Self::settle`] has something to say, if nothing changes until then.
    pub(super) fn next_deadline(&self, subject: Subject) -> Option<BootTime> {
        let (_, since) = self.candidate?;
        Some(since.after(subject.settles_after()))
    }

    /// The new state, when there is one.
    pub(super) fn settle(&mut self, subject: Subject, now: BootTime) -> Option<State> {
        let (state, _) = self.candidate?;
        if self.next_deadline(subject).is_some_and(|due| now < due) {
            return None;
        }
        self.candidate = None;
        self.settled = Some(state);
        Some(state)
    }
}
