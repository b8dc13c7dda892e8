//! The datagram keys of every peer, and the counts of what was done with them.
//!
//! Shared between the stream, which puts keys in, and the datagrams, which use them. A rekey is
//! make-before-break: a new session's key opens at once, but this host seals with it only when
//! the peer has shown, under the new session, that it has the key too (its hello on the stream,
//! or a datagram). Keys outlive their stream; they go when newer sessions need the room. Nothing
//! here waits for anything but a mutex that is held for microseconds, and no clock is read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use thiserror::Error;

use super::codec;
use super::seal::{Buffer, Header, OpenError, SealError, SessionKeys};
use crate::facts::{Datagram, LinkCounters, Name, PathNumber, StreamCounters};

/// Sessions kept per peer.
const SESSIONS: usize = 4;

/// Why nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum NotSealed {
    /// No session with the peer was ever confirmed, or it is no peer.
    #[error("there is no key for this peer yet")]
    NoKey,
    /// The datagram or the key does not allow it.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// An authentic datagram that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Who sent it.
    pub from: Name,
    /// Which way it came.
    pub path: PathNumber,
    /// What it says.
    pub datagram: Datagram,
    /// It says what came over another path before.
    pub copy: bool,
    /// Counts the runs of the peer's daemon that this ring has met.
    pub run: u64,
}

/// Every key. One for the whole daemon, behind an [`Arc`].
pub struct Keyring {
    inner: Mutex<Inner>,
    /// Names this ring to peers: another ring of this host has none of its keys.
    run: OnceLock<[u8; 16]>,
}

struct Inner {
    peers: BTreeMap<Name, Peer>,
    strangers: LinkCounters,
    streams: StreamCounters,
    next_session: u64,
}

#[derive(Default)]
struct Peer {
    /// Oldest first, at most [`SESSIONS`].
    sessions: Vec<Session>,
    counters: LinkCounters,
    /// The session of the newest datagram that was opened.
    last_heard: Option<u64>,
    /// The newest session whose hello came, and the run that it named.
    greeted: Option<(u64, [u8; 16])>,
    /// How many runs the peer's daemon had.
    runs: u64,
}

struct Session {
    number: u64,
    keys: SessionKeys,
    /// The peer has shown that it has the keys.
    confirmed: bool,
    /// The run of the peer's daemon, once its hello came on the stream.
    run: Option<[u8; 16]>,
    /// The stream is open.
    open: bool,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").finish_non_exhaustive()
    }
}

impl Keyring {
    /// A ring for these peers, without keys.
    pub fn new(peers: impl IntoIterator<Item = Name>) -> Self {
        let peers = peers
            .into_iter()
            .map(|name| (name, Peer::default()))
            .collect();
        Self {
            run: OnceLock::new(),
            inner: Mutex::new(Inner {
                peers,
                strangers: LinkCounters::default(),
                streams: StreamCounters::default(),
                next_session: 0,
            }),
        }
    }

    /// What the ring is called: `proposed`, unless it has a name.
    pub(super) fn run(&self, proposed: [u8; 16]) -> [u8; 16] {
        *self.run.get_or_init(|| proposed)
    }

    /// What happened to the datagrams to and from `peer`; zeros for a name that is no peer.
    pub fn counters(&self, peer: &Name) -> LinkCounters {
        self.lock()
            .peers
            .get(peer)
            .map(|peer| peer.counters)
            .unwrap_or_default()
    }

    /// What happened to datagrams that could not be given to any peer.
    pub fn strangers(&self) -> LinkCounters {
        self.lock().strangers
    }

    /// What happened to connections.
    pub fn streams(&self) -> StreamCounters {
        self.lock().streams
    }

    /// Whether a stream with `peer` is open and both have said hello.
    pub fn connected(&self, peer: &Name) -> bool {
        self.lock().peers.get(peer).is_some_and(|peer| {
            peer.sessions
                .iter()
                .any(|session| session.open && session.run.is_some())
        })
    }

    /// Takes the keys of a new session with `peer`. They open datagrams from now on, and longer
    /// than the returned guard lives, which only stands for the stream being open.
    pub(super) fn install(self: &Arc<Self>, peer: &Name, keys: SessionKeys) -> OpenSession {
        let mut inner = self.lock();
        inner.next_session += 1;
        let number = inner.next_session;
        if let Some(peer) = inner.peers.get_mut(peer) {
            if peer.sessions.len() >= SESSIONS {
                let evicted = peer.evictable();
                peer.sessions.remove(evicted);
            }
            peer.sessions.push(Session {
                number,
                keys,
                confirmed: false,
                run: None,
                open: true,
            });
        }
        drop(inner);
        OpenSession {
            keyring: Arc::clone(self),
            peer: peer.clone(),
            number,
        }
    }

    /// Seals `datagram` for `to` into `buffer` and returns its length.
    pub(super) fn seal(
        &self,
        to: &Name,
        datagram: &Datagram,
        buffer: &mut Buffer,
    ) -> Result<usize, NotSealed> {
        let mut inner = self.lock();
        let peer = inner.peers.get_mut(to).ok_or(NotSealed::NoKey)?;
        let sender = peer.sender().ok_or(NotSealed::NoKey)?;
        Ok(peer.sessions[sender].keys.sealing.seal(datagram, buffer)?)
    }

