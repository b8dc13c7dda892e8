//! Names and identities.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A host's identity: the BLAKE3 hash of its public key (DER SubjectPublicKeyInfo), 32 bytes.
///
/// Written as 52 letters of RFC 4648 base32 without padding, in groups of 13 joined by `-`; in
/// binary formats as the 32 bytes, so that a full datagram fits its bound.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId([u8; 32]);

/// What is not a [`HostId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostIdError;

impl fmt::Display for HostIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a host id: expected 52 base32 letters, as `shadowctl id` prints them")
    }
}

impl std::error::Error for HostIdError {}

impl HostId {
    /// The identity with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash itself.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = data_encoding::BASE32_NOPAD.encode(&self.0);
        for (index, letter) in letters.chars().enumerate() {
            if index > 0 && index % 13 == 0 {
                f.write_str("-")?;
            }
            write!(f, "{letter}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostId({self})")
    }
}

impl FromStr for HostId {
    type Err = HostIdError;

    fn from_str(text: &str) -> Result<Self, HostIdError> {
        let letters: String = text.chars().filter(|letter| *letter != '-').collect();
        let bytes = data_encoding::BASE32_NOPAD
            .decode(letters.to_ascii_uppercase().as_bytes())
            .map_err(|_| HostIdError)?;
        bytes.try_into().map(Self).map_err(|_| HostIdError)
    }
}

impl Serialize for HostId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for HostId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?
                .parse()
                .map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

/// The name of a host, a group or a unit: 1 to 255 printable ASCII characters without space and `/`.
///
/// 255 is systemd's own limit for unit names (systemd.unit(5)). Each message to a peer carries one, so
/// a copy costs a count and no allocation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Name(Arc<str>);

/// What is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError;

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name has 1 to 255 printable ASCII characters, without space and /")
    }
}

impl std::error::Error for NameError {}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let legal = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        if text.is_empty() || text.len() > 255 || !text.bytes().all(legal) {
            return Err(NameError);
        }
        Ok(Self(text.into()))
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.as_str().to_owned()
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

/// The counter of ownership. Every claim, start, stop and apply carries one.
///
/// Ordered by counter, then by owner, so two hosts that claim the same number in a partition are
/// still ordered, and everybody agrees which of them yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Epoch {
    /// How many times ownership changed; 0 means that nobody ever owned the group.
    pub counter: u64,
    /// Who owns, or owned, the group in this epoch.
    pub owner: HostId,
}

impl Epoch {
    /// Before the first owner.
    pub const NONE: Self = Self {
        counter: 0,
        owner: HostId::from_bytes([0; 32]),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_id_reads_back_what_it_prints() {
        let id = HostId::from_bytes(*blake3::hash(b"some key").as_bytes());
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_lowercase().parse(), Ok(id));
        assert_eq!("short".parse::<HostId>(), Err(HostIdError));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<HostId>(&json).unwrap(), id);
        let bytes = postcard::to_stdvec(&id).unwrap();
        assert_eq!(bytes, id.as_bytes());
        assert_eq!(postcard::from_bytes::<HostId>(&bytes), Ok(id));
    }

    #[test]
    fn a_name_refuses_what_systemd_and_paths_would_misread() {
        assert!("nginx.service".parse::<Name>().is_ok());
        for bad in ["", "a b", "../etc", "line\nbreak", &"x".repeat(256)] {
            assert_eq!(bad.parse::<Name>(), Err(NameError), "{bad:?}");
        }
    }
}
