//! What a member knows of the voters: who they are, what each promised and answered, and until when
//! a majority keeps others out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::answers::Answers;
use super::group::Peer;
use super::stretch::{STRETCH_MAX, Stretch};
use super::voter::Voter;
use crate::config::settings::GroupSettings;
use crate::facts::{BootTime, Epoch, HostId, Name, Protection};

/// What this member knows of the other voters, and its own vote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Lease {
    pub own: Voter,
    /// The members and spares, in the group's order, then the witnesses.
    pub ballots: Vec<Ballot>,
    /// Whose own vote it is.
    me: HostId,
    /// This member is a voter: a spare is none.
    votes: bool,
    /// Voters that make a majority.
    majority: usize,
    /// Tells this set of voters from another.
    pub electorate: u64,
    /// The length that is asked for.
    pub length: Stretch,
    /// Which heartbeats of this owner were answered.
    pub answers: Answers,
    /// The last epoch that was asked for: none is asked for twice after it was given back.
    pub asked: u64,
}

/// One other voter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ballot {
    pub name: Name,
    pub id: HostId,
    pub witness: bool,
    /// It is no voter.
    pub spare: bool,
    /// Until when it promised to keep others out for this member, in an epoch of this member.
    pub until: BootTime,
    /// When it was last heard, as a voter.
    pub heard: Option<BootTime>,
}

/// The same for every order of the same voters; ids are hashes, so their sum is as good as one.
fn electorate<'a>(ids: impl Iterator<Item = &'a HostId>) -> u64 {
    ids.fold(0, |sum, id| {
        let mut word = [0; 8];
        word.copy_from_slice(&id.as_bytes()[..8]);
        sum.wrapping_add(u64::from_be_bytes(word))
    })
}

impl Lease {
    /// None when nothing protects the group.
    pub fn new(
        settings: &GroupSettings,
        me: &Peer,
        members: &[Peer],
        witnesses: &[Peer],
        newest: Epoch,
        now: BootTime,
    ) -> Option<Self> {
        if settings.protection == Protection::None {
            return None;
        }
        let ballot = |peer: &Peer, witness| Ballot {
            name: peer.name.clone(),
            id: peer.id,
            witness,
            spare: !witness && settings.spares.contains(&peer.name),
            until: BootTime::default(),
            heard: None,
        };
        let members = members.iter().map(|peer| ballot(peer, false));
        let witnesses = witnesses.iter().map(|peer| ballot(peer, true));
        let ballots: Vec<Ballot> = members.chain(witnesses).collect();
        let votes = !settings.spare;
        let voters = ballots.iter().filter(|ballot| !ballot.spare);
        let ids: Vec<HostId> = voters
            .map(|ballot| ballot.id)
            .chain(votes.then_some(me.id))
            .collect();
        Some(Self {
            own: Voter::new(longest(settings), newest, now),
            me: me.id,
            votes,
            majority: ids.len() / 2 + 1,
            electorate: electorate(ids.iter()),
            ballots,
            length: Stretch::new(useful(settings), now),
            answers: Answers::default(),
            asked: 0,
        })
    }

    /// Voters that make a majority with this member.
    pub fn needed(&self) -> usize {
        self.majority - usize::from(self.votes)
    }

    /// Until when a majority keeps others out for this member.
    pub fn deadline(&self) -> BootTime {
        // The own vote counts as long as it is not somebody else's.
        let own = self.votes.then(|| self.own.promised_to(self.me));
        let others = self.voters().map(|ballot| ballot.until);
        let mut until: Vec<BootTime> = others.chain(own).collect();
        until.sort_unstable_by(|one, other| other.cmp(one));
        until.get(self.majority - 1).copied().unwrap_or_default()
    }

    /// The other voters.
    pub fn voters(&self) -> impl Iterator<Item = &Ballot> {
        self.ballots.iter().filter(|ballot| !ballot.spare)
    }

    /// How many voters there are, this member included if it is one.
    pub fn count(&self) -> usize {
        self.voters().count() + usize::from(self.votes)
    }

    /// Whether so many voters as make a majority exist.
    pub fn has_majority(&self) -> bool {
        (1..=self.count()).contains(&self.majority)
    }

    /// What was promised is not this member's any more.
    pub fn forget(&mut self) {
        for ballot in &mut self.ballots {
            ballot.until = BootTime::default();
        }
    }

    /// The share of lost heartbeats, where it has changed.
    pub fn losses(&mut self, share: Option<u32>, heartbeat: Duration, now: BootTime) {
        if let Some(share) = share {
            self.length.losses(share, heartbeat, now);
        }
    }

    /// The next one that was never asked for.
    pub fn next(&mut self, newest: Epoch, owner: HostId) -> Option<Epoch> {
        let counter = newest.counter.max(self.asked).checked_add(1)?;
        self.asked = counter;
        Some(Epoch { counter, owner })
    }
}

/// The part of a lease that can keep it: the renewal that leaves as a lease ends arrives after it,
/// and one that is a quarter of a heartbeat late is as good as lost. So long a lease only keeps a
/// successor waiting.
fn useful(settings: &GroupSettings) -> Duration {
    settings.lease.saturating_sub(settings.heartbeat / 4)
}

/// The longest lease that members of such a group ask for.
pub(super) fn longest(settings: &GroupSettings) -> Duration {
    settings.lease * STRETCH_MAX
}

/// What tells a set of voters from another one.
pub(super) fn electorate_of(ids: &[HostId]) -> u64 {
    electorate(ids.iter())
}
