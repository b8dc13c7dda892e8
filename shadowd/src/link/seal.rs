//! One key in one direction: sealing what is sent, opening what is received.
//!
//! Layout of a sealed datagram, lengths in bytes:
//!
//! ```text
//! version 1 | key id 8 | counter 8 | ciphertext n | tag 16      n <= 1167
//! ```
//!
//! The first 17 bytes are authenticated as associated data. Key, initialization vector and key id
//! come from the TLS exporter (RFC 5705, RFC 8446 section 7.5) with the direction as context, so
//! a datagram reflected to its sender names a key that its sender does not receive with. The
//! nonce is the vector XOR the counter (RFC 8446, section 5.3); a counter is never used twice, and
//! keys live in memory only, so neither is a nonce. ChaCha20-Poly1305 has no usage bound that a
//! heartbeat could reach. No clock is read.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use thiserror::Error;

use super::codec::{self, EncodeError};
use super::replay::Window;
use crate::facts::{Datagram, PathNumber};

const VERSION: u8 = 1;
const ID_BYTES: usize = 8;
const COUNTER_AT: usize = 1 + ID_BYTES;
const HEADER_BYTES: usize = COUNTER_AT + 8;
const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const SECRET_BYTES: usize = KEY_BYTES + NONCE_LEN + ID_BYTES;

/// Label of the exporter.
pub(super) const EXPORTER_LABEL: &[u8] = b"EXPORTER-shadowd-datagram-1";
const FROM_DIALER: &[u8] = b"dialer to accepter";
const FROM_ACCEPTER: &[u8] = b"accepter to dialer";

/// Room for one sealed datagram.
pub(super) type Buffer = [u8; Datagram::MAX_BYTES];

/// Names a key: sent in clear, so a receiver finds the key without trying all of them.
pub(super) type KeyId = [u8; ID_BYTES];

/// Which end of the stream this host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// It connected: the host with the smaller id.
    Dialer,
    /// It listened.
    Accepter,
}

/// Why a datagram was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum SealError {
    /// It has no bytes.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Every counter of the key was used.
    #[error("the key is worn out")]
    WornOut,
}

/// Why a sealed datagram was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenError {
    /// Its counter was used before on this path, or is too old to tell.
    Replayed,
    /// It does not authenticate.
    Forged,
}

/// The keys of one session.
pub(super) struct SessionKeys {
    /// Seals what this host sends.
    pub(super) sealing: SealingKey,
    /// Opens what the peer sends.
    pub(super) opening: OpeningKey,
}

impl SessionKeys {
    /// Takes both directions from `export`, which fills its buffer for the given context.
    pub(super) fn derive<E>(
        side: Side,
        mut export: impl FnMut([u8; SECRET_BYTES], &[u8]) -> Result<[u8; SECRET_BYTES], E>,
    ) -> Result<Self, E> {
        let (sends, receives) = match side {
            Side::Dialer => (FROM_DIALER, FROM_ACCEPTER),
            Side::Accepter => (FROM_ACCEPTER, FROM_DIALER),
        };
        let sealing = DirectionKey::new(&export([0; SECRET_BYTES], sends)?);
        let opening = DirectionKey::new(&export([0; SECRET_BYTES], receives)?);
        Ok(Self {
            sealing: SealingKey {
                key: sealing,
                counter: 0,
            },
            opening: OpeningKey {
                key: opening,
                window: Window::new(),
                arrived: [Window::new(); PathNumber::COUNT],
            },
        })
    }
}

struct DirectionKey {
    key: LessSafeKey,
    vector: [u8; NONCE_LEN],
    id: KeyId,
}

impl DirectionKey {
    fn new(secret: &[u8; SECRET_BYTES]) -> Self {
        let (key, rest) = secret.split_at(KEY_BYTES);
        let (from_vector, from_id) = rest.split_at(NONCE_LEN);
        let key = UnboundKey::new(&CHACHA20_POLY1305, key)
            .expect("a ChaCha20-Poly1305 key is any 32 bytes");
        let mut vector = [0; NONCE_LEN];
        vector.copy_from_slice(from_vector);
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(from_id);
        Self {
            key: LessSafeKey::new(key),
            vector,
            id,
        }
    }

    fn nonce(&self, counter: u64) -> Nonce {
        let mut nonce = self.vector;
        for (byte, count) in nonce[NONCE_LEN - 8..].iter_mut().zip(counter.to_be_bytes()) {
            *byte ^= count;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Seals in one direction. Not `Clone`: two copies would use a counter twice.
pub(super) struct SealingKey {
    key: DirectionKey,
    counter: u64,
}

impl SealingKey {
    /// Seals `datagram` into `buffer` and returns its length.
    pub(super) fn seal(
        &mut self,
        datagram: &Datagram,
        buffer: &mut Buffer,
    ) -> Result<usize, SealError> {
        let (header, rest) = buffer.split_at_mut(HEADER_BYTES);
        let room = rest.len() - TAG_BYTES;
        let length = codec::encode(datagram, &mut rest[..room])?;
        let counter = self.counter.checked_add(1).ok_or(SealError::WornOut)?;
        self.counter = counter;
        header[0] = VERSION;
        header[1..COUNTER_AT].copy_from_slice(&self.key.id);
        header[COUNTER_AT..].copy_from_slice(&counter.to_be_bytes());
        let tag = self
            .key
            .key
            .seal_in_place_separate_tag(
                self.key.nonce(counter),
                Aad::from(&*header),
                &mut rest[..length],
            )
            .expect("a datagram is shorter than the cipher's bound of 256 GiB");
        rest[length..length + TAG_BYTES].copy_from_slice(tag.as_ref());
        Ok(HEADER_BYTES + length + TAG_BYTES)
    }
}

/// What a datagram says of itself in clear. Nothing of it is authentic yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    /// The key it claims.
    pub(super) key: KeyId,
    counter: u64,
}

impl Header {
    /// Reads it; `None` when `bytes` cannot be a sealed datagram of this version.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER_BYTES + TAG_BYTES || bytes.len() > Datagram::MAX_BYTES {
            return None;
        }
        let (version, rest) = bytes.split_first()?;
        let (key, rest) = rest.split_first_chunk::<ID_BYTES>()?;
        let (counter, _) = rest.split_first_chunk::<8>()?;
        (*version == VERSION).then(|| Self {
            key: *key,
            counter: u64::from_be_bytes(*counter),
        })
    }
}

