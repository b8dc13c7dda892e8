//! The questions about the virtual IPs, as bytes to send.
//!
//! Complete Ethernet frames: no neighbour cache of the client decides who is asked, so every host
//! that would answer is asked. Never opens a socket.

use std::net::{Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
pub type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const PORT: u16 = 80;

/// Who asks whom: Ethernet and IP addresses.
#[derive(Clone, Copy, Debug)]
pub struct Ends<A> {
    /// The asker.
    pub from: (Mac, A),
    /// Who is asked.
    pub to: (Mac, A),
}

/// Asks everybody on the link who has `target` (RFC 826).
pub fn arp_request(from: (Mac, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(from.0, BROADCAST, [0x08, 0x06]);
    // Hardware type Ethernet, protocol IPv4, address lengths 6 and 4, request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(from.0);
    frame.extend(from.1.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// Asks everybody who listens for `target` who has it (RFC 4861, section 4.3).
pub fn solicitation(from: (Mac, Ipv6Addr), target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let low = u16::from_be_bytes([b, c]);
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low);
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    // Source link-layer address, one unit of 8 bytes.
    message.extend([1, 1]);
    message.extend(from.0);
    let to = ([0x33, 0x33, 0xff, a, b, c], group);
    v6(Ends { from, to }, ICMPV6, message, 2)
}

/// An echo request.
pub fn echo_v4(ends: Ends<Ipv4Addr>, number: u16) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0x5d, 0x01];
    message.extend(number.to_be_bytes());
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum);
    v4(ends, ICMP, &message)
}

/// An echo request.
pub fn echo_v6(ends: Ends<Ipv6Addr>, number: u16) -> Vec<u8> {
    let mut message = vec![128, 0, 0, 0, 0x5d, 0x01];
    message.extend(number.to_be_bytes());
    v6(ends, ICMPV6, message, 2)
}

/// The first segment of a connection to the web server, from this port.
pub fn syn_v4(ends: Ends<Ipv4Addr>, port: u16) -> Vec<u8> {
    let mut segment = syn(port);
    let (from, to) = (ends.from.1.octets(), ends.to.1.octets());
    let length = [0, TCP, 0, segment.len() as u8];
    let sum = checksum(&[&from, &to, &length, &segment]);
    segment[16..18].copy_from_slice(&sum);
    v4(ends, TCP, &segment)
}

/// The first segment of a connection to the web server, from this port.
pub fn syn_v6(ends: Ends<Ipv6Addr>, port: u16) -> Vec<u8> {
    v6(ends, TCP, syn(port), 16)
}

fn syn(port: u16) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20);
    segment.extend(port.to_be_bytes());
    segment.extend(PORT.to_be_bytes());
    segment.extend([0, 0, 0, port as u8, 0, 0, 0, 0]);
    // 5 words of header, SYN, window, checksum, urgent pointer.
    segment.extend([0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

fn ethernet(from: Mac, to: Mac, kind: [u8; 2]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(96);
    frame.extend(to);
    frame.extend(from);
    frame.extend(kind);
    frame
}

fn v4(ends: Ends<Ipv4Addr>, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 20 + payload.len() as u8];
    // No identification, do not fragment, 64 hops.
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(ends.from.1.octets());
    header.extend(ends.to.1.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum);
    let mut frame = ethernet(ends.from.0, ends.to.0, [0x08, 0x00]);
    frame.extend(header);
    frame.extend(payload);
    frame
}

/// `sum_at` is where the payload has its checksum, which is zero until now.
fn v6(ends: Ends<Ipv6Addr>, protocol: u8, mut payload: Vec<u8>, sum_at: usize) -> Vec<u8> {
    let (from, to) = (ends.from.1.octets(), ends.to.1.octets());
    let length = payload.len() as u8;
    let sum = checksum(&[&from, &to, &[0, length, 0, protocol], &payload]);
    payload[sum_at..sum_at + 2].copy_from_slice(&sum);
    let mut frame = ethernet(ends.from.0, ends.to.0, [0x86, 0xdd]);
    // Version 6; neighbour discovery takes a hop limit of 255 only, the others do not mind.
    frame.extend([0x60, 0, 0, 0, 0, length, protocol, 255]);
    frame.extend(from);
    frame.extend(to);
    frame.extend(payload);
    frame
}

/// The Internet checksum (RFC 1071) of parts of even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words
        .map(|word| {
            u32::from(u16::from_be_bytes([
                word[0],
                word.get(1).map_or(0, |low| *low),
            ]))
        })
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_that_is_right_adds_up_to_nothing() {
        let ends = Ends {
            from: ([2; 6], Ipv4Addr::new(192, 0, 2, 100)),
            to: ([4; 6], Ipv4Addr::new(192, 0, 2, 10)),
        };
        for frame in [echo_v4(ends, 7), syn_v4(ends, 77)] {
            assert_eq!(checksum(&[&frame[14..34]]), [0, 0]);
        }
        assert_eq!(checksum(&[&echo_v4(ends, 7)[34..]]), [0, 0]);
        let segment = &syn_v4(ends, 77)[34..];
        let addresses = &syn_v4(ends, 77)[26..34];
        assert_eq!(checksum(&[addresses, &[0, TCP, 0, 20], segment]), [0, 0]);
    }

    #[test]
    fn a_solicitation_matches_the_wire_format_of_rfc_4861() {
        let own = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        let target = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xab, 0xcdef);
        let frame = solicitation(([2, 0, 0, 0, 0x0a, 1], own), target);
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0xab, 0xcd, 0xef]);
        // The checksum was computed by an independent program.
        assert_eq!(frame[54..58], [0x87, 0, 0x74, 0xf5]);
        assert_eq!(frame.len(), 86);
    }
}
