//! A group that is lent for a live drill: handed over for a time, and asked back after it.

use serde::{Deserialize, Serialize};

use super::{BootTime, Epoch, Name};

/// What the lender says with each heartbeat while another member has the group from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoanWord {
    /// Counter of the epoch that the borrower owns the group in: the word is for that one alone.
    pub epoch: u64,
    /// The time is over: the lender asks for the group.
    pub back: bool,
}

/// How far a loan is.
///
/// ```text
///   Handing ----> Out ----> Asking ----> Ended(Kept)
///      |           |           |
///      |           +-----------+-------> Ended(Returned), Ended(Lost)
///      +-------------------------------> Ended(NotTaken), Ended(Lost)
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoanPhase {
    /// The borrower was offered the group and is not heard to own it yet.
    Handing,
    /// The borrower owns it.
    Out {
        /// It is asked back then.
        until: BootTime,
    },
    /// The borrower is asked for it.
    Asking {
        /// It may keep the group from then on.
        until: BootTime,
    },
    /// It is over.
    Ended(LoanEnd),
}

/// How a loan ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoanEnd {
    /// The borrower handed the group back.
    Returned,
    /// The borrower did not take it.
    NotTaken,
    /// The borrower lost it; who owned it next, if that was another member.
    Lost(Option<Name>),
    /// The borrower was asked for long enough and keeps it.
    Kept,
}

/// A loan, as the lender sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoanStatus {
    /// Which drill it is for.
    pub tag: u64,
    /// The borrower.
    pub to: Name,
    /// How far it is.
    pub phase: LoanPhase,
    /// From when this host gave the group up until the borrower was heard to own it: clients waited
    /// no longer than that.
    pub gap_ns: Option<u64>,
    /// The borrower did not own the group all the time: its epoch has changed.
    pub disturbed: bool,
}

/// A group that another member lent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BorrowedStatus {
    /// The member that gets it back.
    pub from: Name,
    /// It asks for it.
    pub back: bool,
}

/// A loan over a restart, as of one moment: times are what is left of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedLoan {
    /// Which drill it is for.
    pub tag: u64,
    /// The borrower.
    pub to: Name,
    /// The epoch that the borrower was last heard to own the group in.
    pub epoch: Epoch,
    /// Until it is asked back, in milliseconds; then for how long it is asked.
    pub left_ms: u64,
    /// For how long it is asked back at most, in milliseconds.
    pub patience_ms: u64,
    /// It is asked back.
    pub asking: bool,
    /// It is over.
    pub ended: Option<LoanEnd>,
    /// What [`LoanStatus::gap_ns`] is.
    pub gap_ns: Option<u64>,
    /// What [`LoanStatus::disturbed`] is.
    pub disturbed: bool,
}
