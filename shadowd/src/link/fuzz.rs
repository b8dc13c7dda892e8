//! The decoders of this room, for the fuzzer: whatever a peer, a stranger or a file may hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rcgen::{KeyPair, PKCS_ED25519};
use rustls_pki_types::CertificateDer;

use super::frame::{Frame, Hello};
use super::identity::Identity;
use super::replay::Window;
use super::{Keyring, codec, frame, seal, tls};
use crate::facts::{Datagram, Name, PathNumber};

/// What an authentic peer may have sealed.
pub(crate) fn datagram(bytes: &[u8]) {
    let Ok(datagram) = codec::decode(bytes) else {
        return;
    };
    // Numbers may have been longer than needed, so it fits when it is written again.
    let mut buffer = vec![0; bytes.len()];
    let length = codec::encode(&datagram, &mut buffer).expect("it was read from as much");
    assert_eq!(codec::decode(&buffer[..length]), Ok(datagram));
}

/// Datagrams of every kind of message.
pub(crate) fn datagrams() -> Vec<Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    let strategy = codec::tests::datagram(4);
    let one = |_| {
        let tree = strategy.new_tree(&mut runner).expect("any datagram");
        postcard::to_stdvec(&tree.current()).expect("it is written")
    };
    (0..48).map(one).collect()
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// What comes to the socket: nothing but what the peer sealed is taken, and that once.
pub(crate) fn sealed(bytes: &[u8]) {
    thread_local! {
        static SEALED: Vec<Vec<u8>> = sealed_datagrams();
    }
    let keyring = Arc::new(Keyring::new([name("a")]));
    let session = keyring.install(&name("a"), seal::tests::pair(1).1);
    let genuine = SEALED.with(|sealed| sealed.iter().any(|one| one == bytes));
    assert_eq!(
        keyring
            .open(PathNumber::FIRST, &mut bytes.to_vec(), || true)
            .is_some(),
        genuine
    );
    assert!(
        keyring
            .open(PathNumber::FIRST, &mut bytes.to_vec(), || true)
            .is_none(),
        "a repeat"
    );
    drop(session);
}

/// What the peer sealed.
pub(crate) fn sealed_datagrams() -> Vec<Vec<u8>> {
    let mut keys = seal::tests::pair(1).0;
    let mut buffer = [0; Datagram::MAX_BYTES];
    let seal = |encoded: Vec<u8>| {
        let datagram = codec::decode(&encoded).ok()?;
        let length = keys.sealing.seal(&datagram, &mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    };
    datagrams().into_iter().filter_map(seal).collect()
}

/// Counters in any order, against a set of those that were seen.
pub(crate) fn replay(bytes: &[u8]) {
    let (mut window, mut seen) = (Window::new(), BTreeSet::new());
    for eight in bytes.chunks_exact(8) {
        let counter = u64::from_be_bytes(eight.try_into().expect("8 bytes"));
        let admitted = window.admits(counter);
        assert!(!admitted || !seen.contains(&counter), "{counter} twice");
        if admitted {
            window.note(counter);
            seen.insert(counter);
        }
    }
}

/// Counters in order, out of order, and at both ends.
pub(crate) fn counters() -> Vec<Vec<u8>> {
    let lists: [&[u64]; 4] = [
        &[1, 2, 3, 4, 5],
        &[1025, 1, 2, 1024, 1025],
        &[u64::MAX, 1, u64::MAX - 1023, u64::MAX - 1024],
        &[3, 1 << 63, (1 << 63) - 1024, 3, (1 << 63) + 1024],
    ];
    let bytes = |list: &&[u64]| list.iter().flat_map(|one| one.to_be_bytes()).collect();
    lists.iter().map(bytes).collect()
}

/// What comes on an authenticated stream, frame after frame.
pub(crate) fn frame(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((frame, used))) = frame::parse(rest) {
        assert!(used > 0 && used <= rest.len(), "{frame:?}");
        rest = &rest[used..];
    }
}

/// Every kind of frame.
pub(crate) fn frames() -> Vec<Vec<u8>> {
    let hello = Hello {
        version: 1,
        name: name("host-a"),
        run: [7; 16],
    };
    let all = [Frame::Hello(hello), Frame::Ping(u64::MAX), Frame::Pong(300)];
    let framed = |frame: &Frame| {
        let content = postcard::to_stdvec(frame).expect("it is written");
        let length = u32::try_from(content.len()).expect("it is short");
        [length.to_be_bytes().to_vec(), content].concat()
    };
    let mut seeds: Vec<Vec<u8>> = all.iter().map(framed).collect();
    seeds.push(seeds.concat());
    seeds
}

/// The certificate of whoever connects: before anything of it is authentic.
pub(crate) fn certificate(bytes: &[u8]) {
    let _ = tls::id_of(&CertificateDer::from(bytes));
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).expect("a key")
}

/// A certificate as shadowd makes it.
pub(crate) fn certificates() -> Vec<Vec<u8>> {
    let identity = Identity::of(&key()).expect("an identity");
    vec![identity.certificate().to_vec()]
}

/// `key.pem`.
pub(crate) fn key_file(bytes: &[u8]) {
    if let Ok(pair) = KeyPair::from_pem(&String::from_utf8_lossy(bytes)) {
        let _ = Identity::of(&pair);
    }
}

/// A key as shadowd writes it.
pub(crate) fn key_files() -> Vec<Vec<u8>> {
    vec![key().serialize_pem().into_bytes()]
}
