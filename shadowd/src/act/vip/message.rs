//! The messages about addresses, as rtnetlink(7) has them.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo,
};

/// The prefix length that a virtual IP gets.
pub(super) const fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    message.header.index = index;
    message.header.prefix_len = prefix;
    message.attributes.push(AddressAttribute::Local(address));
    message
}

/// The request that adds `address`.
pub(super) fn added(index: u32, address: IpAddr) -> AddressMessage {
    let mut message = message(index, address, host_prefix(address));
    message.attributes.push(AddressAttribute::Address(address));
    if address.is_ipv6() {
        let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(flags));
        let mut lifetimes = CacheInfo::default();
        lifetimes.ifa_preferred = 0;
        lifetimes.ifa_valid = u32::MAX;
        message
            .attributes
            .push(AddressAttribute::CacheInfo(lifetimes));
    }
    message
}

/// The request that removes `address`. Without IFA_ADDRESS the kernel takes an IPv4 address off
/// whatever its prefix length.
pub(super) fn removed(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    message(index, address, prefix)
}

/// The request that removes `address` with this prefix length, and no other one.
pub(super) fn removed_exactly(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = message(index, address, prefix);
    message.attributes.push(AddressAttribute::Address(address));
    message
}

/// The interface's own address in a dumped message: IFA_LOCAL, or IFA_ADDRESS where that is all
/// there is (IPv6 without a peer).
pub(super) fn local(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    let attributes = &message.attributes;
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let plain = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    Some((local.or(plain)?, message.header.prefix_len))
}
