//! A version of a profile: content-addressed, with its parent, its reason and its author.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Digest256, Profile};
use crate::facts::{HostId, Name};

/// The identity of a version: the BLAKE3 hash of its canonical bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionId(Digest256);

/// What is not a [`VersionId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not the id of a version: expected 52 base32 letters, as `shadowctl profile history` prints"
)]
pub struct VersionIdError;

/// What keeps the hash of a version apart from all other hashes.
const CONTEXT: &str = "shadowd 2026 version of a profile";

impl VersionId {
    /// The identity of a version with these canonical bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(bytes);
        Self(hasher.finalize().into())
    }

    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Digest256::from_bytes(bytes))
    }

    /// The hash itself.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The first letters, enough for people to tell versions apart.
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VersionId({})", self.short())
    }
}

impl FromStr for VersionId {
    type Err = VersionIdError;

    fn from_str(text: &str) -> Result<Self, VersionIdError> {
        text.parse().map(Self).map_err(|_| VersionIdError)
    }
}

/// Why a version was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The first of its group.
    First,
    /// Something changed and stayed so: what, in words.
    Deviation(String),
    /// An operator went back to an earlier version.
    Rollback(VersionId),
    /// An operator wants no other version until further notice.
    Pin,
    /// That is over.
    Unpin,
    /// An operator chose the golden version.
    GoldenSet(VersionId),
    /// An operator made the golden version the one in use.
    GoldenApply(VersionId),
    /// It was imported from a file: the content of this version.
    Import(VersionId),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("the first"),
            Self::Deviation(what) => f.write_str(what),
            Self::Rollback(to) => write!(f, "back to {}", to.short()),
            Self::Pin => f.write_str("pinned"),
            Self::Unpin => f.write_str("no longer pinned"),
            Self::GoldenSet(id) => write!(f, "{} is golden", id.short()),
            Self::GoldenApply(id) => write!(f, "the golden one, {}", id.short()),
            Self::Import(id) => write!(f, "imported: {}", id.short()),
        }
    }
}

/// A version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Of which group.
    pub group: Name,
    /// How many versions came before it on its way; the first is 1.
    pub number: u64,
    /// The version it was made from; none for the first.
    pub parent: Option<VersionId>,
    /// The host that made it, which signed it.
    pub author: HostId,
    /// When, milliseconds since the Unix epoch on the author's wall clock: for people only.
    pub wall_ms: i64,
    /// Why.
    pub reason: Reason,
    /// No version follows that nobody asked for.
    pub pinned: bool,
    /// The golden version of the group, if one was chosen.
    pub golden: Option<VersionId>,
    /// What was learned until then.
    pub profile: Profile,
}

impl Version {
    /// A longer one (canonical bytes) is none.
    pub const BYTES_MAX: usize = 8 << 20;
    /// A higher number is none: a line of one a second is there after a million years.
    pub const NUMBER_MAX: u64 = 1 << 48;
    /// A line comes no further in years: who leaps further uses up the numbers of all.
    pub const LEAP_MAX: u64 = 1 << 20;
}

/// A version as it is stored and sent: its canonical bytes, and its author's signature of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The canonical bytes.
    pub bytes: Vec<u8>,
    /// The author's public key (DER SubjectPublicKeyInfo), whose hash is its id.
    pub key: Vec<u8>,
    /// Its signature of the bytes.
    pub signature: Vec<u8>,
}
