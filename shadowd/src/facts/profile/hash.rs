//! 256 bits of BLAKE3, as text and as bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A BLAKE3 hash. Written as 52 letters of RFC 4648 base32 in lower case, without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest256([u8; 32]);

/// What is not a [`Digest256`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 52 base32 letters")]
pub struct Digest256Error;

impl Digest256 {
    /// The hash with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first letters, enough for people to tell hashes apart.
    pub fn short(&self) -> String {
        self.to_string().chars().take(10).collect()
    }
}

impl From<blake3::Hash> for Digest256 {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl fmt::Display for Digest256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = data_encoding::BASE32_NOPAD.encode(&self.0);
        f.pad(&letters.to_ascii_lowercase())
    }
}

impl fmt::Debug for Digest256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for Digest256 {
    type Err = Digest256Error;

    fn from_str(text: &str) -> Result<Self, Digest256Error> {
        let upper = text.to_ascii_uppercase();
        let bytes = data_encoding::BASE32_NOPAD.decode(upper.as_bytes());
        let bytes = bytes.map_err(|_| Digest256Error)?;
        bytes.try_into().map(Self).map_err(|_| Digest256Error)
    }
}

impl Serialize for Digest256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.collect_str(self),
            false => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Digest256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_come_back_and_other_text_is_refused() {
        let hash = Digest256::from(blake3::hash(b"one"));
        let text = hash.to_string();
        assert_eq!((text.len(), text.parse()), (52, Ok(hash)));
        assert_eq!(text.to_uppercase().parse(), Ok(hash));
        assert!(text.starts_with(&hash.short()));
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<Digest256>(&json).unwrap(), hash);
        for bad in [
            "",
            "abc",
            &text[1..],
            &format!("{text}a"),
            &text.replace('a', "1"),
        ] {
            if bad != text {
                assert_eq!(bad.parse::<Digest256>(), Err(Digest256Error), "{bad}");
            }
        }
    }
}
