//! One TLS stream per pair of hosts: the host with the smaller id dials, the other accepts.
//!
//! Accepts with bounds on connections that have not authenticated; `dial` is the other side.
//! Every handshake that succeeds puts its datagram keys into the [`Keyring`]
//! before this side says hello, so a peer that heard the hello may rely on them. Nothing that
//! happens here, or fails to happen, silences the datagrams.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use ring::rand::{SecureRandom as _, SystemRandom};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tracing::{debug, info, warn};

use super::admission::{Admission, Rate};
use super::dial::{Dialer, ROTATION};
use super::frame::{FrameStream, Hello};
use super::identity::Identity;
use super::keyring::{Keyring, OpenSession};
use super::post::Post;
use super::seal::{EXPORTER_LABEL, SessionKeys, Side};
use super::session::{self, LinkError};
use super::socket::free_bind;
use super::tls;
use crate::config::settings::PeerSettings;
use crate::facts::{HostId, Name};

/// TLS and the hellos together.
pub(super) const AUTHENTICATE: Duration = Duration::from_secs(2);
/// Unauthenticated connections from addresses of peers, and from all others: strangers cannot use
/// up what peers need.
const HANDSHAKES_PEERS: usize = 32;
const HANDSHAKES_STRANGERS: usize = 8;
/// Handshakes of addresses of no peer: some 100 us each. Those of peers have no rate, which
/// whoever forges their address could use up.
const UNKNOWN_SOURCE: Rate = Rate {
    burst: 32,
    pause: Duration::from_millis(200),
};
const UNKNOWN_SOURCES: Rate = Rate {
    burst: 128,
    pause: Duration::from_millis(20),
};
/// Pause after the listening socket failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const BACKLOG: i32 = 128;

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
    /// The kernel gives no random bytes.
    #[error("the kernel gives no random bytes")]
    Random,
}

/// The listening sockets, bound, so that what is wrong with the addresses shows at start.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<TcpListener>,
    addresses: Arc<[SocketAddr]>,
    rotation: Duration,
}

impl Listener {
    /// Binds `addresses`, of which this host needs to have the first only. Must be called within a
    /// tokio runtime.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, StreamError> {
        let (mut sockets, mut bound) = (Vec::new(), Vec::new());
        for (place, address) in addresses.iter().enumerate() {
            let failed = |source| StreamError::Listen {
                address: *address,
                source,
            };
            let socket = listening(*address, place > 0).map_err(failed)?;
            bound.push(socket.local_addr().map_err(failed)?);
            sockets.push(socket);
        }
        Ok(Self {
            sockets,
            addresses: bound.into(),
            rotation: ROTATION,
        })
    }

    /// The addresses it is bound to.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Renews streams so often.
    #[cfg(test)]
    pub(super) const fn rotating(mut self, rotation: Duration) -> Self {
        self.rotation = rotation;
        self
    }

    /// Keeps one stream with each of `peers` until `shutdown` is true or its sender is gone.
    /// Every peer must be in the keyring, and in the post, whose letters pass over the streams.
    pub async fn run(
        self,
        identity: Identity,
        peers: Vec<PeerSettings>,
        own_name: Name,
        (keyring, post): (Arc<Keyring>, Arc<Post>),
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<(), StreamError> {
        check_ids(&identity, &peers)?;
        let hello = Hello {
            version: session::VERSION,
            name: own_name,
            run: keyring.run(new_run()?),
        };
        let shared = Arc::new(Shared {
            hello,
            keyring,
            post,
        });
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
                locals: Arc::clone(&self.addresses),
                peer,
                place: AtomicUsize::new(0),
                rotation: self.rotation,
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
        let addresses = peers.iter().flat_map(|peer| &peer.addresses);
        let doors = Arc::new(Doors::new(addresses.map(SocketAddr::ip)));
        let accepter = Arc::new(accepter);
        let accepts = self
            .sockets
            .into_iter()
            .map(|socket| accept_forever(socket, Arc::clone(&accepter), Arc::clone(&doors)));
        tokio::select! {
            // The sender going away means the same as a request to stop.
            _ = shutdown.wait_for(|stop| *stop) => {}
            _ = join_all(accepts) => {}
        }
        // Dropped streams are closed by the kernel, which tells the peers at once.
        dials.shutdown().await;
        Ok(())
    }
}

