//! The echo of a peer's clock: what it sent last, moved on by how long ago that came.
//!
//! The peer reads its round trip from it without the time that this host took to answer, and a
//! successor for how long it inherits a lease.

use std::time::Duration;

use crate::facts::BootTime;

/// A datagram sent up to this long before the newest one came out of order; an older one comes
/// from a host that rebooted, and whose new run is not known yet.
const REORDERED: Duration = Duration::from_secs(1);
/// A clock is not echoed when it was read longer ago: clocks drift.
pub(super) const ECHO_AGE: Duration = Duration::from_secs(1);

/// What is kept of a peer's newest datagram.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo {
    newest: Option<Newest>,
}

#[derive(Clone, Copy, Debug)]
struct Newest {
    heard: BootTime,
    sent: BootTime,
}

impl Echo {
    /// A datagram that the peer sent at `sent`, on its own clock, came at `now`. False if a newer
    /// one overtook it, which changes nothing.
    pub fn on_datagram(&mut self, sent: BootTime, now: BootTime) -> bool {
        let overtaken = self
            .newest
            .is_some_and(|newest| sent < newest.sent && newest.sent.since(sent) < REORDERED);
        if !overtaken {
            self.newest = Some(Newest { heard: now, sent });
        }
        !overtaken
    }

    /// The peer's clock to be echoed at `now`; none while it was not heard lately.
    pub fn at(&self, now: BootTime) -> Option<BootTime> {
        let newest = self.newest?;
        let age = now.since(newest.heard);
        (age <= ECHO_AGE).then(|| newest.sent.after(age))
    }

    /// When the newest datagram came.
    pub fn heard(&self) -> Option<BootTime> {
        self.newest.map(|newest| newest.heard)
    }
}
