//! What one voter has promised: members and witnesses each hold one of these for a group.
//!
//! A promise lasts for a time on the voter's own clock, from when the request arrived. Until then
//! nobody else gets one, so whoever holds the promises of a majority can have no rival. The holder
//! counts from when it *sent* the request, which was before, and stops a margin earlier, because
//! two clocks do not run alike ([`drift_margin`]).
//!
//! Promises live in memory: a voter that starts anew gives none for the longest time it may have
//! promised before (Gray and Cheriton, "Leases", 1989). What outlives it is in [`super::memory`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::facts::{BootTime, Epoch, HostId, KeptPromise};

/// Clocks of two hosts drift apart by at most this share: each by 0.1 %. Crystals are off by tens of
/// ppm and the kernel's frequency correction goes to 500 ppm (`MAXFREQ` in
/// include/linux/timex.h); a time daemon that slews faster, which adjtimex(2) allows up to 10 %, is
/// beyond this bound.
const DRIFT: u32 = 500;

/// Nobody owns a group so often between two heartbeats, not even after years apart.
const EPOCH_LEAP: u64 = 1 << 32;

/// Whether no sound member says this epoch to who knows `newest`. Adopting it could leave no epoch for
/// anybody to claim, and no restart would mend it.
pub(super) fn is_absurd(epoch: Epoch, newest: Epoch) -> bool {
    epoch.counter > newest.counter.saturating_add(EPOCH_LEAP)
}

/// By how much a holder stops before the promise runs out.
pub(super) fn drift_margin(lease: Duration) -> Duration {
    lease / DRIFT
}

/// One voter's memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Voter {
    /// The longest it promises.
    pub longest: Duration,
    /// It started too recently to know what it promised before.
    pub quiet_until: BootTime,
    pub promise: Option<Promise>,
    /// The newest epoch it ever promised anything in.
    pub newest: Epoch,
    /// The disk remembers this promise, so that as much may be given.
    pub backed: Option<KeptPromise>,
    /// This one is on its way to the disk.
    pub writing: Option<KeptPromise>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Promise {
    pub epoch: Epoch,
    pub until: BootTime,
}

/// A request that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Another request of the same kind may succeed after this; zero: never in this epoch.
    pub wait: Duration,
    /// The epoch that stands in the way.
    pub epoch: Epoch,
}

impl Voter {
    /// A voter that starts now, and promises for up to `longest` at a time.
    pub fn new(longest: Duration, newest: Epoch, now: BootTime) -> Self {
        Self {
            longest,
            quiet_until: now.after(longest),
            promise: None,
            newest,
            backed: None,
            writing: None,
        }
    }

    /// The newest epoch it ever promised anything in.
    pub fn newest(&self) -> Epoch {
        self.newest
    }

    /// Who asks owns the group in `epoch`, or wants to, and may count on this voter for the time
    /// that is returned, unless it is refused.
    pub fn promise(
        &mut self,
        epoch: Epoch,
        lease: Duration,
        now: BootTime,
    ) -> Result<Duration, Refused> {
        self.grant(epoch, lease.min(self.longest), now)
    }

    /// As [`Self::promise`], for as long as is asked.
    pub(super) fn grant(
        &mut self,
        epoch: Epoch,
        lease: Duration,
        now: BootTime,
    ) -> Result<Duration, Refused> {
        let held = self.promise.filter(|promise| now < promise.until);
        let refused = |until: BootTime, epoch| {
            Err(Refused {
                wait: until.since(now).max(Duration::from_nanos(1)),
                epoch,
            })
        };
        if now < self.quiet_until {
            return refused(self.quiet_until, self.newest);
        }
        // An owner may raise its own epoch while others are still kept out for it.
        if let Some(held) = held.filter(|held| held.epoch.owner != epoch.owner) {
            return refused(held.until, held.epoch);
        }
        if epoch < self.newest {
            let (wait, epoch) = (Duration::ZERO, self.newest);
            return Err(Refused { wait, epoch });
        }
        let until = now.after(lease);
        // A shorter promise takes nothing back of a longer one.
        let until = held.map_or(until, |held| held.until.max(until));
        self.newest = epoch;
        self.promise = Some(Promise { epoch, until });
        Ok(lease)
    }

