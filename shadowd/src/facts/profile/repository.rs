//! The central repository of versions: what is there, and how this host does with it.

use serde::{Deserialize, Serialize};

use super::VersionId;
use crate::facts::BootTime;

/// A version, as far as its order goes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Place {
    /// How many came before it, and itself.
    pub number: u64,
    /// Its identity.
    pub id: VersionId,
}

/// What a listing says of an object. Nothing of it is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Which version it is said to be.
    pub place: Place,
    /// Whatever the repository has to tell one content from another, as one number: it changes when
    /// somebody writes the object again.
    pub stamp: u64,
    /// Whether it is short enough to be a version.
    pub fits: bool,
}

/// What a repository has of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// It says nothing of versions with lower numbers.
    pub from: u64,
    /// The objects with the highest numbers, in order; at most [`Self::MAX`].
    pub objects: Vec<StoredObject>,
    /// Objects that are not named like a version. They are left alone.
    pub foreign: u64,
}

impl Listing {
    /// So many objects are looked at.
    pub const MAX: usize = 1_024;
}

/// How a group's versions on this host and in the repository stand to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryStatus {
    /// Where it is; without secrets.
    pub url: String,
    /// When it last answered.
    pub reached: Option<BootTime>,
    /// Since when it does not; none while it does.
    pub silent_since: Option<BootTime>,
    /// What went wrong last; none once that went well.
    pub error: Option<String>,
    /// When what is there was last listed.
    pub listed: Option<BootTime>,
    /// Versions that are there, as far as is known.
    pub there: usize,
    /// Versions that this host has and the repository lacks.
    pub to_put: usize,
    /// Versions that the repository has and this host wants.
    pub to_get: usize,
    /// Objects that are not what they are called: damaged, unsigned, of others.
    pub bad: usize,
    /// Objects of the last listing that are not named like a version.
    pub foreign: u64,
    /// Versions put there since the daemon started.
    pub put: u64,
    /// Versions that came from there since then.
    pub got: u64,
    /// Objects that were refused since then.
    pub refused: u64,
    /// Of those, how many were written again from here.
    pub mended: u64,
}
