//! What a voter knows of the time before it: so that a daemon that is started again forgets no
//! promise, and need not be quiet where it is sure that it forgot none.
//!
//! Two things reach a voter that starts ([`Memory`]):
//! - the vote at rest of a daemon that ended cleanly in the same boot: all there is to know;
//! - the newest promise that was kept on the disk, because it is longer than the quiet time; one of
//!   an earlier boot, whose clock is gone, holds from the start of the voter on.
//!
//! Whatever is not there is taken for the worst: then the voter is quiet, as [`Voter::new`] is. So
//! is one that counts other voters than the one before it, which still keeps what that promised.

use std::time::Duration;

use super::pause::PAUSE_MAX;
use super::voter::{Promise, Refused, Voter};
use super::{Group, Witness};
use crate::facts::{BootTime, Epoch, KeptPromise, KeptVote, Memory};

/// A promise is kept for longer than it is asked for, by this part of it: who asks, asks again and
/// again, and the disk is not written for each time.
const ROOM: u32 = 4;

impl Voter {
    /// As [`Voter::promise`], for an owner whose daemon is about to be silent. What is longer than
    /// the quiet time of a start is given only once the disk remembers it: what is to be kept there
    /// is returned beside the answer, and more is given when the owner asks again.
    pub(super) fn promise_pause(
        &mut self,
        epoch: Epoch,
        silent: Duration,
        now: BootTime,
    ) -> (Result<Duration, Refused>, Option<KeptPromise>) {
        let wanted = silent.min(PAUSE_MAX);
        let covers = |kept: Option<KeptPromise>| {
            let kept = kept.filter(|kept| kept.epoch.owner == epoch.owner);
            kept.map_or(Duration::ZERO, |kept| kept.until.since(now))
        };
        let backed = covers(self.backed).max(self.longest);
        let answer = self.grant(epoch, wanted.min(backed), now);
        if answer.is_err() || wanted <= backed || wanted <= covers(self.writing) {
            return (answer, None);
        }
        let length = wanted + wanted / ROOM;
        let keep = KeptPromise {
            epoch,
            until: now.after(length),
            length_ns: u64::try_from(length.as_nanos()).unwrap_or(u64::MAX),
        };
        self.writing = Some(keep);
        (answer, Some(keep))
    }

    /// The own vote of an owner that pauses. It is at rest with the ownership itself; a daemon that
    /// finds neither has taken the addresses away before it votes for anybody.
    pub(super) fn promise_self(
        &mut self,
        epoch: Epoch,
        silent: Duration,
        now: BootTime,
    ) -> Result<Duration, Refused> {
        self.grant(epoch, silent.min(PAUSE_MAX), now)
    }

    fn promise_kept(&mut self, kept: KeptPromise) {
        self.backed = Some(kept);
    }

    /// This vote, to be kept by a daemon that promises nothing afterwards.
    fn at_rest(&self, asked: u64, electorate: u64) -> KeptVote {
        KeptVote {
            electorate,
            quiet_until: self.quiet_until,
            promise: self.promise.map(|held| (held.epoch, held.until)),
            newest: self.newest,
            asked,
        }
    }

    fn remember(&mut self, memory: &Memory, electorate: u64) {
        self.backed = memory.promise;
        if let Some(vote) = &memory.kept.vote {
            self.newest = self.newest.max(vote.newest);
            // Among other voters what this one knows of itself is not all: a majority of the ones
            // before may hold a promise that it does not know.
            if vote.electorate == electorate {
                self.quiet_until = vote.quiet_until;
            }
            let promise = vote.promise;
            self.promise = promise.map(|(epoch, until)| Promise { epoch, until });
        } else if let Some(kept) = memory.promise {
            // It may have been given, or taken back since: nobody knows.
            let KeptPromise { epoch, until, .. } = kept;
            self.newest = self.newest.max(epoch);
            self.promise = Some(Promise { epoch, until });
        }
    }
}

impl Group {
    /// What the daemon before this one left: the vote, and the ownership that it paused. For a
    /// member that just started, before anything else; whether the group is owned, as before.
    pub fn remember(&mut self, memory: &Memory, now: BootTime) -> bool {
        if let Some(lease) = &mut self.lease {
            lease.own.remember(memory, lease.electorate);
            let asked = memory.kept.vote.as_ref().map_or(0, |vote| vote.asked);
            lease.asked = lease.asked.max(asked);
        }
        let pause = memory.kept.pause.as_ref();
        pause.is_some_and(|pause| self.resume(pause, now))
    }

    /// This member's vote, for a daemon that ends now; none where no lease protects the group.
    pub fn vote_at_rest(&self) -> Option<KeptVote> {
        let lease = self.lease.as_ref()?;
        Some(lease.own.at_rest(lease.asked, lease.electorate))
    }

    pub(super) fn promise_kept(&mut self, kept: KeptPromise) {
        if let Some(lease) = &mut self.lease {
            lease.own.promise_kept(kept);
        }
    }
}

impl Witness {
    /// What the daemon before this one left. For a witness that just started.
    pub fn remember(&mut self, memory: &Memory) {
        self.voter.remember(memory, self.electorate);
    }

    /// Its vote, for a daemon that ends now.
    pub fn vote_at_rest(&self) -> KeptVote {
        self.voter.at_rest(0, self.electorate)
    }

    /// A promise is on the disk, as [`super::Action::KeepPromise`] asked.
    pub fn on_promise_kept(&mut self, kept: KeptPromise) {
        self.voter.promise_kept(kept);
    }
}
