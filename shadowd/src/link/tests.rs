//! Two daemons' links on the loopback interface: identities, streams and datagrams together.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, timeout};
use tokio_rustls::TlsConnector;

mod attacks;
mod paths;

use super::*;
use crate::config::settings::PeerSettings;
use crate::facts::{BootTime, Datagram, HostId, LinkCounters, Name};

/// Everything here takes milliseconds; this only ends a test that would hang.
const DEADLINE: Duration = Duration::from_secs(20);

struct Host {
    name: Name,
    identity: Identity,
    /// Kept over a restart, as a configured port is.
    tcp: SocketAddr,
    /// How often its streams are renewed.
    rotation: Duration,
}

/// A host whose daemon runs.
struct Daemon {
    keyring: Arc<Keyring>,
    datagrams: Datagrams,
    streams: JoinHandle<Result<(), StreamError>>,
    shutdown: watch::Sender<bool>,
    sequence: u64,
}

fn identity() -> Identity {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir: PathBuf =
        std::env::temp_dir().join(format!("shadowd-link-{}-{number}", std::process::id()));
    let identity = Identity::load_or_create(&dir).unwrap();
    std::fs::remove_dir_all(dir).unwrap();
    identity
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

impl Host {
    fn new(name: &str, identity: Identity) -> Self {
        // A loopback address of its own and a port that the kernel gives to nobody unasked, so
        // that a restarted daemon gets the same one.
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed) as u8;
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let tcp = SocketAddr::from(([127, high | 0x80, low, number], 7000));
        Self {
            name: name.parse().unwrap(),
            identity,
            tcp,
            rotation: dial::ROTATION,
        }
    }

    /// The host that dials and the host that accepts.
    fn pair() -> (Self, Self) {
        let (a, b) = (identity(), identity());
        let (a, b) = if a.id() < b.id() { (a, b) } else { (b, a) };
        (Self::new("a", a), Self::new("b", b))
    }

    fn start(&self, peer: &Self, pin: HostId) -> Daemon {
        let keyring = Arc::new(Keyring::new([peer.name.clone()]));
        let datagrams = Datagrams::bind(&[loopback()], [], Arc::clone(&keyring)).unwrap();
        let (shutdown, stop) = watch::channel(false);
        let peers = vec![PeerSettings {
            name: peer.name.clone(),
            id: pin,
            addresses: vec![peer.tcp],
        }];
        let listener = Listener::bind(&[self.tcp]).unwrap().rotating(self.rotation);
        let run = listener.run(
            self.identity.clone(),
            peers,
            self.name.clone(),
            (Arc::clone(&keyring), post(peer)),
            stop,
        );
        Daemon {
            keyring,
            datagrams,
            streams: tokio::spawn(run),
            shutdown,
            sequence: 0,
        }
    }
}

/// A post whose letters nobody reads.
fn post(peer: &Host) -> Arc<Post> {
    Arc::new(Post::new([peer.name.clone()]).0)
}

impl Daemon {
    async fn stop(self) {
        self.shutdown.send(true).unwrap();
        self.streams.await.unwrap().unwrap();
    }

    fn address(&self) -> SocketAddr {
        self.datagrams.addresses().unwrap()[0]
    }

    /// The next datagram and its sender; refusals are passed over.
    async fn hear(&mut self) -> std::io::Result<(Name, Datagram)> {
        loop {
            if let Heard::Arrival(arrival) = self.datagrams.recv().await? {
                return Ok((arrival.from, arrival.datagram));
            }
        }
    }

    fn send(&mut self, to: &Host, address: SocketAddr) -> Datagram {
        self.sequence += 1;
        let sent = BootTime::from_nanos(self.sequence);
        let datagram = Datagram {
            sent,
            heard: None,
            echoes: Default::default(),
            messages: Vec::new(),
        };
        self.datagrams.send(&to.name, &[address], &datagram);
        datagram
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future)
        .await
        .expect("did not happen in time")
}

async fn until(mut condition: impl FnMut() -> bool) {
    let mut look = interval(Duration::from_millis(2));
    soon(async {
        while !condition() {
            look.tick().await;
        }
    })
    .await;
}

