//! The decoder of frames, for the fuzzer: anybody on the segment may have sent them.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::frames::{self, ArpForm, checksum};
use super::statement::Statement;

/// A frame as it came.
pub(crate) fn statement(bytes: &[u8]) {
    if let Ok(statement) = Statement::decode(bytes) {
        assert!(!statement.address.is_unspecified());
        assert_eq!(statement.mac[0] & 1, 0, "a host has no group's address");
    }
}

/// The same with the checksum of its ICMPv6 message made right, as an attacker would.
pub(crate) fn summed_statement(bytes: &[u8]) {
    let mut frame = bytes.to_vec();
    let address = |at: usize| Some(Ipv6Addr::from(*bytes.get(at..)?.first_chunk::<16>()?));
    let length = bytes
        .get(18..20)
        .map_or(0, |two| usize::from(two[0]) << 8 | usize::from(two[1]));
    if let (Some(source), Some(target)) = (address(22), address(38))
        && let Some(message) = frame.get_mut(54..54 + length)
        && message.len() >= 4
    {
        message[2..4].fill(0);
        let sum = checksum(source, target, message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    statement(&frame);
}

/// Every frame that shadowd sends.
pub(crate) fn frames() -> Vec<Vec<u8>> {
    let mac = [2, 0, 0, 0, 0, 1];
    let (four, six) = (
        Ipv4Addr::new(192, 0, 2, 10),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
    );
    let (other, target) = (
        Ipv4Addr::new(192, 0, 2, 2),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
    );
    vec![
        frames::arp(ArpForm::Request, mac, four).to_vec(),
        frames::arp(ArpForm::Reply, mac, four).to_vec(),
        frames::request(mac, four, other).to_vec(),
        frames::advertisement(mac, six).to_vec(),
        frames::solicitation(mac, six, target).to_vec(),
    ]
}
