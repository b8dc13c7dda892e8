//! What members tell each other of a group's profile, as letters: postcard, packed.

use serde::{Deserialize, Serialize};

use crate::facts::{Beside, Content, Digest, Name, Signed, ValueHash, VersionId};
use crate::link::post::LETTER_BYTES_MAX;

/// Packed a little: letters are many and short.
const LEVEL: i32 = 1;

/// A letter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Letter {
    /// Of which group.
    pub group: Name,
    /// What it says.
    pub body: Body,
}

/// What a letter says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Body {
    /// What the owner's units did.
    Digest(Digest),
    /// What is on the owner's host.
    Content(Content),
    /// Which version the sender uses.
    Head {
        /// Its number.
        number: u64,
        /// Its identity.
        id: VersionId,
    },
    /// The sender wants this version.
    Ask(VersionId),
    /// A version.
    Version(Signed),
    /// The key under which the group's values are hashed: the owner's counts.
    Key([u8; 32]),
    /// The sender wants the content of a file of the profile, if it has this hash.
    AskFile {
        /// Its path.
        path: String,
        /// The plain hash of its content.
        hash: ValueHash,
    },
    /// A content that was asked for.
    File(Vec<u8>),
    /// What is so on the owner now.
    Beside(Beside),
}

/// Why bytes are no letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a letter that this version does not understand")]
pub(super) struct NoLetter;

impl Letter {
    /// As bytes; none when it is too long to be sent.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let plain = postcard::to_stdvec(self).ok()?;
        zstd::bulk::compress(&plain, LEVEL).ok()
    }

    /// From bytes of a peer.
    ///
    /// # Errors
    /// They are no letter.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NoLetter> {
        let plain = zstd::bulk::decompress(bytes, LETTER_BYTES_MAX).map_err(|_| NoLetter)?;
        let (letter, rest) = postcard::take_from_bytes(&plain).map_err(|_| NoLetter)?;
        match rest {
            [] => Ok(letter),
            _ => Err(NoLetter),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_letter_comes_back_as_it_was() {
        let letter = Letter {
            group: "web".parse().unwrap(),
            body: Body::Key([7; 32]),
        };
        let bytes = letter.to_bytes().unwrap();
        assert_eq!(Letter::from_bytes(&bytes), Ok(letter));
        assert_eq!(Letter::from_bytes(&bytes[1..]), Err(NoLetter));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_letter_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Letter::from_bytes(&bytes);
            let packed = zstd::bulk::compress(&bytes, 1).unwrap();
            let _ = Letter::from_bytes(&packed);
        }
    }
}