/// Opens in one direction.
pub(super) struct OpeningKey {
    key: DirectionKey,
    /// What was opened, whichever path it came over.
    window: Window,
    /// What came over each path: the sender sends the same bytes over all.
    arrived: [Window; PathNumber::COUNT],
}

/// What a sealed datagram held.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened<'a> {
    /// The content.
    pub(super) bytes: &'a [u8],
    /// It was opened before, when it came over another path.
    pub(super) copy: bool,
}

impl OpeningKey {
    /// Whether this is the key that `header` claims.
    pub(super) fn is(&self, header: &Header) -> bool {
        self.key.id == header.key
    }

    /// Opens `bytes`, whose header is `header` and which came over `path`, in place. A counter is
    /// used up only by an authentic datagram, so forgeries cannot push a window ahead. It comes once
    /// over each path; of a second time over the same one somebody else is the sender.
    pub(super) fn open<'a>(
        &mut self,
        header: &Header,
        path: PathNumber,
        bytes: &'a mut [u8],
    ) -> Result<Opened<'a>, OpenError> {
        let copy = !self.window.admits(header.counter);
        let arrived = &mut self.arrived[path.place()];
        if !arrived.admits(header.counter) || self.window.forgot(header.counter) {
            return Err(OpenError::Replayed);
        }
        let (clear, sealed) = bytes
            .split_at_mut_checked(HEADER_BYTES)
            .ok_or(OpenError::Forged)?;
        let nonce = self.key.nonce(header.counter);
        let opened = self
            .key
            .key
            .open_in_place(nonce, Aad::from(&*clear), sealed)
            .map_err(|_| OpenError::Forged)?;
        arrived.note(header.counter);
        if !copy {
            self.window.note(header.counter);
        }
        Ok(Opened {
            bytes: opened,
            copy,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::facts::BootTime;

    /// The keys of both ends of session `number`: the dialer's, then the accepter's.
    pub(in crate::link) fn pair(number: u64) -> (SessionKeys, SessionKeys) {
        let end = |side| {
            let export = |mut secret: [u8; SECRET_BYTES], context: &[u8]| {
                let mut hasher = blake3::Hasher::new_derive_key("a session in a test");
                hasher.update(&number.to_be_bytes()).update(context);
                hasher.finalize_xof().fill(&mut secret);
                Ok::<_, Infallible>(secret)
            };
            SessionKeys::derive(side, export).unwrap()
        };
        (end(Side::Dialer), end(Side::Accepter))
    }

    fn open(keys: &mut SessionKeys, bytes: &mut [u8]) -> Result<Vec<u8>, OpenError> {
        let header = Header::read(bytes).filter(|header| keys.opening.is(header));
        keys.opening
            .open(&header.ok_or(OpenError::Forged)?, PathNumber::FIRST, bytes)
            .map(|opened| opened.bytes.to_vec())
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_once_and_only_at_the_peer(
            datagram in codec::tests::datagram(8)
        ) {
            let (mut dialer, mut accepter) = pair(1);
            let mut buffer = [0; Datagram::MAX_BYTES];
            let Ok(length) = dialer.sealing.seal(&datagram, &mut buffer) else { return Ok(()) };
            let sealed = buffer[..length].to_vec();
            prop_assert_eq!(open(&mut dialer, &mut sealed.clone()), Err(OpenError::Forged));
            let opened = open(&mut accepter, &mut sealed.clone()).unwrap();
            prop_assert_eq!(codec::decode(&opened), Ok(datagram));
            prop_assert_eq!(open(&mut accepter, &mut sealed.clone()), Err(OpenError::Replayed));
        }

        #[test]
        fn any_bytes_are_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..1300)) {
            prop_assert!(open(&mut pair(1).1, &mut bytes).is_err());
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let (mut dialer, mut accepter) = pair(1);
        let datagram = Datagram {
            sent: BootTime::from_nanos(7),
            heard: None,
            echoes: Default::default(),
            messages: Vec::new(),
        };
        let mut buffer = [0; Datagram::MAX_BYTES];
        let length = dialer.sealing.seal(&datagram, &mut buffer).unwrap();
        for bit in 0..length * 8 {
            let mut damaged = buffer[..length].to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&mut accepter, &mut damaged).is_err(), "bit {bit}");
        }
        assert!(open(&mut accepter, &mut buffer[..length]).is_ok());
    }

    #[test]
    fn a_worn_out_key_seals_nothing() {
        let (mut dialer, _) = pair(1);
        dialer.sealing.counter = u64::MAX;
        let datagram = Datagram {
            sent: BootTime::default(),
            heard: None,
            echoes: Default::default(),
            messages: Vec::new(),
        };
        let mut buffer = [0; Datagram::MAX_BYTES];
        assert_eq!(
            dialer.sealing.seal(&datagram, &mut buffer),
            Err(SealError::WornOut)
        );
    }
}