/// Sends until a datagram arrives; says how many were sent in vain.
async fn flows(from: &mut Daemon, from_host: &Host, to: &mut Daemon, to_host: &Host) -> u32 {
    let address = to.address();
    let mut beat = interval(Duration::from_millis(5));
    soon(async {
        for vain in 0.. {
            beat.tick().await;
            from.send(to_host, address);
            let arrived = timeout(Duration::from_millis(5), to.hear()).await;
            if let Ok(arrived) = arrived {
                assert_eq!(arrived.unwrap().0, from_host.name);
                return vain;
            }
        }
        unreachable!("the loop has no end but the deadline")
    })
    .await
}

/// Runs both hosts until the link is up.
async fn linked(a: &Host, b: &Host) -> (Daemon, Daemon) {
    let (first, second) = (a.start(b, b.identity.id()), b.start(a, a.identity.id()));
    until(|| first.keyring.connected(&b.name) && second.keyring.connected(&a.name)).await;
    (first, second)
}

#[tokio::test]
async fn datagrams_flow_both_ways() {
    let (a, b) = Host::pair();
    let (mut at_a, mut at_b) = linked(&a, &b).await;
    let (to_a, to_b) = (at_a.address(), at_b.address());
    for _ in 0..100 {
        let sent = at_a.send(&b, to_b);
        assert_eq!(soon(at_b.hear()).await.unwrap(), (a.name.clone(), sent));
        let sent = at_b.send(&a, to_a);
        assert_eq!(soon(at_a.hear()).await.unwrap(), (b.name.clone(), sent));
    }
    let expected = LinkCounters {
        sent: 100,
        received: 100,
        ..LinkCounters::default()
    };
    assert_eq!(at_a.keyring.counters(&b.name), expected);
    assert_eq!(at_b.keyring.counters(&a.name), expected);
    assert_eq!(at_a.keyring.strangers(), LinkCounters::default());
    assert_eq!(at_b.keyring.streams().established, 1);
    at_a.stop().await;
    until(|| !at_b.keyring.connected(&a.name)).await;
    at_b.stop().await;
}

#[tokio::test]
async fn a_restarted_daemon_has_its_link_back_at_once() {
    let (a, b) = Host::pair();
    let (at_a, at_b) = linked(&a, &b).await;
    let (mut at_a, mut at_b) = (at_a, at_b);
    // The dialer restarts, then the accepter; each loses all its keys.
    at_a.stop().await;
    let began = Instant::now();
    at_a = a.start(&b, b.identity.id());
    flows(&mut at_b, &b, &mut at_a, &a).await;
    flows(&mut at_a, &a, &mut at_b, &b).await;
    let dialer_back = began.elapsed();
    at_b.stop().await;
    // The survivor dials in vain for a while, until its back-off is at the bound.
    until(|| at_a.keyring.streams().failed_dials >= 6).await;
    let began = Instant::now();
    at_b = b.start(&a, a.identity.id());
    flows(&mut at_a, &a, &mut at_b, &b).await;
    flows(&mut at_b, &b, &mut at_a, &a).await;
    let accepter_back = began.elapsed();
    // 100 ms by design; the rest is for a busy machine.
    let bound = Duration::from_millis(500);
    assert!(
        dialer_back < bound && accepter_back < bound,
        "{dialer_back:?} {accepter_back:?}"
    );
    at_a.stop().await;
    at_b.stop().await;
}

