//! The datagram keys of every peer, and the counts of what was done with them.
//!
//! Shared between the stream, which puts keys in, and the datagrams, which use them. A rekey is
//! make-before-break: a new session's key opens at once, but this host seals with it only when
//! the peer has shown, under the new session, that it has the key too (its hello on the stream,
//! or a datagram). Keys outlive their stream; they go when newer sessions need the room. Nothing
//! here waits for anything but a mutex that is held for microseconds, and no clock is read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use super::codec;
use super::seal::{Buffer, Header, OpenError, SealError, SessionKeys};
use crate::facts::{Datagram, LinkCounters, Name};

/// Sessions kept per peer.
const SESSIONS: usize = 4;

/// What happened to connections, since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    /// Streams that authenticated and exchanged hellos, dialled or accepted.
    pub established: u64,
    /// Accepted connections that failed: not TLS 1.3, not a peer, wrong hello, or too slow.
    pub refused: u64,
    /// Accepted connections closed unread, because too many unauthenticated ones were open.
    pub crowded: u64,
    /// Dials that failed.
    pub failed_dials: u64,
}

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

/// Every key. One for the whole daemon, behind an [`Arc`].
pub struct Keyring {
    inner: Mutex<Inner>,
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
}

struct Session {
    number: u64,
    keys: SessionKeys,
    /// The peer has shown that it has the keys.
    confirmed: bool,
    /// The peer's hello came on the stream.
    greeted: bool,
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
            inner: Mutex::new(Inner {
                peers,
                strangers: LinkCounters::default(),
                streams: StreamCounters::default(),
                next_session: 0,
            }),
        }
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
                .any(|session| session.open && session.greeted)
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
                greeted: false,
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

    /// Opens a datagram in place; `None` when it is not an authentic, new datagram of a peer,
    /// which is counted and changes nothing else.
    pub(super) fn open(&self, bytes: &mut [u8]) -> Option<(Name, Datagram)> {
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
                return peer
                    .open(session, &header, bytes)
                    .map(|datagram| (name.clone(), datagram));
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

    fn open(&mut self, session: usize, header: &Header, bytes: &mut [u8]) -> Option<Datagram> {
        let session = &mut self.sessions[session];
        let opened = match session.keys.opening.open(header, bytes) {
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
        match codec::decode(opened) {
            Ok(datagram) => {
                self.counters.received += 1;
                Some(datagram)
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
    /// Notes that the peer's hello came: the peer has the keys.
    pub(super) fn greeted(&self) {
        self.change(|session| {
            session.confirmed = true;
            session.greeted = true;
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
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.change(|session| session.open = false);
    }
}

#[cfg(test)]
mod tests {
    use super::super::seal::tests::pair;
    use super::*;
    use crate::facts::BootTime;

    /// Two rings, a's and b's; a dials.
    struct Ends {
        a: Arc<Keyring>,
        b: Arc<Keyring>,
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn datagram(sent: u64) -> Datagram {
        Datagram {
            sent: BootTime::from_nanos(sent),
            heard: None,
            messages: Vec::new(),
        }
    }

    impl Ends {
        fn new() -> Self {
            Self {
                a: Arc::new(Keyring::new([name("b")])),
                b: Arc::new(Keyring::new([name("a")])),
            }
        }

        fn session(&self, number: u64) -> (OpenSession, OpenSession) {
            let (dialer, accepter) = pair(number);
            (
                self.a.install(&name("b"), dialer),
                self.b.install(&name("a"), accepter),
            )
        }

        fn seal(&self, number: u64) -> Option<Vec<u8>> {
            let mut buffer = [0; Datagram::MAX_BYTES];
            let length = self
                .a
                .seal(&name("b"), &datagram(number), &mut buffer)
                .ok()?;
            Some(buffer[..length].to_vec())
        }

        fn a_to_b(&self, number: u64) -> bool {
            let Some(mut sealed) = self.seal(number) else {
                return false;
            };
            self.b.open(&mut sealed) == Some((name("a"), datagram(number)))
        }

        fn b_to_a(&self, number: u64) -> bool {
            let mut buffer = [0; Datagram::MAX_BYTES];
            let Ok(length) = self.b.seal(&name("a"), &datagram(number), &mut buffer) else {
                return false;
            };
            self.a.open(&mut buffer[..length]) == Some((name("b"), datagram(number)))
        }
    }

    #[test]
    fn nothing_is_sealed_before_the_peer_has_shown_its_key() {
        let ends = Ends::new();
        let (a, b) = ends.session(1);
        assert!(!ends.a_to_b(1));
        a.greeted();
        assert!(ends.a.connected(&name("b")) && !ends.b.connected(&name("a")));
        // a's datagram confirms the session to b as well as its hello would.
        assert!(ends.a_to_b(2) && ends.b_to_a(3));
        drop((a, b));
        assert!(!ends.a.connected(&name("b")));
        assert!(
            ends.a_to_b(4) && ends.b_to_a(5),
            "keys outlive their stream"
        );
    }

    #[test]
    fn a_rekey_never_interrupts_either_direction() {
        let ends = Ends::new();
        let first = ends.session(1);
        first.0.greeted();
        first.1.greeted();
        drop(first.0); // a sees the stream close long before b does.
        let keys = pair(2);
        let a = ends.a.install(&name("b"), keys.0);
        assert!(
            ends.a_to_b(1) && ends.b_to_a(2),
            "b has not finished the handshake"
        );
        let b = ends.b.install(&name("a"), keys.1);
        assert!(ends.a_to_b(3) && ends.b_to_a(4), "no hello yet");
        b.greeted();
        assert!(ends.a_to_b(5) && ends.b_to_a(6), "b seals with the new key");
        a.greeted();
        drop(first.1);
        assert!(ends.a_to_b(7) && ends.b_to_a(8));
        assert_eq!(ends.a.counters(&name("b")).received, 4);
        assert_eq!(ends.a.strangers().forged + ends.b.strangers().forged, 0);
    }

    #[test]
    fn sessions_that_come_to_nothing_never_push_out_the_used_one() {
        let ends = Ends::new();
        let (a, b) = ends.session(1);
        a.greeted();
        b.greeted();
        assert!(ends.a_to_b(1) && ends.b_to_a(1));
        drop((a, b));
        for number in 2..50 {
            // The handshake completes at both ends, but a's hello only: b never confirms.
            let (_a, _b) = ends.session(number);
            assert!(
                ends.a_to_b(number) && ends.b_to_a(number),
                "session {number}"
            );
        }
    }

    #[test]
    fn an_evicted_sessions_datagrams_are_strangers() {
        let ends = Ends::new();
        let (a, b) = ends.session(1);
        a.greeted();
        b.greeted();
        let mut old = ends.seal(1).unwrap();
        let mut kept = Vec::new();
        for number in 2..=6 {
            let (a, b) = ends.session(number);
            a.greeted();
            b.greeted();
            assert!(ends.a_to_b(number) && ends.b_to_a(number));
            kept.push((a, b));
        }
        assert_eq!(ends.b.open(&mut old), None);
        assert_eq!(ends.b.strangers().forged, 1);
    }

    #[test]
    fn what_is_not_authentic_is_counted_where_it_belongs() {
        let ends = Ends::new();
        let (a, b) = ends.session(1);
        a.greeted();
        b.greeted();
        let sealed = ends.seal(1).unwrap();
        assert!(ends.b.open(&mut sealed.clone()).is_some());
        assert_eq!(ends.b.open(&mut sealed.clone()), None);
        assert_eq!(ends.a.open(&mut sealed.clone()), None, "reflected");
        let mut next = ends.seal(2).unwrap();
        *next.last_mut().unwrap() ^= 1;
        assert_eq!(ends.b.open(&mut next), None);
        assert_eq!(ends.b.open(&mut [0; 8]), None);
        let expected = LinkCounters {
            received: 1,
            replayed: 1,
            forged: 1,
            ..Default::default()
        };
        assert_eq!(ends.b.counters(&name("a")), expected);
        assert_eq!(
            ends.b.strangers(),
            LinkCounters {
                malformed: 1,
                ..Default::default()
            }
        );
        assert_eq!(
            ends.a.strangers(),
            LinkCounters {
                forged: 1,
                ..Default::default()
            }
        );
    }
}
