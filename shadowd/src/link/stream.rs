//! One TLS stream per pair of hosts: the host with the smaller id dials, the other accepts.
//!
//! Dials forever with bounded back-off; accepts with a bound on connections that have not
//! authenticated. Every handshake that succeeds puts its datagram keys into the [`Keyring`]
//! before this side says hello, so a peer that heard the hello may rely on them. Nothing that
//! happens here, or fails to happen, silences the datagrams.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::frame::{FrameStream, Hello};
use super::identity::Identity;
use super::keyring::{Keyring, OpenSession};
use super::seal::{EXPORTER_LABEL, SessionKeys, Side};
use super::session::{self, LinkError};
use super::tls;
use crate::config::settings::PeerSettings;
use crate::facts::{HostId, Name};

const CONNECT: Duration = Duration::from_secs(1);
/// TLS and the hellos together.
const AUTHENTICATE: Duration = Duration::from_secs(2);
/// Longest wait between two dials of a host that does not answer.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// The same for a host that refuses, because it is up and its daemon is about to be, and for one
/// that let a dial time out, because that was wait enough.
const LONGEST_WAIT_PROMISING: Duration = Duration::from_millis(100);
/// A stream that lived shorter does not count as a success for the back-off.
const SETTLED: Duration = Duration::from_secs(1);
/// Unauthenticated connections from addresses of peers, and from all others: strangers cannot use
/// up what peers need.
const HANDSHAKES_PEERS: usize = 32;
const HANDSHAKES_STRANGERS: usize = 8;
/// Pause after the listening socket failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const BACKLOG: u32 = 128;

/// Why the streams cannot be served at all. A single link that fails is no such error.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} (TCP)")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// TLS refuses this host's key or configuration.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// A peer is configured with this host's own identity.
    #[error("peer {0} has this host's own id")]
    OwnId(Name),
    /// Two peers are configured with one identity.
    #[error("peers {0} and {1} have the same id")]
    SameId(Name, Name),
    /// The kernel does not say which boot this is.
    #[error("cannot read the boot id")]
    BootId(#[source] std::io::Error),
}

