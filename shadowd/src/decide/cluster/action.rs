//! What a group asks to be done, and what it is told in return.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::{
    Body, BootTime, Cause, Epoch, EventKind, KeptPromise, Mac, Name, ProviderAnswer,
};

/// Something to do. Actions are to be carried out in the order they are polled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Send `body` to the member `to`.
    Send {
        /// The member.
        to: Name,
        /// The newest epoch this member knows.
        epoch: Epoch,
        /// What to say.
        body: Body,
    },
    /// Add the virtual IPs and announce them. Answered by [`Done::VipsTaken`] or [`Done::Failed`].
    TakeVips {
        /// Refused by `act` when it has seen a newer one.
        epoch: Epoch,
        /// Until when this member may answer for them; none while no lease limits it.
        deadline: Option<BootTime>,
    },
    /// Ask the kernel of a member on the same link whether it is there. Answered, if at all, by
    /// [`super::Group::on_kernel_answer`].
    Probe {
        /// The member.
        member: Name,
    },
    /// Announce the virtual IPs again. Not answered.
    Announce {
        /// The epoch they are held in.
        epoch: Epoch,
    },
    /// Remove the virtual IPs. Answered by [`Done::VipsDropped`] or
    /// [`Done::Failed`].
    DropVips {
        /// The epoch they were held in.
        epoch: Epoch,
    },
    /// Stop answering for the virtual IPs, but serve the connections that have begun, and pass
    /// what is new on to `successor`; remove the addresses when no connection is left. Answered by
    /// [`Done::VipsDropped`] as soon as nothing new is answered, or by [`Done::Failed`].
    HandOn {
        /// The epoch they were held in.
        epoch: Epoch,
        /// Where the next owner is on the link.
        successor: Mac,
        /// Then the addresses are removed, whatever is left.
        until: BootTime,
    },
    /// While this member answers for the virtual IPs, pass segments of connections that it does not
    /// know on to who had them before. Not answered.
    PassBack {
        /// Where that is on the link.
        predecessor: Mac,
        /// For no longer.
        until: BootTime,
    },
    /// Start the cold units in order. Answered by [`Done::UnitsStarted`] or [`Done::Failed`].
    StartUnits {
        /// The epoch they run in.
        epoch: Epoch,
    },
    /// Stop the cold units in reverse order. Answered by [`Done::UnitsStopped`]
    /// or [`Done::Failed`].
    StopUnits {
        /// The epoch they ran in.
        epoch: Epoch,
    },
    /// Keep a promise on the disk, so that it can be given. Answered, once it is there, by
    /// [`Done::PromiseKept`].
    KeepPromise(KeptPromise),
    /// Ask the provider to create a spare. Answered by [`Done::Provided`].
    Provide(Wish),
    /// Write down what happened.
    Record(Record),
}

/// A spare that is to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// The spare.
    pub host: Name,
    /// From 1; an attempt may ask more than once.
    pub attempt: u32,
    /// The epoch that this member owns the group in.
    pub epoch: Epoch,
    /// Why redundancy was lost.
    pub reason: Option<Cause>,
}

/// What came of an [`Action`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// The virtual IPs are on the interface and were announced.
    VipsTaken {
        /// The action's epoch.
        epoch: Epoch,
    },
    /// The virtual IPs are gone, or were not there.
    VipsDropped {
        /// The action's epoch.
        epoch: Epoch,
    },
    /// The cold units run.
    UnitsStarted {
        /// The action's epoch.
        epoch: Epoch,
    },
    /// The cold units do not run.
    UnitsStopped {
        /// The action's epoch.
        epoch: Epoch,
    },
    /// The promise is on the disk.
    PromiseKept(KeptPromise),
    /// The provider's command has ended, or was not run.
    Provided {
        /// The action's host.
        host: Name,
        /// The action's attempt.
        attempt: u32,
        /// What it says.
        answer: ProviderAnswer,
    },
    /// A step did not succeed.
    Failed {
        /// The action's epoch.
        epoch: Epoch,
        /// Which.
        step: Step,
        /// Why, in words.
        why: String,
    },
}

/// The steps that can fail. The core tries them again or gives the group to somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// [`Action::TakeVips`].
    TakeVips,
    /// [`Action::DropVips`].
    DropVips,
    /// [`Action::StartUnits`].
    StartUnits,
    /// [`Action::StopUnits`].
    StopUnits,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TakeVips => "virtual IPs not added",
            Self::DropVips => "virtual IPs not removed",
            Self::StartUnits => "units not started",
            Self::StopUnits => "units not stopped",
        })
    }
}

/// Something that happened, without the clock time that `run` adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When.
    pub at: BootTime,
    /// What.
    pub kind: EventKind,
    /// The epoch counter it happened in.
    pub epoch: u64,
    /// Why.
    pub cause: Option<Cause>,
    /// The rest, in words.
    pub detail: String,
}
