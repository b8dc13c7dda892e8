//! What bounds automatic failover: orders of an operator, the flap budget, what members disagree on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    BootTime, BorrowedStatus, Cause, Enlistment, LoanStatus, LoanWord, Name, RememberedLoan,
};

/// What a member says with each heartbeat of what bounds the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyWord {
    /// Digest of the group's virtual IPs and members, as the sender's configuration has them.
    pub definition: u32,
    /// Why the sender could not own the group now; none when it could.
    pub reason: Option<Cause>,
    /// The newest order to freeze or unfreeze the group that the sender knows; 0: none ever.
    pub freeze_order: u64,
    /// For how long it still holds, in milliseconds; 0: the group is not frozen.
    pub freeze_left_ms: u32,
    /// The sender lent the group for a drill; none when it did not, or when that is over.
    pub loan: Option<LoanWord>,
    /// The newest word of an owner, that the sender knows, of which spares are enlisted.
    pub enlisted: Enlistment,
}

/// What an operator asks of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyOrder {
    /// This host is not to own the group, for so long or until [`Self::MaintenanceOff`].
    MaintenanceOn {
        /// None: until it is ended.
        span: Option<Duration>,
        /// Why, in the operator's words.
        reason: String,
        /// Also when nobody else could own the group now.
        force: bool,
    },
    /// This host may own the group again.
    MaintenanceOff,
    /// No member is to take the group over by itself for so long.
    Freeze {
        /// How long.
        span: Duration,
        /// Why, in the operator's words.
        reason: String,
    },
    /// Members may take the group over again.
    Unfreeze,
    /// This owner hands the group over for a live drill, and asks for it after a time.
    Lend {
        /// Which drill it is for.
        tag: u64,
        /// To whom; the best member if none.
        to: Option<Name>,
        /// For how long.
        span: Duration,
        /// For how long it asks at most.
        patience: Duration,
    },
    /// What was lent goes back now: said to the lender or to the borrower.
    Recall,
}

/// What a member remembers over a restart, as of one moment: times are what is left of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyMemory {
    /// This host is in maintenance.
    pub maintenance: Option<RememberedOrder>,
    /// The newest order to freeze or unfreeze.
    pub freeze_order: u64,
    /// The group is frozen.
    pub freeze: Option<RememberedOrder>,
    /// The flap penalty.
    pub penalty: f64,
    /// The penalty holds this member back.
    pub held: bool,
    /// This host owned the group: a daemon that finds this at its start has died as the owner.
    pub owner: bool,
    /// The last group that this host lent for a drill.
    pub loan: Option<RememberedLoan>,
    /// The newest word of an owner of which spares are enlisted.
    pub enlisted: Enlistment,
}

/// An order that holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedOrder {
    /// For how long still, in milliseconds; none: until it is ended.
    pub left_ms: Option<u64>,
    /// Why, in the operator's words.
    #[serde(default)]
    pub reason: String,
}

/// What bounds automatic failover of one group, as this member sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyStatus {
    /// Why this host could not own the group now; none when it could.
    pub reason: Option<Cause>,
    /// This host is in maintenance.
    pub maintenance: Option<OrderStatus>,
    /// The group is frozen.
    pub frozen: Option<OrderStatus>,
    /// What is left of the penalty for failovers away from this host: each adds 1,000.
    pub flap_penalty: f64,
    /// Until when the penalty holds this host back; none while it does not.
    pub held_until: Option<BootTime>,
    /// The group is to go back to a member with a better priority.
    pub failback: Option<FailbackStatus>,
    /// Members whose configuration has other virtual IPs or members for the group.
    pub differs_from: Vec<Name>,
    /// The last live drill that began on this host.
    pub loan: Option<LoanStatus>,
    /// The group is here, or with the owner that is heard, for a live drill.
    pub borrowed: Option<BorrowedStatus>,
}

/// An order of an operator that holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderStatus {
    /// When it ends by itself; none: when it is ended.
    pub until: Option<BootTime>,
    /// Why, in the operator's words; empty where none were given, or on another member.
    pub reason: String,
}

/// A failback that is ahead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailbackStatus {
    /// The member with the better priority.
    pub to: Name,
    /// Not before then, if it stays ready.
    pub not_before: BootTime,
    /// Whether `failback_window` is open now; true where there is none.
    pub window_open: bool,
}