/// The listening socket, bound, so that what is wrong with the address shows at start.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds `address`. Must be called within a tokio runtime.
    pub fn bind(address: SocketAddr) -> Result<Self, StreamError> {
        let bind = || {
            let socket = tcp_socket(address.ip())?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let socket = socket.listen(BACKLOG)?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        bind().map_err(|source| StreamError::Listen { address, source })
    }

    /// The address it is bound to.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Keeps one stream with each of `peers` until `shutdown` is true or its sender is gone.
    /// Every peer must be in `keyring`.
    pub async fn run(
        self,
        identity: Identity,
        peers: Vec<PeerSettings>,
        own_name: Name,
        keyring: Arc<Keyring>,
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<(), StreamError> {
        check_ids(&identity, &peers)?;
        let hello = Hello {
            version: session::VERSION,
            name: own_name,
            boot: boot_id().map_err(StreamError::BootId)?,
        };
        let shared = Arc::new(Shared { hello, keyring });
        let (dialled, accepted): (Vec<_>, Vec<_>) = peers
            .iter()
            .cloned()
            .partition(|peer| identity.id() < peer.id);
        let mut dials = JoinSet::new();
        for peer in dialled {
            let config = tls::dialer(&identity, peer.id).map_err(StreamError::Tls)?;
            let dialer = Dialer {
                shared: Arc::clone(&shared),
                connector: TlsConnector::from(config),
                local: self.address.ip(),
                peer,
            };
            dials.spawn(dialer.run());
        }
        let pins: BTreeSet<HostId> = accepted.iter().map(|peer| peer.id).collect();
        let config = tls::accepter(&identity, pins).map_err(StreamError::Tls)?;
        let accepter = Accepter {
            shared,
            acceptor: TlsAcceptor::from(config),
            peers: accepted
                .into_iter()
                .map(|peer| (peer.id, Accepted::new(peer.name)))
                .collect(),
        };
        let addresses = peers
            .iter()
            .map(|peer| peer.address.ip().to_canonical())
            .collect();
        tokio::select! {
            // The sender going away means the same as a request to stop.
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = accept_forever(self.socket, Arc::new(accepter), addresses) => {}
        }
        // Dropped streams are closed by the kernel, which tells the peers at once.
        dials.shutdown().await;
        Ok(())
    }
}

/// [`Listener::bind`] and [`Listener::run`] in one.
pub async fn run(
    identity: Identity,
    listen: SocketAddr,
    peers: Vec<PeerSettings>,
    own_name: Name,
    keyring: Arc<Keyring>,
    shutdown: watch::Receiver<bool>,
) -> Result<(), StreamError> {
    Listener::bind(listen)?
        .run(identity, peers, own_name, keyring, shutdown)
        .await
}

/// What every stream of this host needs.
#[derive(Debug)]
struct Shared {
    hello: Hello,
    keyring: Arc<Keyring>,
}

/// A stream on which both sides have said hello.
struct Established {
    stream: FrameStream<TlsStream<TcpStream>>,
    session: OpenSession,
}

impl Shared {
    /// Puts the keys into the ring, then exchanges hellos.
    async fn establish(
        &self,
        peer: &Name,
        keys: SessionKeys,
        stream: TlsStream<TcpStream>,
    ) -> Result<Established, LinkError> {
        if stream.get_ref().1.alpn_protocol() != Some(tls::PROTOCOL) {
            return Err(LinkError::Protocol);
        }
        let session = self.keyring.install(peer, keys);
        let mut stream = FrameStream::new(stream);
        session::greet(&mut stream, &self.hello, peer).await?;
        session.greeted();
        Ok(Established { stream, session })
    }
}

/// Dials one peer for as long as it runs.
struct Dialer {
    shared: Arc<Shared>,
    connector: TlsConnector,
    /// The address to dial from: never a virtual IP, which may leave this host at any time.
    local: IpAddr,
    peer: PeerSettings,
}

impl Dialer {
    async fn run(self) {
        let (peer, address) = (&self.peer.name, self.peer.address);
        let random = SystemRandom::new();
        let mut backoff = Backoff::new();
        // Kinds of failure already told since the link was last up: each is worth one line.
        let mut told = Vec::new();
        loop {
            let mut longest = LONGEST_WAIT;
            match self.dial().await {
                Ok(Established {
                    mut stream,
                    session,
                }) => {
                    info!(%peer, %address, "link up");
                    let since = Instant::now();
                    let cause = session::keep(&mut stream, session::PACE).await;
                    drop(session);
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

    async fn dial(&self) -> Result<Established, LinkError> {
        let connect = async {
            let socket = tcp_socket(self.peer.address.ip())?;
            if !self.local.is_unspecified() && self.local.is_ipv4() == self.peer.address.is_ipv4() {
                socket.bind(SocketAddr::new(self.local, 0))?;
            }
            let stream = socket.connect(self.peer.address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = timeout(CONNECT, connect)
            .await
            .map_err(|_| LinkError::Late("connection"))?
            .map_err(LinkError::Connect)?;
        let authenticate = async {
            let name = self.peer.address.ip().into();
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

/// Accepts the peers that dial this host.
struct Accepter {
    shared: Arc<Shared>,
    acceptor: TlsAcceptor,
    peers: BTreeMap<HostId, Accepted>,
}

/// A peer that dials this host.
struct Accepted {
    name: Name,
    /// Counts its streams; a stream ends when a newer one has been counted.
    newest: watch::Sender<u64>,
}

impl Accepted {
    fn new(name: Name) -> Self {
        Self {
            name,
            newest: watch::Sender::new(0),
        }
    }
}

impl Accepter {
    /// Serves one connection to its end. `permit` is given back when the peer has authenticated.
    async fn serve(&self, stream: TcpStream, address: SocketAddr, permit: OwnedSemaphorePermit) {
        let accepted = timeout(AUTHENTICATE, self.accept(stream)).await;
        drop(permit);
        let (
            accepted,
            Established {
                mut stream,
                session,
            },
        ) = match accepted.unwrap_or(Err(LinkError::Late("handshake"))) {
            Ok(accepted) => accepted,
            Err(error) => {
                self.shared
                    .keyring
                    .count_stream(|streams| streams.refused += 1);
                debug!(%address, cause = error.chain(), "connection refused");
                return;
            }
        };
        let peer = &accepted.name;
        let mut newest = accepted.newest.subscribe();
        let mut own = 0;
        accepted.newest.send_modify(|number| {
            *number += 1;
            own = *number;
        });
        info!(%peer, %address, "link up");
        let cause = tokio::select! {
            cause = session::keep(&mut stream, session::PACE) => cause,
            _ = newest.wait_for(|number| *number != own) => LinkError::Replaced,
        };
        drop(session);
        info!(%peer, %address, cause = cause.chain(), "link down");
    }

    async fn accept(&self, stream: TcpStream) -> Result<(&Accepted, Established), LinkError> {
        stream.set_nodelay(true).map_err(LinkError::Connect)?;
        let stream = self
            .acceptor
            .accept(stream)
            .await
            .map_err(LinkError::Handshake)?;
        let tls = stream.get_ref().1;
        let certificate = tls.peer_certificates().and_then(|chain| chain.first());
        let id = certificate.and_then(|certificate| tls::id_of(certificate).ok());
        let accepted = id
            .and_then(|id| self.peers.get(&id))
            .ok_or(LinkError::Stranger)?;
        let keys = SessionKeys::derive(Side::Accepter, |secret, context| {
            tls.export_keying_material(secret, EXPORTER_LABEL, Some(context))
        });
        let keys = keys.map_err(LinkError::Export)?;
        let established = self
            .shared
            .establish(&accepted.name, keys, stream.into())
            .await?;
        Ok((accepted, established))
    }
}

async fn accept_forever(socket: TcpListener, accepter: Arc<Accepter>, addresses: BTreeSet<IpAddr>) {
    let peers = Arc::new(Semaphore::new(HANDSHAKES_PEERS));
    let strangers = Arc::new(Semaphore::new(HANDSHAKES_STRANGERS));
    // Bounded by the semaphores and, once authenticated, by one stream per peer.
    let mut served = JoinSet::new();
    loop {
        while served.try_join_next().is_some() {}
        let (stream, address) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let from_peer = addresses.contains(&address.ip().to_canonical());
        let places = if from_peer { &peers } else { &strangers };
        let Ok(permit) = Arc::clone(places).try_acquire_owned() else {
            accepter
                .shared
                .keyring
                .count_stream(|streams| streams.crowded += 1);
            continue;
        };
        let accepter = Arc::clone(&accepter);
        served.spawn(async move { accepter.serve(stream, address, permit).await });
    }
}

fn tcp_socket(address: IpAddr) -> std::io::Result<TcpSocket> {
    if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
}

fn check_ids(identity: &Identity, peers: &[PeerSettings]) -> Result<(), StreamError> {
    let mut names = BTreeMap::new();
    for peer in peers {
        if peer.id == identity.id() {
            return Err(StreamError::OwnId(peer.name.clone()));
        }
        if let Some(other) = names.insert(peer.id, &peer.name) {
            return Err(StreamError::SameId(other.clone(), peer.name.clone()));
        }
    }
    Ok(())
}

/// The kernel's id of this boot, as bytes.
fn boot_id() -> std::io::Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.trim().chars().filter(|digit| *digit != '-').collect();
    u128::from_str_radix(&digits, 16)
        .map(u128::to_be_bytes)
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

fn jitter(random: &SystemRandom) -> u8 {
    let mut byte = [u8::MAX];
    // Without randomness the wait is the longest allowed: late, but never wrong.
    let _ = random.fill(&mut byte);
    byte[0]
}
