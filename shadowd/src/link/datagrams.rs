//! The UDP side of the links: sealed datagrams out, authentic ones in.
//!
//! One socket for each path. What is said goes over every path, as the same bytes: what comes first
//! is news, the rest shows that its path works. For one thread, the one that fails over. Sending
//! never waits; receiving never answers, so what does not authenticate has no effect but a count.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::time::Instant;
use tracing::{debug, error};

use super::admission::{Admission, Rate};
use super::keyring::{Arrival, Keyring, NotSealed};
use super::refusals::Refusals;
use super::seal::Buffer;
use super::socket::{PathSocket, Report, is_of_network};
use crate::facts::{Datagram, Name, PathNumber};

/// Bad datagrams read in a row before other tasks of the thread get their turn.
const BAD_IN_A_ROW: u32 = 32;
/// Errors of the sockets in a row that mean they will not recover.
const ERRORS_IN_A_ROW: u32 = 64;
/// Reports read in a row, before what has arrived is looked at again.
const REPORTS_IN_A_ROW: u32 = 64;

/// Datagrams from addresses of no peer that are decrypted because they name a key of a peer, which
/// anybody on the way can read. One that is authentic makes its source a peer's.
const UNKNOWN_SOURCE: Rate = Rate {
    burst: 32,
    pause: Duration::from_millis(20),
};
const UNKNOWN_SOURCES: Rate = Rate {
    burst: 1_000,
    pause: Duration::from_millis(1),
};

/// What reaches the sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An authentic datagram.
    Arrival(Arrival),
    /// A peer's kernel answered, to a datagram that was sent to the peer over this path, that nobody
    /// listens there. Whoever saw the datagram can say so too: it is a hint and no more.
    Refusal(Name, PathNumber),
}

/// The datagram sockets.
#[derive(Debug)]
pub struct Datagrams {
    /// One for each path, in order.
    sockets: Vec<PathSocket>,
    /// The socket of the newest datagram, if the next one was not waited for since.
    last: Option<usize>,
    keyring: Arc<Keyring>,
    admission: Admission,
    refusals: Refusals,
    /// Refusals that were read and not handed out yet.
    refused: VecDeque<(Name, PathNumber)>,
    /// One byte more than the bound, so that a longer datagram shows.
    inbox: [u8; Datagram::MAX_BYTES + 1],
    outbox: Box<Buffer>,
    /// A datagram that cannot be sealed was reported: once is enough, heartbeats are many.
    reported: bool,
}

enum Ready {
    Datagram(PathNumber, io::Result<(usize, SocketAddr)>),
    Reports(usize),
}

impl Datagrams {
    /// Binds `listens`, one for each path, for peers that are at `peers` and may be elsewhere too.
    /// This host need not have the addresses but the first. Must be called within the tokio runtime
    /// that will receive.
    pub fn bind(
        listens: &[SocketAddr],
        peers: impl IntoIterator<Item = IpAddr>,
        keyring: Arc<Keyring>,
    ) -> io::Result<Self> {
        let listens = listens.iter().take(PathNumber::COUNT).enumerate();
        let sockets = listens.map(|(place, listen)| PathSocket::bind(*listen, place > 0));
        Ok(Self {
            sockets: sockets.collect::<io::Result<_>>()?,
            last: None,
            keyring,
            admission: Admission::new(peers, UNKNOWN_SOURCE, UNKNOWN_SOURCES),
            refusals: Refusals::default(),
            refused: VecDeque::new(),
            inbox: [0; Datagram::MAX_BYTES + 1],
            outbox: Box::new([0; Datagram::MAX_BYTES]),
            reported: false,
        })
    }

