//! What is done with the repository, and how it ended.

use crate::facts::Place;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Tell what is there, of versions with this number and higher ones.
    List {
        /// From which.
        from: u64,
    },
    /// Write a version of this host.
    Put {
        /// Which.
        place: Place,
        /// Whether an object of this name is written over: it is known to be bad.
        replace: bool,
    },
    /// Read an object and say what it is.
    Get(Place),
}

/// An operation, and the number under which its end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its number; none is used twice.
    pub token: u64,
    /// What.
    pub operation: Operation,
}

/// What an object was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The version that it is called, signed by a member.
    Good,
    /// Anything else: what.
    Bad(String),
    /// It is not there any more.
    Gone,
}

/// Why an operation did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody answered, or not in time.
    Unreached,
    /// The repository answered that it does not do this.
    Refused,
}

/// What an operator may want to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// It answers, for the first time or again.
    Reached,
    /// It does not answer any more, and why.
    Unreached(String),
    /// It answers, and does not do what it was asked for; why.
    Refused(String),
    /// An object is not what it is called; why.
    Bad(Place, String),
    /// Such an object was written again from here.
    Mended(Place),
}
