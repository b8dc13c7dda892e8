//! The frames that neighbours of a link exchange about who has an address, as bytes to send.
//!
//! Complete Ethernet frames, so that they can leave through a packet socket before the address is
//! usable in the IP stack, and without the stack having a say in whom it asks. This module never
//! opens a socket and never reads the interface.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Mac;

/// An ARP frame.
pub type ArpFrame = [u8; 42];

/// A neighbour solicitation or advertisement with the one option that tells an Ethernet address.
pub type DiscoveryFrame = [u8; 86];

const BROADCAST: Mac = [0xff; 6];
/// ff02::1 as an Ethernet address (RFC 2464, section 7).
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Next header of ICMPv6 (RFC 4443).
pub(super) const ICMPV6: u8 = 58;
/// ICMPv6 types (RFC 4861, sections 4.3 and 4.4).
pub(super) const SOLICITATION: u8 = 135;
pub(super) const ADVERTISEMENT: u8 = 136;

/// Which of the two forms of a gratuitous ARP. Some stacks only learn from one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpForm {
    /// The ARP announcement of RFC 5227, section 3: a request for the sender's own address.
    Request,
    /// The gratuitous reply of RFC 5944, section 4.6.
    Reply,
}

/// A gratuitous ARP: `address` is at `mac` (RFC 826, RFC 5227).
pub fn arp(form: ArpForm, mac: Mac, address: Ipv4Addr) -> ArpFrame {
    match form {
        // RFC 5227: the target hardware address of a request is ignored and set to zero.
        ArpForm::Request => arp_frame(1, (mac, address), ([0; 6], address)),
        // RFC 5944: in a reply it is the address that the cache entry should get.
        ArpForm::Reply => arp_frame(2, (mac, address), (mac, address)),
    }
}

/// Asks everybody on the link who has `target`; the answer goes to `own` at `mac` (RFC 826).
pub fn request(mac: Mac, own: Ipv4Addr, target: Ipv4Addr) -> ArpFrame {
    arp_frame(1, (mac, own), ([0; 6], target))
}

fn arp_frame(operation: u8, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> ArpFrame {
    let mut frame = [0; 42];
    frame[0..6].copy_from_slice(&BROADCAST);
    frame[6..12].copy_from_slice(&sender.0);
    frame[12..14].copy_from_slice(&[0x08, 0x06]);
    // Hardware type Ethernet, protocol IPv4, address lengths 6 and 4.
    frame[14..20].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame[20..22].copy_from_slice(&[0, operation]);
    frame[22..28].copy_from_slice(&sender.0);
    frame[28..32].copy_from_slice(&sender.1.octets());
    frame[32..38].copy_from_slice(&target.0);
    frame[38..42].copy_from_slice(&target.1.octets());
    frame
}

/// An unsolicited neighbour advertisement to all nodes: `address` is at `mac`, override what you
/// had (RFC 4861, sections 4.4 and 7.2.6).
///
/// The router flag is clear: a virtual IP is a host's address. A neighbour that uses it as its
/// default router would learn the route again from the next router advertisement.
pub fn advertisement(mac: Mac, address: Ipv6Addr) -> DiscoveryFrame {
    let message = Discovery {
        kind: ADVERTISEMENT,
        // Router 0, solicited 0, override 1.
        flags: 0x20,
        target: address,
        // Target link-layer address.
        option: 2,
    };
    discovery_frame(message, (mac, address), (ALL_NODES_MAC, ALL_NODES))
}

/// Asks who has `target`, at its solicited-node multicast address; the answer goes to `own` at
/// `mac` (RFC 4861, sections 4.3 and 7.2.2; RFC 4291, section 2.7.1).
pub fn solicitation(mac: Mac, own: Ipv6Addr, target: Ipv6Addr) -> DiscoveryFrame {
    let message = Discovery {
        kind: SOLICITATION,
        flags: 0,
        target,
        // Source link-layer address.
        option: 1,
    };
    let [.., a, b, c] = target.octets();
    let low = u16::from_be_bytes([b, c]);
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low);
    discovery_frame(message, (mac, own), ([0x33, 0x33, 0xff, a, b, c], group))
}

/// What is particular to one neighbour discovery message.
struct Discovery {
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    option: u8,
}