#[tokio::test]
async fn heartbeats_go_on_without_the_stream_and_across_a_rekey() {
    let (a, b) = Host::pair();
    let (at_a, mut at_b) = linked(&a, &b).await;
    // Only a's streams end, as when a firewall cuts TCP: the keyring and the datagrams stay.
    let Daemon {
        keyring,
        datagrams,
        streams,
        shutdown,
        sequence,
    } = at_a;
    shutdown.send(true).unwrap();
    streams.await.unwrap().unwrap();
    until(|| !at_b.keyring.connected(&a.name)).await;
    let (shutdown, stop) = watch::channel(false);
    let mut at_a = Daemon {
        keyring,
        datagrams,
        streams: tokio::spawn(async { Ok(()) }),
        shutdown,
        sequence,
    };
    let (to_a, to_b) = (at_a.address(), at_b.address());
    let exchange = async |at_a: &mut Daemon, at_b: &mut Daemon| {
        let sent = at_a.send(&b, to_b);
        assert_eq!(soon(at_b.hear()).await.unwrap(), (a.name.clone(), sent));
        let sent = at_b.send(&a, to_a);
        assert_eq!(soon(at_a.hear()).await.unwrap(), (b.name.clone(), sent));
    };
    for _ in 0..20 {
        exchange(&mut at_a, &mut at_b).await;
    }
    // A new session is made while datagrams flow: not one of them may be refused.
    let peers = vec![PeerSettings {
        name: b.name.clone(),
        id: b.identity.id(),
        addresses: vec![b.tcp],
    }];
    let listener = Listener::bind(&[a.tcp]).unwrap();
    let shared = (Arc::clone(&at_a.keyring), post(&b));
    at_a.streams =
        tokio::spawn(listener.run(a.identity.clone(), peers, a.name.clone(), shared, stop));
    let mut after = 0;
    while after < 20 {
        exchange(&mut at_a, &mut at_b).await;
        if at_a.keyring.connected(&b.name) && at_b.keyring.connected(&a.name) {
            after += 1;
        }
    }
    for (ring, peer) in [(&at_a.keyring, &b.name), (&at_b.keyring, &a.name)] {
        let counters = ring.counters(peer);
        assert_eq!(counters.sent, counters.received);
        assert_eq!(
            (counters.unsent, counters.forged, counters.replayed),
            (0, 0, 0)
        );
        assert_eq!(ring.strangers(), LinkCounters::default());
    }
    at_a.stop().await;
    at_b.stop().await;
}

#[tokio::test]
async fn a_wrong_pin_is_refused_by_either_side() {
    let (a, b) = Host::pair();
    // The dialer expects another accepter.
    let other = loop {
        let other = identity();
        if other.id() > a.identity.id() {
            break other;
        }
    };
    let (at_a, at_b) = (a.start(&b, other.id()), b.start(&a, a.identity.id()));
    until(|| at_a.keyring.streams().failed_dials > 0 && at_b.keyring.streams().refused > 0).await;
    assert!(!at_a.keyring.connected(&b.name) && !at_b.keyring.connected(&a.name));
    at_a.stop().await;
    at_b.stop().await;
    // The accepter expects another dialer; the dialer's handshake succeeds before it is told so.
    let other = loop {
        let other = identity();
        if other.id() < b.identity.id() {
            break other;
        }
    };
    let (mut at_a, at_b) = (a.start(&b, b.identity.id()), b.start(&a, other.id()));
    until(|| at_a.keyring.streams().failed_dials > 0 && at_b.keyring.streams().refused > 0).await;
    assert!(!at_a.keyring.connected(&b.name) && !at_b.keyring.connected(&a.name));
    at_a.send(&b, at_b.address());
    assert_eq!(
        at_a.keyring.counters(&b.name).unsent,
        1,
        "an unconfirmed key seals nothing"
    );
    at_a.stop().await;
    at_b.stop().await;
}

