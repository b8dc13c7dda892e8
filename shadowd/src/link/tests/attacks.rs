//! What somebody on the way can do to the datagrams, and what a broken or foreign host can say:
//! each changes nothing and is counted where it belongs. And keys that are renewed meanwhile.

use super::super::frame::{Frame, Hello};
use super::*;

/// Somebody on the way from one host to another: what is sent comes here and no further.
struct Wire {
    socket: UdpSocket,
}

impl Wire {
    async fn new() -> Self {
        Self {
            socket: UdpSocket::bind(loopback()).await.unwrap(),
        }
    }

    /// The bytes of `from`'s next datagram to `to`.
    async fn record(&self, from: &mut Daemon, to: &Host) -> Vec<u8> {
        from.send(to, self.socket.local_addr().unwrap());
        let mut bytes = [0; 2_000];
        let length = soon(self.socket.recv(&mut bytes)).await.unwrap();
        bytes[..length].to_vec()
    }

    async fn play(&self, bytes: &[u8], to: SocketAddr) {
        self.socket.send_to(bytes, to).await.unwrap();
    }
}

fn refused(daemon: &Daemon, peer: &Host) -> (LinkCounters, LinkCounters) {
    let of_peer = LinkCounters {
        sent: 0,
        received: 0,
        ..daemon.keyring.counters(&peer.name)
    };
    (of_peer, daemon.keyring.strangers())
}

#[tokio::test]
async fn what_is_changed_on_the_way_is_refused_and_counted() {
    let (a, b) = Host::pair();
    let (mut at_a, mut at_b) = linked(&a, &b).await;
    let (wire, to_b) = (Wire::new().await, at_b.address());
    let sealed = wire.record(&mut at_a, &b).await;
    let damaged = |at: usize| {
        let mut bytes = sealed.clone();
        bytes[at] ^= 2;
        bytes
    };
    let last = sealed.len() - 1;
    // Version, key, counter, content, tag.
    for bytes in [0, 1, 16, 17, last].map(damaged) {
        wire.play(&bytes, to_b).await;
    }
    wire.play(&sealed[..last], to_b).await;
    wire.play(&sealed[..32], to_b).await;
    wire.play(&[&sealed[..], &[0]].concat(), to_b).await;
    wire.play(&[&sealed[..], &[0; Datagram::MAX_BYTES]].concat(), to_b)
        .await;
    wire.play(&sealed, to_b).await;
    assert_eq!(soon(at_b.hear()).await.unwrap().0, a.name);
    let of_peer = LinkCounters {
        forged: 5,
        ..LinkCounters::default()
    };
    let strangers = LinkCounters {
        malformed: 3,
        forged: 1,
        ..LinkCounters::default()
    };
    assert_eq!(refused(&at_b, &a), (of_peer, strangers));
    assert_eq!(at_b.keyring.counters(&a.name).received, 1);
    at_a.stop().await;
    at_b.stop().await;
}

#[tokio::test]
async fn what_is_repeated_reflected_or_sent_elsewhere_is_refused_and_counted() {
    let (a, b) = Host::pair();
    let (mut at_a, mut at_b) = linked(&a, &b).await;
    let (wire, to_a, to_b) = (Wire::new().await, at_a.address(), at_b.address());
    let first = wire.record(&mut at_a, &b).await;
    let second = wire.record(&mut at_a, &b).await;
    // Out of order is no attack; a repeat is, and so is the way back.
    for bytes in [&second, &first, &first, &second] {
        wire.play(bytes, to_b).await;
    }
    wire.play(&first, to_a).await;
    // Another pair of hosts, the same names.
    let (c, d) = Host::pair();
    let (mut at_c, mut at_d) = linked(&c, &d).await;
    wire.play(&first, at_d.address()).await;
    for (from, from_host, to, to_host) in [
        (&mut at_a, &a, &mut at_b, &b),
        (&mut at_c, &c, &mut at_d, &d),
    ] {
        let address = to.address();
        let sent = from.send(to_host, address);
        let newest = async {
            loop {
                let (name, datagram) = to.hear().await.unwrap();
                assert_eq!(name, from_host.name);
                if datagram == sent {
                    return;
                }
            }
        };
        soon(newest).await;
    }
    let sent = at_b.send(&a, to_a);
    assert_eq!(soon(at_a.hear()).await.unwrap(), (b.name.clone(), sent));
    let replayed = LinkCounters {
        replayed: 2,
        ..LinkCounters::default()
    };
    let forged = LinkCounters {
        forged: 1,
        ..LinkCounters::default()
    };
    assert_eq!(refused(&at_b, &a), (replayed, LinkCounters::default()));
    assert_eq!(at_b.keyring.counters(&a.name).received, 3);
    assert_eq!(refused(&at_a, &b), (LinkCounters::default(), forged));
    assert_eq!(refused(&at_d, &c), (LinkCounters::default(), forged));
    for daemon in [at_a, at_b, at_c, at_d] {
        daemon.stop().await;
    }
}

#[tokio::test]
async fn what_an_earlier_run_sent_is_refused_after_its_restart() {
    let (a, b) = Host::pair();
    let (mut at_a, mut at_b) = linked(&a, &b).await;
    let (wire, to_b) = (Wire::new().await, at_b.address());
    let of_a = wire.record(&mut at_a, &b).await;
    let of_b = wire.record(&mut at_b, &a).await;
    at_a.stop().await;
    at_a = a.start(&b, b.identity.id());
    until(|| at_a.keyring.connected(&b.name) && at_b.keyring.connected(&a.name)).await;
    until(|| at_b.keyring.streams().established == 2).await;
    wire.play(&of_a, to_b).await;
    wire.play(&of_b, at_a.address()).await;
    flows(&mut at_a, &a, &mut at_b, &b).await;
    flows(&mut at_b, &b, &mut at_a, &a).await;
    for daemon in [&at_a, &at_b] {
        assert_eq!(daemon.keyring.strangers().forged, 1);
    }
    assert_eq!(at_b.keyring.counters(&a.name).received, 1);
    at_a.stop().await;
    at_b.stop().await;
}

