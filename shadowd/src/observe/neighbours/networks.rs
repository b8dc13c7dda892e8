//! The interface's own addresses, and which of them may ask for a peer.

use std::net::IpAddr;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

/// An address of the interface with the prefix length of its network.
pub(super) type Own = (IpAddr, u8);

/// The interface's addresses now, in the calling thread's network namespace.
///
/// # Errors
/// The kernel's.
pub(super) fn own(interface: &str) -> Result<Vec<Own>, Errno> {
    let entries = getifaddrs()?.filter(|entry| {
        // An IPv4 address may have a label of its own: the interface's name and more after a colon.
        let label = entry.interface_name.strip_prefix(interface);
        label.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    });
    let own = entries.filter_map(|entry| {
        let address = plain(&entry.address?)?;
        let prefix = match plain(&entry.netmask?)? {
            IpAddr::V4(mask) => u32::from(mask).leading_ones(),
            IpAddr::V6(mask) => u128::from(mask).leading_ones(),
        };
        Some((address, prefix as u8))
    });
    Ok(own.collect())
}

fn plain(address: &SockaddrStorage) -> Option<IpAddr> {
    let four = address.as_sockaddr_in().map(|four| four.ip().into());
    four.or_else(|| address.as_sockaddr_in6().map(|six| six.ip().into()))
}

/// The address that shares the smallest network with `target`; none when `target` is not on this
/// link as far as the addresses tell, or is one of them.
pub(super) fn source(own: &[Own], target: IpAddr) -> Option<IpAddr> {
    if own.iter().any(|(address, _)| *address == target) {
        return None;
    }
    let near = own.iter().filter(|own| contains(**own, target));
    near.max_by_key(|(_, prefix)| *prefix)
        .map(|(address, _)| *address)
}

fn contains((address, prefix): Own, other: IpAddr) -> bool {
    let (differing, length) = match (address, other) {
        (IpAddr::V4(a), IpAddr::V4(b)) => ((u32::from(a) ^ u32::from(b)).leading_zeros(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => ((u128::from(a) ^ u128::from(b)).leading_zeros(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    // With prefix 0 everything would be near: that is a tunnel's habit, not a link's.
    prefix > 0 && prefix <= length && differing >= u32::from(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_network_that_holds_the_peer_asks() {
        let parse = |text: &str| -> IpAddr { text.parse().expect("an address") };
        let own = [
            (parse("192.0.2.1"), 24),
            (parse("192.0.2.129"), 25),
            (parse("198.51.100.1"), 32),
            (parse("203.0.113.1"), 0),
            (parse("2001:db8::1"), 64),
            (parse("fe80::1"), 64),
        ];
        for (target, expected) in [
            ("192.0.2.2", Some("192.0.2.1")),
            ("192.0.2.130", Some("192.0.2.129")),
            ("192.0.2.1", None),
            ("198.51.100.2", None),
            ("203.0.113.2", None),
            ("2001:db8::2", Some("2001:db8::1")),
            ("2001:db8:0:1::2", None),
            ("fe80::2", Some("fe80::1")),
        ] {
            assert_eq!(source(&own, parse(target)), expected.map(parse), "{target}");
        }
    }
}