#[tokio::test]
async fn garbage_is_counted_and_changes_nothing() {
    let (a, b) = Host::pair();
    let (mut at_a, mut at_b) = linked(&a, &b).await;
    let to_b = at_b.address();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x16, 3, 1, 0xff, 0xff],
        &[0; 4096],
    ] {
        let mut client = TcpStream::connect(b.tcp).await.unwrap();
        client.write_all(garbage).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = soon(client.read_to_end(&mut answer)).await;
    }
    until(|| at_b.keyring.streams().refused == 3).await;

    // TLS 1.3 without a client certificate, with a client that would trust anything's signature.
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
    let client = TcpStream::connect(b.tcp).await.unwrap();
    let name: ServerName<'_> = b.tcp.ip().into();
    assert!(
        soon(TlsConnector::from(Arc::new(config)).connect(name.clone(), client))
            .await
            .is_err()
    );
    until(|| at_b.keyring.streams().refused == 4).await;

    // The peer itself, speaking another protocol: not even its keys are taken.
    let mut config = ClientConfig::clone(&tls::dialer(&a.identity, b.identity.id()).unwrap());
    config.alpn_protocols.clear();
    let client = TcpStream::connect(b.tcp).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut client = soon(connector.connect(name, client)).await.unwrap();
    assert_eq!(soon(client.read(&mut [0; 1])).await.unwrap_or(0), 0);
    until(|| at_b.keyring.streams().refused == 5).await;

    let stranger = UdpSocket::bind(loopback()).await.unwrap();
    let mut unknown_key = [7; 100];
    unknown_key[0] = 1;
    let oversized = [1; Datagram::MAX_BYTES + 100];
    for garbage in [&b""[..], &[1; 20], &[9; 200], &unknown_key, &oversized] {
        stranger.send_to(garbage, to_b).await.unwrap();
    }
    let sent = at_a.send(&b, to_b);
    assert_eq!(soon(at_b.hear()).await.unwrap(), (a.name.clone(), sent));
    let expected = LinkCounters {
        malformed: 4,
        forged: 1,
        ..LinkCounters::default()
    };
    assert_eq!(at_b.keyring.strangers(), expected);
    assert!(at_b.keyring.connected(&a.name) && at_a.keyring.connected(&b.name));
    assert_eq!(at_b.keyring.streams().established, 1);
    at_a.stop().await;
    at_b.stop().await;
}

#[tokio::test]
async fn silent_connections_cannot_keep_a_peer_out() {
    let (a, b) = Host::pair();
    let at_b = b.start(&a, a.identity.id());
    let mut silent = Vec::new();
    // From elsewhere, and from the peer's own address, where they time out after a while.
    for source in [loopback(), SocketAddr::new(a.tcp.ip(), 0)] {
        let crowded = at_b.keyring.streams().crowded;
        for _ in 0..40 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(source).unwrap();
            silent.push(socket.connect(b.tcp).await.unwrap());
        }
        until(|| at_b.keyring.streams().crowded > crowded).await;
        let at_a = a.start(&b, b.identity.id());
        until(|| at_a.keyring.connected(&b.name)).await;
        at_a.stop().await;
    }
    at_b.stop().await;
}

#[tokio::test]
async fn datagrams_to_a_closed_port_do_not_end_receiving() {
    let (a, b) = Host::pair();
    let (mut at_a, mut at_b) = linked(&a, &b).await;
    let closed = std::net::UdpSocket::bind(loopback())
        .unwrap()
        .local_addr()
        .unwrap();
    for _ in 0..10 {
        at_a.send(&b, closed);
    }
    let to_a = at_a.address();
    let sent = at_b.send(&a, to_a);
    assert_eq!(soon(at_a.hear()).await.unwrap(), (b.name.clone(), sent));
    at_a.stop().await;
    at_b.stop().await;
}

#[tokio::test]
async fn impossible_peers_and_addresses_are_refused_at_start() {
    let host = Host::new("a", identity());
    let peer = |name: &str, id| PeerSettings {
        name: name.parse().unwrap(),
        id,
        addresses: vec![host.tcp],
    };
    let other = HostId::from_bytes([1; 32]);
    for (peers, expected) in [
        (
            vec![peer("b", host.identity.id())],
            "peer b has this host's own id",
        ),
        (
            vec![peer("b", other), peer("c", other)],
            "peers b and c have the same id",
        ),
    ] {
        let (_shutdown, stop) = watch::channel(false);
        let keyring = Arc::new(Keyring::new([]));
        let listen = [host.tcp];
        let run = stream::run(
            host.identity.clone(),
            &listen,
            peers,
            host.name.clone(),
            keyring,
            stop,
        );
        assert_eq!(soon(run).await.unwrap_err().to_string(), expected);
    }
    let taken = Listener::bind(&[host.tcp]).unwrap();
    assert!(matches!(
        Listener::bind(taken.addresses()),
        Err(StreamError::Listen { .. })
    ));
}