/// `message` with the sender's Ethernet address as its option.
fn discovery_frame(
    message: Discovery,
    source: (Mac, Ipv6Addr),
    destination: (Mac, Ipv6Addr),
) -> DiscoveryFrame {
    let mut frame = [0; 86];
    frame[0..6].copy_from_slice(&destination.0);
    frame[6..12].copy_from_slice(&source.0);
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    // IPv6: version 6, payload of 32 bytes, ICMPv6. RFC 4861 drops any hop limit below 255, which
    // proves that no router forwarded the frame.
    frame[14] = 0x60;
    frame[18..20].copy_from_slice(&[0, 32]);
    frame[20] = ICMPV6;
    frame[21] = 255;
    frame[22..38].copy_from_slice(&source.1.octets());
    frame[38..54].copy_from_slice(&destination.1.octets());
    frame[54] = message.kind;
    frame[58] = message.flags;
    frame[62..78].copy_from_slice(&message.target.octets());
    // The option's length is in units of 8 bytes.
    frame[78..80].copy_from_slice(&[message.option, 1]);
    frame[80..86].copy_from_slice(&source.0);
    let sum = checksum(source.1, destination.1, &frame[54..86]);
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The ICMPv6 checksum of `message` (RFC 4443, section 2.3): what belongs into the checksum field
/// when that is zero, and zero when the field is right. Of a longer message than IPv6 can carry
/// only the first 65,535 bytes count.
pub(super) fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let message = &message[..length.into()];
    let words = |bytes: &[u8]| -> u32 {
        let word = |pair: &[u8]| [pair[0], pair.get(1).copied().unwrap_or(0)];
        bytes
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes(word(pair))))
            .sum()
    };
    let mut sum = words(&source.octets())
        + words(&destination.octets())
        + u32::from(length)
        + u32::from(ICMPV6)
        + words(message);
    // At most 32,786 words were added: no overflow, and two folds are enough.
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [0x02, 0, 0, 0, 0x0a, 0x01];

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text
            .chars()
            .filter(|digit| !digit.is_whitespace())
            .collect();
        data_encoding::HEXLOWER
            .decode(digits.as_bytes())
            .expect("the test's own constant")
    }

    #[test]
    fn arp_forms_match_the_wire_format_of_rfc_826() {
        let address = Ipv4Addr::new(192, 0, 2, 10);
        let request = hex("ffffffffffff 020000000a01 0806 0001 0800 06 04 0001
             020000000a01 c000020a 000000000000 c000020a");
        let reply = hex("ffffffffffff 020000000a01 0806 0001 0800 06 04 0002
             020000000a01 c000020a 020000000a01 c000020a");
        assert_eq!(arp(ArpForm::Request, MAC, address).to_vec(), request);
        assert_eq!(arp(ArpForm::Reply, MAC, address).to_vec(), reply);
    }

    #[test]
    fn the_advertisement_matches_the_wire_format_of_rfc_4861() {
        // The checksum ef0c was computed by an independent program.
        let expected = hex("333300000001 020000000a01 86dd 60000000 0020 3a ff
             20010db8000000000000000000000010 ff020000000000000000000000000001
             88 00 ef0c 20000000 20010db8000000000000000000000010 02 01 020000000a01");
        let address = "2001:db8::10".parse().expect("the test's own constant");
        assert_eq!(advertisement(MAC, address).to_vec(), expected);
    }

    #[test]
    fn questions_match_the_wire_formats_of_rfc_826_and_rfc_4861() {
        let (own, target) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let expected = hex("ffffffffffff 020000000a01 0806 0001 0800 06 04 0001
             020000000a01 c0000201 000000000000 c0000202");
        assert_eq!(request(MAC, own, target).to_vec(), expected);

        // The checksum 74f5 was computed by an independent program.
        let expected = hex("3333ffabcdef 020000000a01 86dd 60000000 0020 3a ff
             20010db8000000000000000000000001 ff0200000000000000000001ffabcdef
             87 00 74f5 00000000 20010db8000000000000000000abcdef 01 01 020000000a01");
        let (own, target) = ("2001:db8::1", "2001:db8::ab:cdef");
        let address = |text: &str| text.parse().expect("the test's own constant");
        assert_eq!(
            solicitation(MAC, address(own), address(target)).to_vec(),
            expected
        );
    }

    #[test]
    fn a_receiver_finds_the_checksum_right_for_any_address() {
        for seed in 0..=u16::MAX {
            let word = seed.wrapping_mul(40_503);
            let address = Ipv6Addr::new(0x2001, 0xdb8, word, !word, seed, 0xffff, word, seed);
            let frame = advertisement([0xfe, 0xff, 0xff, 0xff, word as u8, seed as u8], address);
            let message = &frame[54..86];
            assert_eq!(checksum(address, ALL_NODES, message), 0, "{address}");
        }
    }
}
