//! What opens and seals when, and what is counted where.

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
        echoes: Default::default(),
        messages: Vec::new(),
    }
}

/// Whether `bytes` open as what `from` sent.
fn arrives(ring: &Keyring, bytes: &mut [u8], from: &str, number: u64) -> bool {
    let expected = Arrival {
        from: name(from),
        path: PathNumber::FIRST,
        datagram: datagram(number),
        copy: false,
        run: 0,
    };
    let arrival = ring.open(PathNumber::FIRST, bytes, || true);
    arrival.map(|arrival| Arrival { run: 0, ..arrival }) == Some(expected)
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
        arrives(&self.b, &mut sealed, "a", number)
    }

    fn b_to_a(&self, number: u64) -> bool {
        let mut buffer = [0; Datagram::MAX_BYTES];
        let Ok(length) = self.b.seal(&name("a"), &datagram(number), &mut buffer) else {
            return false;
        };
        arrives(&self.a, &mut buffer[..length], "b", number)
    }
}

#[test]
fn nothing_is_sealed_before_the_peer_has_shown_its_key() {
    let ends = Ends::new();
    let (a, b) = ends.session(1);
    assert!(!ends.a_to_b(1));
    a.greeted([1; 16]);
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
    first.0.greeted([1; 16]);
    first.1.greeted([1; 16]);
    drop(first.0); // a sees the stream close long before b does.
    let keys = pair(2);
    let a = ends.a.install(&name("b"), keys.0);
    assert!(
        ends.a_to_b(1) && ends.b_to_a(2),
        "b has not finished the handshake"
    );
    let b = ends.b.install(&name("a"), keys.1);
    assert!(ends.a_to_b(3) && ends.b_to_a(4), "no hello yet");
    b.greeted([1; 16]);
    assert!(ends.a_to_b(5) && ends.b_to_a(6), "b seals with the new key");
    a.greeted([1; 16]);
    drop(first.1);
    assert!(ends.a_to_b(7) && ends.b_to_a(8));
    assert_eq!(ends.a.counters(&name("b")).received, 4);
    assert_eq!(ends.a.strangers().forged + ends.b.strangers().forged, 0);
}

#[test]
fn sessions_that_come_to_nothing_never_push_out_the_used_one() {
    let ends = Ends::new();
    let (a, b) = ends.session(1);
    a.greeted([1; 16]);
    b.greeted([1; 16]);
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
    a.greeted([1; 16]);
    b.greeted([1; 16]);
    let mut old = ends.seal(1).unwrap();
    let mut kept = Vec::new();
    for number in 2..=6 {
        let (a, b) = ends.session(number);
        a.greeted([1; 16]);
        b.greeted([1; 16]);
        assert!(ends.a_to_b(number) && ends.b_to_a(number));
        kept.push((a, b));
    }
    assert_eq!(ends.b.open(PathNumber::FIRST, &mut old, || true), None);
    assert_eq!(ends.b.strangers().forged, 1);
}

#[test]
fn what_is_not_authentic_is_counted_where_it_belongs() {
    let ends = Ends::new();
    let (a, b) = ends.session(1);
    a.greeted([1; 16]);
    b.greeted([1; 16]);
    let sealed = ends.seal(1).unwrap();
    assert!(
        ends.b
            .open(PathNumber::FIRST, &mut sealed.clone(), || true)
            .is_some()
    );
    assert_eq!(
        ends.b.open(PathNumber::FIRST, &mut sealed.clone(), || true),
        None
    );
    assert_eq!(
        ends.a.open(PathNumber::FIRST, &mut sealed.clone(), || true),
        None,
        "reflected"
    );
    let mut next = ends.seal(2).unwrap();
    *next.last_mut().unwrap() ^= 1;
    assert_eq!(ends.b.open(PathNumber::FIRST, &mut next, || true), None);
    assert_eq!(ends.b.open(PathNumber::FIRST, &mut [0; 8], || true), None);
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

#[test]
fn keys_of_an_earlier_run_open_nothing_once_the_new_run_has_said_hello() {
    let ends = Ends::new();
    let (a, b) = ends.session(1);
    a.greeted([1; 16]);
    b.greeted([1; 16]);
    assert!(ends.a_to_b(1));
    let mut held_back = ends.seal(2).unwrap();
    let again = held_back.clone();
    drop((a, b));
    let (a, b) = ends.session(2);
    a.greeted([1; 16]);
    assert!(
        ends.b
            .open(PathNumber::FIRST, &mut held_back, || true)
            .is_some(),
        "the run may still be the same"
    );
    b.greeted([2; 16]);
    assert_eq!(
        ends.b.open(PathNumber::FIRST, &mut again.clone(), || true),
        None
    );
    assert_eq!(ends.b.strangers().forged, 1);
    let arrival = |number| {
        let mut bytes = ends.seal(number).unwrap();
        ends.b.open(PathNumber::FIRST, &mut bytes, || true).unwrap()
    };
    assert_eq!(arrival(7).run, 2, "the second that was met");
    assert!(ends.a_to_b(3) && ends.b_to_a(4));
    drop((a, b));
    assert!(ends.a_to_b(5) && ends.b_to_a(6));
}

#[test]
fn what_an_earlier_run_sealed_opens_no_more_though_its_stream_is_open() {
    let ends = Ends::new();
    let (first, first_b) = ends.session(1);
    first.greeted([1; 16]);
    first_b.greeted([1; 16]);
    let mut held_back = ends.seal(1).unwrap();
    // The host died without a word: its stream is open until the kernel gives it up.
    let (again, again_b) = ends.session(2);
    again.greeted([1; 16]);
    again_b.greeted([2; 16]);
    let opened = ends.b.open(PathNumber::FIRST, &mut held_back, || true);
    assert_eq!(opened, None);
    assert_eq!(ends.b.counters(&name("a")).replayed, 1);
    assert!(ends.a_to_b(2));
}
