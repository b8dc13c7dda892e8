//! Several paths between two hosts, and what the peer's kernel says.

use super::*;
use crate::facts::PathNumber;
use crate::link::Arrival;

fn path(place: usize) -> PathNumber {
    PathNumber::new(place).unwrap()
}

/// `host`'s daemon with a second pair of sockets, on the next loopback address.
fn second(host: &Host) -> SocketAddr {
    let SocketAddr::V4(first) = host.tcp else {
        panic!("loopback is IPv4 here");
    };
    let [a, b, c, d] = first.ip().octets();
    SocketAddr::from(([a, b, c, d ^ 0x80], first.port()))
}

fn start(host: &Host, peer: &Host, listen: &[SocketAddr], at: &[SocketAddr]) -> Daemon {
    let keyring = Arc::new(Keyring::new([peer.name.clone()]));
    let datagrams = Datagrams::bind(&[loopback(), loopback()], [], Arc::clone(&keyring)).unwrap();
    let (shutdown, stop) = watch::channel(false);
    let peers = vec![PeerSettings {
        name: peer.name.clone(),
        id: peer.identity.id(),
        addresses: at.to_vec(),
    }];
    let run = Listener::bind(listen).unwrap().run(
        host.identity.clone(),
        peers,
        host.name.clone(),
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

/// A linked pair in which each has two sockets for datagrams.
async fn linked_twice() -> ((Host, Daemon), (Host, Daemon)) {
    let (a, b) = Host::pair();
    let (at_a, at_b) = (
        start(&a, &b, &[a.tcp], &[b.tcp]),
        start(&b, &a, &[b.tcp], &[a.tcp]),
    );
    until(|| at_a.keyring.connected(&b.name) && at_b.keyring.connected(&a.name)).await;
    ((a, at_a), (b, at_b))
}

fn say(from: &mut Daemon, to: &Host, at: &[SocketAddr]) -> Datagram {
    from.sequence += 1;
    let datagram = Datagram {
        sent: BootTime::from_nanos(from.sequence),
        heard: None,
        echoes: Default::default(),
        messages: Vec::new(),
    };
    from.datagrams.send(&to.name, at, &datagram);
    datagram
}

async fn arrival(daemon: &mut Daemon) -> Arrival {
    loop {
        if let Heard::Arrival(arrival) = soon(daemon.datagrams.recv()).await.unwrap() {
            return arrival;
        }
    }
}

#[tokio::test]
async fn what_is_said_comes_once_as_news_and_over_the_other_path_as_a_copy() {
    let ((a, mut at_a), (b, mut at_b)) = linked_twice().await;
    let to_b = at_b.datagrams.addresses().unwrap();
    for _ in 0..50 {
        let sent = say(&mut at_a, &b, &to_b);
        let (one, other) = (arrival(&mut at_b).await, arrival(&mut at_b).await);
        assert_eq!((&one.datagram, &other.datagram), (&sent, &sent));
        assert_eq!((one.copy, other.copy), (false, true));
        assert_ne!(one.path, other.path);
    }
    // One path carries nothing: all is news, over the other.
    let sent = say(&mut at_a, &b, &to_b[..1]);
    let one = arrival(&mut at_b).await;
    assert_eq!((one.path, one.copy, one.datagram), (path(0), false, sent));
    let counters = at_b.keyring.counters(&a.name);
    assert_eq!((counters.received, counters.copies), (51, 50));
    assert_eq!((counters.replayed, counters.forged), (0, 0));
    assert_eq!(at_a.keyring.counters(&b.name).sent, 51);
    at_a.stop().await;
    at_b.stop().await;
}

#[tokio::test]
async fn a_copy_is_no_replay_and_a_replay_no_copy() {
    let ((a, mut at_a), (b, mut at_b)) = linked_twice().await;
    let to_b = at_b.datagrams.addresses().unwrap();
    let wire = UdpSocket::bind(loopback()).await.unwrap();
    say(&mut at_a, &b, &[wire.local_addr().unwrap()]);
    let mut bytes = [0; 2_000];
    let length = soon(wire.recv(&mut bytes)).await.unwrap();
    for to in [to_b[0], to_b[0], to_b[1], to_b[1], to_b[0]] {
        wire.send_to(&bytes[..length], to).await.unwrap();
    }
    let (one, other) = (arrival(&mut at_b).await, arrival(&mut at_b).await);
    assert_ne!(one.copy, other.copy);
    let last = say(&mut at_a, &b, &to_b[..1]);
    assert_eq!(arrival(&mut at_b).await.datagram, last);
    until(|| {
        let counters = at_b.keyring.counters(&a.name);
        counters.received + counters.copies + counters.replayed == 6
    })
    .await;
    let counters = at_b.keyring.counters(&a.name);
    assert_eq!(
        (counters.received, counters.copies, counters.replayed),
        (2, 1, 3)
    );
    at_a.stop().await;
    at_b.stop().await;
}

#[tokio::test]
async fn the_kernel_of_a_dead_daemon_is_heard_and_only_what_was_sent_is_refused() {
    let ((_a, mut at_a), (b, at_b)) = linked_twice().await;
    let to_b = at_b.datagrams.addresses().unwrap();
    let Daemon {
        keyring: _keyring,
        datagrams,
        streams,
        shutdown,
        ..
    } = at_b;
    drop(datagrams);
    let mut refused = [false; 2];
    while refused != [true; 2] {
        say(&mut at_a, &b, &to_b);
        let heard = timeout(Duration::from_millis(20), at_a.datagrams.recv()).await;
        if let Ok(Ok(Heard::Refusal(peer, path))) = heard {
            assert_eq!(peer, b.name);
            refused[path.place()] = true;
        }
    }
    while timeout(Duration::from_millis(50), at_a.datagrams.recv())
        .await
        .is_ok()
    {}
    // Something of nobody's is refused as well, by the same kernel: nobody is told.
    let stranger: SocketAddr = to_b[0];
    for _ in 0..5 {
        at_a.datagrams.send_raw(&[9; 100], stranger);
    }
    let more = async {
        loop {
            match at_a.datagrams.recv().await.unwrap() {
                Heard::Refusal(..) => panic!("nobody's datagram was refused"),
                Heard::Arrival(_) => {}
            }
        }
    };
    let drained = timeout(Duration::from_millis(50), more).await;
    assert!(drained.is_err());
    shutdown.send(true).unwrap();
    streams.await.unwrap().unwrap();
    at_a.stop().await;
}

#[tokio::test]
async fn the_next_address_is_dialled_when_one_fails() {
    let (a, b) = Host::pair();
    let (first, other) = (b.tcp, second(&b));
    // Nobody listens at the first address; both sides listen at the second.
    let at_b = start(&b, &a, &[other], &[a.tcp]);
    let at_a = start(&a, &b, &[a.tcp, second(&a)], &[first, other]);
    until(|| at_a.keyring.connected(&b.name) && at_b.keyring.connected(&a.name)).await;
    assert!(at_a.keyring.streams().failed_dials >= 1);
    at_a.stop().await;
    at_b.stop().await;
}

#[tokio::test]
async fn an_address_that_this_host_does_not_have_can_wait() {
    let missing: SocketAddr = "192.0.2.77:7000".parse().unwrap();
    let keyring = Arc::new(Keyring::new([]));
    let bound = Datagrams::bind(&[loopback(), missing], [], Arc::clone(&keyring));
    assert!(bound.is_ok(), "{bound:?}");
    assert!(Datagrams::bind(&[missing], [], keyring).is_err());
    let own = Host::new("a", identity()).tcp;
    assert!(Listener::bind(&[own, missing]).is_ok());
    assert!(Listener::bind(&[missing]).is_err());
}