    /// Who was promised something in `epoch` does not need it any more.
    pub fn release(&mut self, epoch: Epoch) {
        if self.promise.is_some_and(|promise| promise.epoch == epoch) {
            self.promise = None;
        }
    }

    /// What was promised in `epoch` is `to`'s from now on, in the next epoch, for as long as was
    /// promised.
    pub fn transfer(&mut self, epoch: Epoch, to: HostId, now: BootTime) {
        let Some(held) = self
            .promise
            .filter(|held| held.epoch == epoch && now < held.until)
        else {
            return;
        };
        let Some(counter) = epoch.counter.checked_add(1) else {
            return;
        };
        self.newest = Epoch { counter, owner: to };
        self.promise = Some(Promise {
            epoch: self.newest,
            until: held.until,
        });
    }

    /// As [`Self::transfer`], by who owned the group itself: until `until` nobody but `to` gets this
    /// vote. A successor counts on the others' promises until then, and they may last longer than
    /// this one; one that missed the word would still vote for the former owner.
    pub fn hand_on(&mut self, epoch: Epoch, to: HostId, until: BootTime, now: BootTime) {
        if until <= now {
            return self.transfer(epoch, to, now);
        }
        let Some(counter) = epoch.counter.checked_add(1) else {
            return;
        };
        let held = self.held(now);
        if held.is_some_and(|(held, _)| held.owner != epoch.owner) {
            // It ran out here before, and somebody else has it.
            self.quiet_until = self.quiet_until.max(until);
            return;
        }
        let until = held.map_or(until, |(_, held)| held.max(until));
        let epoch = Epoch { counter, owner: to };
        self.newest = self.newest.max(epoch);
        self.promise = Some(Promise { epoch, until });
    }

    /// Until when it keeps the others out for `owner`, in whatever epoch; the past if it does not.
    pub fn promised_to(&self, owner: HostId) -> BootTime {
        let promise = self.promise.filter(|promise| promise.epoch.owner == owner);
        promise.map_or_else(BootTime::default, |promise| promise.until)
    }

