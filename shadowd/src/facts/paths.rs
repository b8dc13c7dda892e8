//! Paths between two hosts: an address of one and the address of the other on the same link.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::BootTime;

/// Which path: the place of its addresses in both configurations, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PathNumber(u8);

impl PathNumber {
    /// Between two hosts there are so many at most.
    pub const COUNT: usize = 4;
    /// The path that every two hosts have.
    pub const FIRST: Self = Self(0);

    /// The path in this place; none beyond [`Self::COUNT`].
    pub fn new(place: usize) -> Option<Self> {
        let number = u8::try_from(place).ok()?;
        (place < Self::COUNT).then_some(Self(number))
    }

    /// Its place.
    pub const fn place(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PathNumber {
    /// People count from 1.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0 + 1)
    }
}

/// What is known of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathState {
    /// Nothing came over it yet, and too little over others to tell.
    #[default]
    Unknown,
    /// What the peer says comes over it.
    Up,
    /// What the peer says comes over another path, and not over this one.
    Lost,
    /// The peer is not heard over any path.
    Silent,
}

impl fmt::Display for PathState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Lost => "lost",
            Self::Silent => "silent",
        })
    }
}

/// One path to a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathStatus {
    /// Where this host listens.
    pub local: String,
    /// Where the peer listens.
    pub remote: String,
    /// What is known of it.
    pub state: PathState,
    /// When the last authentic datagram came over it.
    pub last_heard: Option<BootTime>,
    /// The last round trip, there and back over this path.
    pub round_trip_ns: Option<u64>,
    /// The share of what the peer lately said that came over another path and not over this one,
    /// 0 to 1; none before anything was counted.
    pub loss: Option<f64>,
    /// Datagrams that came over it, whether first or after another path.
    pub arrived: u64,
    /// Datagrams that came over another path, and did not come over this one.
    pub missed: u64,
    /// Times the peer's kernel answered that nobody listens there.
    pub refused: u64,
}