#[tokio::test]
async fn keys_are_renewed_without_a_lost_heartbeat() {
    let (mut a, mut b) = Host::pair();
    (a.rotation, b.rotation) = (Duration::from_millis(10), Duration::from_millis(10));
    let (mut at_a, mut at_b) = linked(&a, &b).await;
    let (to_a, to_b) = (at_a.address(), at_b.address());
    let mut beat = interval(Duration::from_millis(1));
    while at_a.keyring.streams().renewed < 50 {
        beat.tick().await;
        let sent = at_a.send(&b, to_b);
        let heard = soon(at_b.hear()).await.unwrap();
        assert_eq!(heard, (a.name.clone(), sent));
        let sent = at_b.send(&a, to_a);
        let heard = soon(at_a.hear()).await.unwrap();
        assert_eq!(heard, (b.name.clone(), sent));
        assert!(at_a.keyring.connected(&b.name) && at_b.keyring.connected(&a.name));
    }
    for (daemon, peer) in [(&at_a, &b), (&at_b, &a)] {
        let counters = daemon.keyring.counters(&peer.name);
        assert_eq!((counters.sent, counters.unsent), (counters.received, 0));
        let none = (LinkCounters::default(), LinkCounters::default());
        assert_eq!(refused(daemon, peer), none);
        assert_eq!(daemon.keyring.streams().failed_dials, 0);
    }
    assert!(at_b.keyring.streams().renewed >= 49);
    at_a.stop().await;
    at_b.stop().await;
}

#[tokio::test]
async fn a_flood_neither_keeps_heartbeats_out_nor_costs_without_bound() {
    let (a, b) = Host::pair();
    let (mut at_a, mut at_b) = linked(&a, &b).await;
    let to_b = at_b.address();
    // From an address of no peer: half of it garbage, half with the right key in clear.
    let elsewhere = UdpSocket::bind("127.0.0.9:0").await.unwrap();
    let mut forged = Wire::new().await.record(&mut at_a, &b).await;
    forged[20] ^= 1;
    for round in 0..200_u64 {
        for number in 0..50_u64 {
            forged[9..17].copy_from_slice(&(round * 50 + number + 2).to_be_bytes());
            elsewhere.send_to(&forged, to_b).await.unwrap();
            elsewhere.send_to(&[1; 100], to_b).await.unwrap();
        }
        let sent = at_a.send(&b, to_b);
        let heard = soon(at_b.hear()).await.unwrap();
        assert_eq!(heard, (a.name.clone(), sent));
    }
    let (of_peer, strangers) = refused(&at_b, &a);
    assert_eq!(strangers.forged, 10_000, "no key of that name");
    assert_eq!(of_peer.forged + strangers.limited, 10_000);
    assert!(
        strangers.limited > of_peer.forged,
        "{} were decrypted",
        of_peer.forged
    );
    at_a.stop().await;
    at_b.stop().await;
}

/// A frame on the stream, as `frame` sends it.
fn framed(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    [&length.to_be_bytes(), content].concat()
}

#[tokio::test]
async fn a_member_that_says_what_nobody_knows_is_cut_off_and_counted() {
    let (a, b) = Host::pair();
    let at_b = b.start(&a, a.identity.id());
    let hello = Frame::Hello(Hello {
        version: session::VERSION,
        name: a.name.clone(),
        run: [3; 16],
    });
    let hello = postcard::to_stdvec(&hello).unwrap();
    // An unknown kind, a known one with something behind it, a second hello.
    let wrong = [framed(&[9, 1, 2]), framed(&[1, 5, 5]), framed(&hello)];
    for (number, bytes) in (1..).zip(wrong) {
        let config = tls::dialer(&a.identity, b.identity.id()).unwrap();
        let client = TcpStream::connect(b.tcp).await.unwrap();
        let name: ServerName<'_> = b.tcp.ip().into();
        let mut client = soon(TlsConnector::from(config).connect(name, client))
            .await
            .unwrap();
        client.write_all(&framed(&hello)).await.unwrap();
        client.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = soon(client.read_to_end(&mut answer)).await;
        until(|| at_b.keyring.streams().violations == number).await;
        until(|| !at_b.keyring.connected(&a.name)).await;
    }
    assert_eq!(at_b.keyring.streams().refused, 0);
    at_b.stop().await;
}

#[tokio::test]
async fn handshakes_of_strangers_have_a_rate_and_those_of_peers_do_not() {
    let (a, b) = Host::pair();
    let at_b = b.start(&a, a.identity.id());
    for _ in 0..60 {
        // One at a time, so that it is the rate that refuses and not the number of places.
        let before = at_b.keyring.streams();
        drop(TcpStream::connect(b.tcp).await.unwrap());
        until(|| at_b.keyring.streams() != before).await;
    }
    let streams = at_b.keyring.streams();
    assert!(streams.limited > 0 && streams.refused >= 32, "{streams:?}");
    let at_a = a.start(&b, b.identity.id());
    until(|| at_a.keyring.connected(&b.name)).await;
    at_a.stop().await;
    at_b.stop().await;
}