/// [`Listener::bind`] and [`Listener::run`] in one.
pub async fn run(
    identity: Identity,
    listen: &[SocketAddr],
    peers: Vec<PeerSettings>,
    own_name: Name,
    keyring: Arc<Keyring>,
    shutdown: watch::Receiver<bool>,
) -> Result<(), StreamError> {
    let (post, _letters) = Post::new(peers.iter().map(|peer| peer.name.clone()));
    Listener::bind(listen)?
        .run(
            identity,
            peers,
            own_name,
            (keyring, Arc::new(post)),
            shutdown,
        )
        .await
}

/// What every stream of this host needs.
#[derive(Debug)]
pub(super) struct Shared {
    hello: Hello,
    pub(super) keyring: Arc<Keyring>,
    pub(super) post: Arc<Post>,
}

/// A stream on which both sides have said hello.
pub(super) struct Established {
    pub(super) stream: FrameStream<TlsStream<TcpStream>>,
    pub(super) session: OpenSession,
}

impl Shared {
    /// A stream has ended; counts it when the peer broke the protocol.
    pub(super) fn note_end(&self, cause: &LinkError) {
        if cause.is_violation() {
            self.keyring.count_stream(|streams| streams.violations += 1);
        }
    }

    /// Puts the keys into the ring, then exchanges hellos.
    pub(super) async fn establish(
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
        let run = session::greet(&mut stream, &self.hello, peer).await?;
        session.greeted(run);
        Ok(Established { stream, session })
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
        // An older stream is still served: the peer renews it.
        let renews = accepted.newest.receiver_count() > 0;
        let mut newest = accepted.newest.subscribe();
        let mut own = 0;
        accepted.newest.send_modify(|number| {
            *number += 1;
            own = *number;
        });
        if renews {
            self.shared
                .keyring
                .count_stream(|streams| streams.renewed += 1);
            debug!(%peer, %address, "link renewed");
        } else {
            info!(%peer, %address, "link up");
        }
        let cause = tokio::select! {
            cause = session::keep(&mut stream, session::PACE, (peer, &self.shared.post)) => cause,
            _ = newest.wait_for(|number| *number != own) => LinkError::Replaced,
        };
        drop(session);
        self.shared.note_end(&cause);
        if !matches!(cause, LinkError::Replaced) {
            info!(%peer, %address, cause = cause.chain(), "link down");
        }
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

/// Who may come in, whichever of the addresses it comes to.
struct Doors {
    peers: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    admission: Mutex<Admission>,
}

impl Doors {
    fn new(peers: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            peers: Arc::new(Semaphore::new(HANDSHAKES_PEERS)),
            strangers: Arc::new(Semaphore::new(HANDSHAKES_STRANGERS)),
            admission: Mutex::new(Admission::new(peers, UNKNOWN_SOURCE, UNKNOWN_SOURCES)),
        }
    }

    /// A permit for a connection from `source`; `shared` counts why there is none.
    fn admit(&self, source: IpAddr, shared: &Shared) -> Option<OwnedSemaphorePermit> {
        // Every change is complete before anything that could panic.
        let mut admission = self
            .admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let places = match admission.knows(source) {
            true => &self.peers,
            false => &self.strangers,
        };
        let Ok(permit) = Arc::clone(places).try_acquire_owned() else {
            shared.keyring.count_stream(|streams| streams.crowded += 1);
            return None;
        };
        if !admission.admits(source, Instant::now()) {
            shared.keyring.count_stream(|streams| streams.limited += 1);
            return None;
        }
        Some(permit)
    }
}

async fn accept_forever(socket: TcpListener, accepter: Arc<Accepter>, doors: Arc<Doors>) {
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
        let Some(permit) = doors.admit(address.ip(), &accepter.shared) else {
            continue;
        };
        let accepter = Arc::clone(&accepter);
        served.spawn(async move { accepter.serve(stream, address, permit).await });
    }
}

/// A listening socket; `missing`: also while this host does not have the address.
fn listening(address: SocketAddr, missing: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if missing {
        free_bind(&socket, address)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

pub(super) fn tcp_socket(address: IpAddr) -> std::io::Result<TcpSocket> {
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

/// Tells this run of the daemon from every other.
fn new_run() -> Result<[u8; 16], StreamError> {
    let mut run = [0; 16];
    SystemRandom::new()
        .fill(&mut run)
        .map_err(|_| StreamError::Random)?;
    Ok(run)
}
