//! The frames that tell neighbours where a virtual IP lives now, as bytes.
//!
//! Complete Ethernet frames, so that they can leave through a packet socket before the address is
//! usable in the IP stack. This module never opens a socket and never reads the interface.

use std::net::{Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// A gratuitous ARP frame.
pub type ArpFrame = [u8; 42];

/// An unsolicited neighbour advertisement frame.
pub type AdvertisementFrame = [u8; 86];

const BROADCAST: Mac = [0xff; 6];
/// ff02::1 as an Ethernet address (RFC 2464, section 7).
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ICMPV6: u8 = 58;

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
    let mut frame = [0; 42];
    let (operation, target) = match form {
        // RFC 5227: the target hardware address of a request is ignored and set to zero.
        ArpForm::Request => (1, [0; 6]),
        // RFC 5944: in a reply it is the address that the cache entry should get.
        ArpForm::Reply => (2, mac),
    };
    frame[0..6].copy_from_slice(&BROADCAST);
    frame[6..12].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&[0x08, 0x06]);
    // Hardware type Ethernet, protocol IPv4, address lengths 6 and 4.
    frame[14..20].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame[20..22].copy_from_slice(&[0, operation]);
    frame[22..28].copy_from_slice(&mac);
    frame[28..32].copy_from_slice(&address.octets());
    frame[32..38].copy_from_slice(&target);
    frame[38..42].copy_from_slice(&address.octets());
    frame
}

/// An unsolicited neighbour advertisement to all nodes: `address` is at `mac`, override what you
/// had (RFC 4861, sections 4.4 and 7.2.6).
///
/// The router flag is clear: a virtual IP is a host's address. A neighbour that uses it as its
/// default router would learn the route again from the next router advertisement.
pub fn advertisement(mac: Mac, address: Ipv6Addr) -> AdvertisementFrame {
    let mut frame = [0; 86];
    frame[0..6].copy_from_slice(&ALL_NODES_MAC);
    frame[6..12].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    // IPv6: version 6, payload of 32 bytes, ICMPv6. RFC 4861 drops any hop limit below 255, which
    // proves that no router forwarded the frame.
    frame[14] = 0x60;
    frame[18..20].copy_from_slice(&[0, 32]);
    frame[20] = ICMPV6;
    frame[21] = 255;
    frame[22..38].copy_from_slice(&address.octets());
    frame[38..54].copy_from_slice(&ALL_NODES.octets());
    // Type 136; flags: router 0, solicited 0, override 1.
    frame[54] = 136;
    frame[58] = 0x20;
    frame[62..78].copy_from_slice(&address.octets());
    // Option 2, target link-layer address, length in units of 8 bytes.
    frame[78..80].copy_from_slice(&[2, 1]);
    frame[80..86].copy_from_slice(&mac);
    let sum = checksum(address, ALL_NODES, &frame[54..86]);
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The ICMPv6 checksum of `message`, whose checksum field is zero (RFC 4443, section 2.3).
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum()
    };
    let mut sum = words(&source.octets())
        + words(&destination.octets())
        + message.len() as u32
        + u32::from(ICMPV6)
        + words(message);
    // At most 50 words were added, so two folds are enough.
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