    /// The addresses it is bound to.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(PathSocket::address).collect()
    }

    /// The next thing that is heard. What is not authentic is counted and skipped. Cancel-safe.
    /// Errors only when the sockets have failed for good.
    pub async fn recv(&mut self) -> io::Result<Heard> {
        let mut errors = 0;
        let mut bad = 0;
        loop {
            if let Some((peer, path)) = self.refused.pop_front() {
                return Ok(Heard::Refusal(peer, path));
            }
            // The other tasks of the thread have their turn, however much arrives.
            tokio::task::coop::consume_budget().await;
            let last = self.last.take();
            match ready(&self.sockets, last, &mut self.inbox).await {
                Ready::Datagram(path, received) => {
                    self.last = Some(path.place());
                    match received {
                        Ok((length, source)) => {
                            errors = 0;
                            if let Some(opened) = self.open(path, length, source.ip()) {
                                return Ok(Heard::Arrival(opened));
                            }
                        }
                        Err(error) => {
                            errors += u32::from(!is_of_network(&error));
                            if errors >= ERRORS_IN_A_ROW {
                                return Err(error);
                            }
                            debug!(%error, %path, "a datagram could not be received");
                        }
                    }
                }
                Ready::Reports(place) => self.read_reports(place),
            }
            bad += 1;
            if bad % BAD_IN_A_ROW == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn open(&mut self, path: PathNumber, length: usize, source: IpAddr) -> Option<Arrival> {
        if length > Datagram::MAX_BYTES {
            self.keyring.count_oversized();
            return None;
        }
        let admission = &mut self.admission;
        let may_cost = || admission.admits(source, Instant::now());
        let bytes = &mut self.inbox[..length];
        let opened = self.keyring.open(path, bytes, may_cost)?;
        // A copy may be played to another path by somebody who saw it on its way.
        if !opened.copy {
            self.admission.learn(source);
        }
        Some(opened)
    }

    fn read_reports(&mut self, place: usize) {
        let Some(path) = PathNumber::new(place) else {
            return;
        };
        for _ in 0..REPORTS_IN_A_ROW {
            match self.sockets[place].report(&mut self.inbox) {
                None => return,
                Some(Report::Other) => {}
                Some(Report::NobodyListens(quoted)) => {
                    let quoted = &self.inbox[..quoted.min(self.inbox.len())];
                    let refused = self.refusals.of(path, quoted);
                    self.refused.extend(refused.map(|peer| (peer, path)));
                }
            }
        }
    }

    /// Sends bytes of nobody's over the first path.
    #[cfg(test)]
    pub(super) fn send_raw(&self, bytes: &[u8], to: SocketAddr) {
        let _ = self.sockets[0].send(to, bytes);
    }

    /// Seals `datagram` and sends it to the peer `to` at `addresses`, each over its path. Never
    /// waits: what cannot go at once over any is counted as unsent.
    pub fn send(&mut self, to: &Name, addresses: &[SocketAddr], datagram: &Datagram) {
        let sent = match self.keyring.seal(to, datagram, &mut self.outbox) {
            Ok(length) => {
                let sealed = &self.outbox[..length];
                self.refusals.note(to, sealed);
                let paths = self.sockets.iter().zip(addresses);
                paths.fold(false, |any, (socket, address)| {
                    socket.send(*address, sealed) | any
                })
            }
            Err(NotSealed::NoKey) => false,
            Err(NotSealed::Seal(cause)) => {
                if !self.reported {
                    error!(peer = %to, %cause, "heartbeats cannot be sealed");
                    self.reported = true;
                }
                false
            }
        };
        self.keyring.count_sent(to, sent);
    }
}

/// What is ready first: datagrams before reports, and the sockets in turns from the one after `last`
/// on, so that a flood on one does not hide the others. The runtime learns of what arrives only when
/// it has nothing else to do: while `last` keeps it busy the other sockets are read without it, else
/// a path would look lost for as long as the others have something to read.
async fn ready(sockets: &[PathSocket], last: Option<usize>, inbox: &mut [u8]) -> Ready {
    let first = last.map_or(0, |last| last + 1);
    if last.is_some() {
        for turn in 0..sockets.len() - 1 {
            let place = (first + turn) % sockets.len();
            let Some(path) = PathNumber::new(place) else {
                continue;
            };
            if let Some(received) = sockets[place].receive_now(inbox) {
                return Ready::Datagram(path, received);
            }
        }
    }
    let mut reports = pin!(select_all(
        sockets.iter().map(|socket| Box::pin(socket.reports()))
    ));
    poll_fn(|cx| {
        for turn in 0..sockets.len() {
            let place = (first + turn) % sockets.len();
            let Some(path) = PathNumber::new(place) else {
                continue;
            };
            if let Poll::Ready(received) = sockets[place].poll_receive(cx, inbox) {
                return Poll::Ready(Ready::Datagram(path, received));
            }
        }
        let reports = reports.as_mut().poll(cx);
        reports.map(|((), place, _)| Ready::Reports(place))
    })
    .await
}
