//! What filters match with: patterns of text and networks.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// Longest pattern.
const PATTERN_MAX: usize = 255;

/// A pattern of text: `*` stands for any run of characters, `/` included, `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

/// Why a text is no [`Glob`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "a pattern of 1 to 255 characters without control characters; * stands for any run, ? for one"
)]
pub struct GlobError;

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        if text.is_empty() || text.len() > PATTERN_MAX || text.chars().any(char::is_control) {
            return Err(GlobError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl Glob {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `text` matches. Takes at most pattern times text steps.
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut at, mut from) = (0, 0);
        // Where the last star was, and where the text went on after it.
        let mut star: Option<(usize, usize)> = None;
        while from < text.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, from));
                    at += 1;
                }
                Some(b'?') => {
                    at += 1;
                    from += character(&text[from..]);
                }
                Some(byte) if *byte == text[from] => {
                    at += 1;
                    from += 1;
                }
                Some(_) | None => {
                    let Some((back, taken)) = star else {
                        return false;
                    };
                    star = Some((back, taken + 1));
                    (at, from) = (back + 1, taken + 1);
                }
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

/// Bytes of the first character (RFC 3629).
fn character(text: &[u8]) -> usize {
    let following = text.iter().skip(1).take_while(|byte| *byte & 0xc0 == 0x80);
    1 + following.count()
}

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no [`Network`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a network such as 192.0.2.0/24 or 2001:db8::/32, with no bit set behind its prefix")]
pub struct NetworkError;

impl Network {
    /// Whether an address belongs to it. IPv4-mapped IPv6 addresses are IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.prefix);
                let head = |bits: u32| bits.checked_shr(shift).unwrap_or(0);
                head(own.to_bits()) == head(other.to_bits())
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.prefix);
                let head = |bits: u128| bits.checked_shr(shift).unwrap_or(0);
                head(own.to_bits()) == head(other.to_bits())
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text.split_once('/').ok_or(NetworkError)?;
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let prefix: u8 = prefix.parse().map_err(|_| NetworkError)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > longest {
            return Err(NetworkError);
        }
        let behind = match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        let mask = 1_u128
            .checked_shl(u32::from(longest - prefix))
            .map_or(u128::MAX, |bit| bit - 1);
        if behind & mask != 0 {
            return Err(NetworkError);
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text, expected) in [
            ("nginx.service", "nginx.service", true),
            ("nginx.service", "nginx.service2", false),
            ("*", "", true),
            ("user@*.service", "user@1000.service", true),
            ("user@*.service", "user@1000.slice", false),
            ("/srv/secret/*", "/srv/secret/a/b", true),
            ("/srv/secret/*", "/srv/secrets", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("?", "é", true),
            ("?x", "éx", true),
            ("??", "é", false),
        ] {
            let glob: Glob = pattern.parse().expect("a pattern");
            assert_eq!(glob.matches(text), expected, "{pattern} {text}");
        }
        assert_eq!("".parse::<Glob>(), Err(GlobError));
        assert_eq!("a\nb".parse::<Glob>(), Err(GlobError));
    }

    #[test]
    fn networks_contain_what_shares_their_prefix() {
        for (network, address, expected) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.0/24", "::ffff:192.0.2.9", true),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1/128", "::1", true),
        ] {
            let network: Network = network.parse().expect("a network");
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(network.contains(address), expected, "{network} {address}");
        }
        for bad in ["192.0.2.1/24", "192.0.2.0", "192.0.2.0/33", "x/8", "::1/0"] {
            assert_eq!(bad.parse::<Network>(), Err(NetworkError), "{bad}");
        }
    }
}
