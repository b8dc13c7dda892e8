//! Dials one peer, keeps the stream, and renews it: a new handshake, and so new keys, every
//! [`ROTATION`].
//!
//! The old stream stays until the new one has said hello, and its keys for longer (see `keyring`),
//! so a renewal that fails, however often, costs nothing but its attempt. A peer that has several
//! addresses is dialled at the next one after each dial that failed, and after a stream on which
//! nothing was heard any more.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tracing::{debug, info};

use super::backoff::Backoff;
use super::seal::{EXPORTER_LABEL, SessionKeys, Side};
use super::session::{self, LinkError};
use super::stream::{AUTHENTICATE, Established, Shared, tcp_socket};
use crate::config::settings::PeerSettings;

/// How long keys are in use, and up to a quarter less. With four sessions kept for each peer, no
/// key is held for longer than an hour; ChaCha20-Poly1305 would allow 2^62 datagrams.
pub(super) const ROTATION: Duration = Duration::from_secs(15 * 60);
const CONNECT: Duration = Duration::from_secs(1);
/// Longest wait between two dials of a host that does not answer.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// The same for a host that refuses, because it is up and its daemon is about to be, and for one
/// that let a dial time out, because that was wait enough.
const LONGEST_WAIT_PROMISING: Duration = Duration::from_millis(100);
/// A stream that lived shorter does not count as a success for the back-off.
const SETTLED: Duration = Duration::from_secs(1);
/// Dials one peer for as long as it runs.
pub(super) struct Dialer {
    pub(super) shared: Arc<Shared>,
    pub(super) connector: TlsConnector,
    /// The addresses to dial from, for each of the peer's: never a virtual IP, which may leave this
    /// host at any time.
    pub(super) locals: Arc<[SocketAddr]>,
    pub(super) peer: PeerSettings,
    /// Which of the peer's addresses is next.
    pub(super) place: AtomicUsize,
    pub(super) rotation: Duration,
}

impl Dialer {
    pub(super) async fn run(self) {
        let peer = &self.peer.name;
        let random = SystemRandom::new();
        let mut backoff = Backoff::new();
        // Kinds of failure already told since the link was last up: each is worth one line.
        let mut told = Vec::new();
        loop {
            let mut longest = LONGEST_WAIT;
            let (address, _) = self.address();
            match self.dial().await {
                Ok(mut established) => {
                    info!(%peer, %address, "link up");
                    let since = Instant::now();
                    let cause = loop {
                        match self.hold(established, &random).await {
                            Ok(renewed) => established = renewed,
                            Err(cause) => break cause,
                        }
                    };
                    self.shared.note_end(&cause);
                    if matches!(cause, LinkError::Silent(_) | LinkError::Stalled(_)) {
                        self.turn_to_the_next();
                    }
                    info!(%peer, %address, cause = cause.chain(), "link down");
                    told.clear();
                    if since.elapsed() >= SETTLED {
                        backoff.reset();
                    }
                }
                Err(error) => {
                    self.shared
                        .keyring
                        .count_stream(|streams| streams.failed_dials += 1);
                    let cause = error.chain();
                    let kind = std::mem::discriminant(&error);
                    if told.contains(&kind) {
                        debug!(%peer, %address, cause, "link failed");
                    } else {
                        info!(%peer, %address, cause, "link failed, dialling on");
                        told.push(kind);
                    }
                    if is_promising(&error) {
                        longest = LONGEST_WAIT_PROMISING;
                    }
                }
            }
            sleep(backoff.next(jitter(&random), longest)).await;
        }
    }

    /// Keeps the stream until it is renewed, or ends for the given cause. A renewal that fails is
    /// tried again, while the stream goes on.
    async fn hold(
        &self,
        established: Established,
        random: &SystemRandom,
    ) -> Result<Established, LinkError> {
        let peer = &self.peer.name;
        let Established {
            mut stream,
            session,
        } = established;
        let mut kept = pin!(session::keep(
            &mut stream,
            session::PACE,
            (peer, &self.shared.post)
        ));
        loop {
            let wait = self.rotation * 3 / 4 + self.rotation / 4 * u32::from(jitter(random)) / 255;
            tokio::select! {
                cause = &mut kept => return Err(cause),
                () = sleep(wait) => {}
            }
            // Pings go on meanwhile. The peer ends this stream when it has the new one, which may
            // be seen here first.
            let mut dial = pin!(self.dial());
            let (dialled, ended) = tokio::select! {
                dialled = &mut dial => (dialled, None),
                cause = &mut kept => (dial.await, Some(cause)),
            };
            match (dialled, ended) {
                (Ok(renewed), _) => {
                    self.shared
                        .keyring
                        .count_stream(|streams| streams.renewed += 1);
                    debug!(%peer, "link renewed");
                    drop(session);
                    return Ok(renewed);
                }
                (Err(error), ended) => {
                    self.shared
                        .keyring
                        .count_stream(|streams| streams.failed_dials += 1);
                    debug!(%peer, cause = error.chain(), "the link cannot be renewed");
                    if let Some(cause) = ended {
                        return Err(cause);
                    }
                }
            }
        }
    }

    /// The peer's address that is to be dialled, and the own one to dial it from.
    fn address(&self) -> (SocketAddr, Option<SocketAddr>) {
        let addresses = &self.peer.addresses;
        let place = self.place.load(Ordering::Relaxed) % addresses.len().max(1);
        (addresses[place], self.locals.get(place).copied())
    }

    fn turn_to_the_next(&self) {
        self.place.fetch_add(1, Ordering::Relaxed);
    }

    async fn dial(&self) -> Result<Established, LinkError> {
        let (to, from) = self.address();
        let dialled = self.dial_at(to, from).await;
        if dialled.is_err() {
            self.turn_to_the_next();
        }
        dialled
    }

    async fn dial_at(
        &self,
        to: SocketAddr,
        from: Option<SocketAddr>,
    ) -> Result<Established, LinkError> {
        let connect = async {
            let socket = tcp_socket(to.ip())?;
            let usable =
                |own: &SocketAddr| !own.ip().is_unspecified() && own.is_ipv4() == to.is_ipv4();
            if let Some(own) = from.filter(usable) {
                socket.bind(SocketAddr::new(own.ip(), 0))?;
            }
            let stream = socket.connect(to).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = timeout(CONNECT, connect)
            .await
            .map_err(|_| LinkError::Late("connection"))?
            .map_err(LinkError::Connect)?;
        let authenticate = async {
            let name = to.ip().into();
            let stream = self
                .connector
                .connect(name, stream)
                .await
                .map_err(LinkError::Handshake)?;
            let tls = stream.get_ref().1;
            let keys = SessionKeys::derive(Side::Dialer, |secret, context| {
                tls.export_keying_material(secret, EXPORTER_LABEL, Some(context))
            });
            let keys = keys.map_err(LinkError::Export)?;
            self.shared
                .establish(&self.peer.name, keys, stream.into())
                .await
        };
        timeout(AUTHENTICATE, authenticate)
            .await
            .map_err(|_| LinkError::Late("handshake"))?
    }
}

/// Whether the next dial should come soon: see [`LONGEST_WAIT_PROMISING`].
fn is_promising(error: &LinkError) -> bool {
    match error {
        LinkError::Connect(source) => source.kind() == std::io::ErrorKind::ConnectionRefused,
        LinkError::Late(_) => true,
        _ => false,
    }
}

fn jitter(random: &SystemRandom) -> u8 {
    let mut byte = [u8::MAX];
    // Without randomness the wait is the longest allowed: late, but never wrong.
    let _ = random.fill(&mut byte);
    byte[0]
}