    /// Whom it keeps the others out for, and until when.
    pub fn held(&self, now: BootTime) -> Option<(Epoch, BootTime)> {
        let held = self.promise.filter(|promise| now < promise.until)?;
        Some((held.epoch, held.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(30);
    const LONGEST: Duration = Duration::from_millis(480);

    fn at(millis: u64) -> BootTime {
        BootTime::from_nanos(millis * 1_000_000)
    }

    fn epoch(counter: u64, owner: u8) -> Epoch {
        let owner = HostId::from_bytes([owner; 32]);
        Epoch { counter, owner }
    }

    fn voter() -> Voter {
        Voter::new(LONGEST, Epoch::NONE, at(0))
    }

    #[test]
    fn a_voter_that_just_started_promises_nothing() {
        let mut voter = voter();
        let refused = voter.promise(epoch(1, 1), LEASE, at(479)).unwrap_err();
        assert_eq!(refused.wait, Duration::from_millis(1));
        assert_eq!(voter.promise(epoch(1, 1), LEASE, at(480)), Ok(LEASE));
    }

    #[test]
    fn nobody_else_gets_a_promise_before_the_first_one_ran_out() {
        let mut voter = voter();
        assert_eq!(voter.promise(epoch(1, 1), LEASE, at(500)), Ok(LEASE));
        let refused = voter.promise(epoch(2, 2), LEASE, at(529)).unwrap_err();
        assert_eq!(
            refused,
            Refused {
                wait: Duration::from_millis(1),
                epoch: epoch(1, 1)
            }
        );
        assert_eq!(
            voter.promise(epoch(1, 1), LEASE, at(529)),
            Ok(LEASE),
            "renewed"
        );
        assert!(voter.promise(epoch(2, 2), LEASE, at(558)).is_err());
        assert_eq!(voter.promise(epoch(2, 2), LEASE, at(559)), Ok(LEASE));
        let old = voter.promise(epoch(1, 1), LEASE, at(700)).unwrap_err();
        assert_eq!(
            old,
            Refused {
                wait: Duration::ZERO,
                epoch: epoch(2, 2)
            }
        );
    }

    #[test]
    fn an_owner_raises_its_own_epoch() {
        let mut voter = voter();
        assert_eq!(voter.promise(epoch(1, 1), LEASE, at(500)), Ok(LEASE));
        assert_eq!(voter.promise(epoch(7, 1), LEASE, at(510)), Ok(LEASE));
        assert!(voter.promise(epoch(8, 2), LEASE, at(539)).is_err());
    }

    #[test]
    fn a_shorter_promise_takes_nothing_back() {
        let mut voter = voter();
        let long = LONGEST * 2;
        assert_eq!(voter.promise(epoch(1, 1), long, at(500)), Ok(LONGEST));
        assert_eq!(voter.promise(epoch(1, 1), LEASE, at(501)), Ok(LEASE));
        assert!(voter.promise(epoch(2, 2), LEASE, at(979)).is_err());
    }

    #[test]
    fn what_is_released_or_transferred_binds_no_longer_or_another() {
        let mut voter = voter();
        assert_eq!(voter.promise(epoch(1, 1), LEASE, at(500)), Ok(LEASE));
        voter.release(epoch(9, 9));
        assert!(voter.promise(epoch(2, 2), LEASE, at(501)).is_err());
        voter.transfer(epoch(1, 1), HostId::from_bytes([2; 32]), at(501));
        assert!(voter.promise(epoch(3, 3), LEASE, at(501)).is_err());
        assert!(voter.promise(epoch(1, 1), LEASE, at(501)).is_err());
        assert_eq!(voter.promise(epoch(2, 2), LEASE, at(501)), Ok(LEASE));
        voter.release(epoch(2, 2));
        assert_eq!(voter.promise(epoch(3, 3), LEASE, at(501)), Ok(LEASE));
    }

    /// The former owner keeps itself out for as long as the successor counts on what others promised.
    #[test]
    fn who_hands_on_is_bound_for_as_long_as_the_successor_counts_on_it() {
        let to = HostId::from_bytes([2; 32]);
        // Its own vote runs out at 530, or has run out.
        for now in [at(501), at(535)] {
            let mut voter = voter();
            assert_eq!(voter.promise(epoch(1, 1), LEASE, at(500)), Ok(LEASE));
            voter.hand_on(epoch(1, 1), to, at(560), now);
            let refused = voter.promise(epoch(3, 1), LEASE, at(559)).unwrap_err();
            assert_eq!(
                (refused.wait, refused.epoch),
                (Duration::from_millis(1), epoch(2, 2))
            );
            assert_eq!(voter.promise(epoch(2, 2), LEASE, at(540)), Ok(LEASE));
        }
        // Somebody else has it: then nobody gets it until the successor counts on it no more.
        let mut voter = voter();
        assert_eq!(voter.promise(epoch(2, 3), LEASE, at(500)), Ok(LEASE));
        voter.hand_on(epoch(1, 1), to, at(560), at(505));
        assert!(voter.promise(epoch(3, 1), LEASE, at(559)).is_err());
        assert!(voter.promise(epoch(3, 1), LEASE, at(560)).is_ok());
        // What is over binds nobody.
        let mut voter = self::voter();
        voter.hand_on(epoch(1, 1), to, at(490), at(500));
        assert!(voter.promise(epoch(3, 1), LEASE, at(500)).is_ok());
    }

    #[test]
    fn an_epoch_that_nobody_reaches_is_told_from_one_of_years_apart() {
        let newest = epoch(7, 1);
        assert!(!is_absurd(epoch(7 + (1 << 32), 2), newest));
        assert!(is_absurd(epoch(8 + (1 << 32), 2), newest));
        assert!(!is_absurd(epoch(u64::MAX, 2), epoch(u64::MAX - 1, 1)));
    }
}