    /// Counts what became of a datagram to `to`.
    pub(super) fn count_sent(&self, to: &Name, sent: bool) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let counters = inner
            .peers
            .get_mut(to)
            .map_or(&mut inner.strangers, |peer| &mut peer.counters);
        if sent {
            counters.sent += 1;
        } else {
            counters.unsent += 1;
        }
    }

    /// Opens a datagram that came over `path` in place; `None` when it is not an authentic datagram
    /// of a peer and new on this path, which is counted and changes nothing else. `may_cost` is asked
    /// before anything is decrypted.
    pub(super) fn open(
        &self,
        path: PathNumber,
        bytes: &mut [u8],
        may_cost: impl FnOnce() -> bool,
    ) -> Option<Arrival> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(header) = Header::read(bytes) else {
            inner.strangers.malformed += 1;
            return None;
        };
        for (name, peer) in &mut inner.peers {
            let claimed = peer
                .sessions
                .iter()
                .position(|one| one.keys.opening.is(&header));
            if let Some(session) = claimed {
                if !may_cost() {
                    inner.strangers.limited += 1;
                    return None;
                }
                let (datagram, copy) = peer.open(session, &header, path, bytes)?;
                let run = peer.runs;
                return Some(Arrival {
                    from: name.clone(),
                    path,
                    datagram,
                    copy,
                    run,
                });
            }
        }
        inner.strangers.forged += 1;
        None
    }

    /// Counts a datagram that is too long to have been read whole.
    pub(super) fn count_oversized(&self) {
        self.lock().strangers.malformed += 1;
    }

    /// Changes the counts of connections.
    pub(super) fn count_stream(&self, change: impl FnOnce(&mut StreamCounters)) {
        change(&mut self.lock().streams);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete before anything that could panic, so a poisoned ring is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    /// The hello of session `number` came, and named the run of the peer's daemon.
    fn greeted(&mut self, number: u64, run: [u8; 16]) {
        if self.greeted.is_some_and(|(newest, _)| number < newest) {
            return;
        }
        if self.greeted.is_none_or(|(_, known)| known != run) {
            self.runs += 1;
        }
        self.greeted = Some((number, run));
    }

    /// Whether the session is of a run that has ended: there is a newer one.
    fn is_over(&self, session: &Session) -> bool {
        let current = self.greeted.map(|(_, run)| run);
        session.run.is_some() && session.run != current
    }

    /// Index of the session to seal with: a confirmed one, preferably with an open stream (the
    /// peer is sure to be the process that made it), then the newest.
    fn sender(&self) -> Option<usize> {
        let confirmed = self
            .sessions
            .iter()
            .enumerate()
            .filter(|(_, one)| one.confirmed);
        confirmed
            .max_by_key(|(_, one)| (one.open, one.number))
            .map(|(index, _)| index)
    }

    /// Forgets the keys of earlier runs of the peer's daemon, which lost them when it ended: what
    /// comes sealed with them was held back by somebody.
    fn forget_earlier_runs(&mut self) {
        let current = self.greeted.map(|(_, run)| run);
        self.sessions
            .retain(|one| one.open || one.run.is_none() || one.run == current);
    }

    /// Index of the oldest session that neither direction is known to use. There is one, because
    /// the ring is full and holds more than two.
    fn evictable(&self) -> usize {
        let sender = self.sender();
        let unused = |(index, one): &(usize, &Session)| {
            Some(*index) != sender && Some(one.number) != self.last_heard
        };
        self.sessions
            .iter()
            .enumerate()
            .find(unused)
            .map_or(0, |(index, _)| index)
    }

    /// The datagram, and whether it came over another path before.
    fn open(
        &mut self,
        session: usize,
        header: &Header,
        path: PathNumber,
        bytes: &mut [u8],
    ) -> Option<(Datagram, bool)> {
        if self.is_over(&self.sessions[session]) {
            self.counters.replayed += 1;
            return None;
        }
        let session = &mut self.sessions[session];
        let opened = match session.keys.opening.open(header, path, bytes) {
            Ok(opened) => opened,
            Err(OpenError::Replayed) => {
                self.counters.replayed += 1;
                return None;
            }
            Err(OpenError::Forged) => {
                self.counters.forged += 1;
                return None;
            }
        };
        session.confirmed = true;
        self.last_heard = Some(session.number);
        match codec::decode(opened.bytes) {
            Ok(datagram) => {
                let count = match opened.copy {
                    true => &mut self.counters.copies,
                    false => &mut self.counters.received,
                };
                *count += 1;
                Some((datagram, opened.copy))
            }
            Err(_) => {
                self.counters.malformed += 1;
                None
            }
        }
    }
}

/// Stands for the open stream of a session; dropping it marks the stream closed and keeps the keys.
#[derive(Debug)]
pub(super) struct OpenSession {
    keyring: Arc<Keyring>,
    peer: Name,
    number: u64,
}

impl OpenSession {
    /// Notes that the hello of the peer's daemon came, in its run `run`: the peer has the keys.
    pub(super) fn greeted(&self, run: [u8; 16]) {
        if let Some(peer) = self.keyring.lock().peers.get_mut(&self.peer) {
            peer.greeted(self.number, run);
        }
        self.change(|session| {
            session.confirmed = true;
            session.run = Some(run);
        });
        self.keyring
            .count_stream(|streams| streams.established += 1);
    }

    fn change(&self, change: impl FnOnce(&mut Session)) {
        let mut inner = self.keyring.lock();
        let peer = inner.peers.get_mut(&self.peer);
        let session = peer.and_then(|peer| {
            peer.sessions
                .iter_mut()
                .find(|one| one.number == self.number)
        });
        if let Some(session) = session {
            change(session);
        }
        if let Some(peer) = inner.peers.get_mut(&self.peer) {
            peer.forget_earlier_runs();
        }
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.change(|session| session.open = false);
    }
}

#[cfg(test)]
mod tests;
