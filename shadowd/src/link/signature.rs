//! Signatures of a host, by the key that is its identity.
//!
//! Ed25519 (RFC 8032). Whoever checks one needs nothing but the id that the configuration names:
//! the public key travels along, and its hash must be that id.

use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};

use super::identity::Identity;
use crate::facts::{HostId, Signed};

/// What a DER SubjectPublicKeyInfo of an Ed25519 key begins with (RFC 8410 section 4); the 32 bytes
/// of the key follow.
const SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// What is signed is this and the hash of the bytes: a signature made for something else is none.
const CONTEXT: &str = "shadowd 2026 signature of a profile version";

/// Why a signature is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The key is not the one that the id is of.
    #[error("it is signed by another host than it names")]
    OtherKey,
    /// The signature is not of these bytes.
    #[error("its signature is wrong: it was changed, or not signed")]
    Wrong,
    /// This host's own key does not sign.
    #[error("this host's key cannot sign")]
    Key,
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(bytes);
    *hasher.finalize().as_bytes()
}

/// Signs `bytes` as this host.
///
/// # Errors
/// [`SignatureError::Key`]: the key is of another kind.
pub fn sign(identity: &Identity, bytes: Vec<u8>) -> Result<Signed, SignatureError> {
    use ring::signature::KeyPair as _;
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(identity.key().secret_pkcs8_der());
    let pair = pair.map_err(|_| SignatureError::Key)?;
    let signature = pair.sign(&digest(&bytes)).as_ref().to_vec();
    let key = [&SPKI[..], pair.public_key().as_ref()].concat();
    Ok(Signed {
        bytes,
        key,
        signature,
    })
}

/// Whether `author` signed it.
///
/// # Errors
/// It did not.
pub fn verify(signed: &Signed, author: HostId) -> Result<(), SignatureError> {
    if blake3::hash(&signed.key).as_bytes() != author.as_bytes() {
        return Err(SignatureError::OtherKey);
    }
    let key = signed
        .key
        .strip_prefix(&SPKI)
        .ok_or(SignatureError::OtherKey)?;
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&digest(&signed.bytes), &signed.signature)
        .map_err(|_| SignatureError::Wrong)
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ED25519};

    use super::*;

    fn identity() -> Identity {
        Identity::of(&KeyPair::generate_for(&PKCS_ED25519).unwrap()).unwrap()
    }

    #[test]
    fn what_a_host_signed_is_believed_and_nothing_else() {
        let (mine, other) = (identity(), identity());
        let signed = sign(&mine, b"version".to_vec()).unwrap();
        assert_eq!(verify(&signed, mine.id()), Ok(()));
        assert_eq!(verify(&signed, other.id()), Err(SignatureError::OtherKey));
        let mut changed = signed.clone();
        changed.bytes[0] ^= 1;
        assert_eq!(verify(&changed, mine.id()), Err(SignatureError::Wrong));
        let mut unsigned = signed.clone();
        unsigned.signature.clear();
        assert_eq!(verify(&unsigned, mine.id()), Err(SignatureError::Wrong));
        // Another's key and signature under this host's name.
        let forged = sign(&other, b"version".to_vec()).unwrap();
        assert_eq!(verify(&forged, mine.id()), Err(SignatureError::OtherKey));
        let mixed = Signed {
            key: signed.key,
            ..forged
        };
        assert_eq!(verify(&mixed, mine.id()), Err(SignatureError::Wrong));
    }
}
