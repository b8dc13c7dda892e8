//! Frames about a virtual IP, and frames that only look like it, with what the guard does to each.

use std::net::{Ipv4Addr, Ipv6Addr};

/// One frame on its way out of the loopback interface and in again.
pub struct Frame {
    /// What it is.
    pub name: &'static str,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
    /// Whether it is about the IPv6 address.
    pub is_six: bool,
    /// How often a closed guard drops it: on arrival, instead of sending it.
    pub dropped: (u64, u64),
}

const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NEXT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const OTHER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const NEXT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11);
const NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Where the neighbour whose address ends like the VIP's is asked (RFC 4291, section 2.7.1).
const ASKED: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x10);

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// RFC 9293.
pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;
const ICMPV6: u8 = 58;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ECHO: u8 = 128;

const ARRIVES: (u64, u64) = (1, 0);
const SENT: (u64, u64) = (0, 1);
const PASSES: (u64, u64) = (0, 0);

/// The table.
pub fn all() -> Vec<Frame> {
    let mut frames = four();
    frames.extend(six());
    frames
}

fn four() -> Vec<Frame> {
    let ip = |from, to| ethernet(&[IPV4], &ipv4(from, to));
    let arp = |form, sender, target| ethernet(&[ARP], &arp(form, sender, target));
    [
        ("ipv4 to it", ip(OTHER, VIP), ARRIVES),
        ("ipv4 in its name", ip(VIP, OTHER), SENT),
        ("ipv4 among others", ip(OTHER, NEXT), PASSES),
        ("arp asks for it", arp(REQUEST, OTHER, VIP), ARRIVES),
        ("arp probes for it", arp(REQUEST, NOBODY, VIP), ARRIVES),
        ("arp answers it", arp(REPLY, OTHER, VIP), ARRIVES),
        ("arp asks in its name", arp(REQUEST, VIP, OTHER), SENT),
        ("arp answers in its name", arp(REPLY, VIP, OTHER), SENT),
        ("arp announces it", arp(REQUEST, VIP, VIP), SENT),
        ("arp announces it in a reply", arp(REPLY, VIP, VIP), SENT),
        ("arp among others", arp(REQUEST, OTHER, NEXT), PASSES),
        (
            "tagged ipv4 to it",
            ethernet(&[VLAN, 7, IPV4], &ipv4(OTHER, VIP)),
            ARRIVES,
        ),
        (
            "tagged arp in its name",
            ethernet(&[SERVICE_VLAN, 7, ARP], &self::arp(REPLY, VIP, OTHER)),
            SENT,
        ),
        (
            "another protocol with its bytes",
            ethernet(&[0x88b5], &ipv4(OTHER, VIP)),
            PASSES,
        ),
        ("ipv4 cut short", ip(OTHER, VIP)[..30].to_vec(), PASSES),
        (
            "arp cut short",
            arp(REQUEST, OTHER, VIP)[..40].to_vec(),
            PASSES,
        ),
        ("a header alone", ip(OTHER, VIP)[..14].to_vec(), PASSES),
    ]
    .map(|(name, bytes, dropped)| frame(name, bytes, dropped, false))
    .into()
}

fn six() -> Vec<Frame> {
    let udp = |from, to| ethernet(&[IPV6], &ipv6(UDP, from, to, &[0; 8]));
    let nd =
        |kind, from, to, target| ethernet(&[IPV6], &ipv6(ICMPV6, from, to, &icmp(kind, target)));
    [
        ("ipv6 to it", udp(OTHER6, VIP6), ARRIVES),
        ("ipv6 in its name", udp(VIP6, OTHER6), SENT),
        ("ipv6 among others", udp(OTHER6, NEXT6), PASSES),
        (
            "a solicitation of it",
            nd(SOLICITATION, OTHER6, ASKED, VIP6),
            ARRIVES,
        ),
        (
            "a solicitation of it, to another address of the host",
            nd(SOLICITATION, OTHER6, NEXT6, VIP6),
            ARRIVES,
        ),
        (
            "an advertisement of it",
            nd(ADVERTISEMENT, OTHER6, NODES, VIP6),
            SENT,
        ),
        (
            "a solicitation in its name",
            nd(SOLICITATION, VIP6, ASKED, NEXT6),
            SENT,
        ),
        (
            "a solicitation of another",
            nd(SOLICITATION, OTHER6, ASKED, NEXT6),
            PASSES,
        ),
        (
            "an advertisement of another",
            nd(ADVERTISEMENT, OTHER6, NODES, NEXT6),
            PASSES,
        ),
        (
            "an echo with its address",
            nd(ECHO, OTHER6, NEXT6, VIP6),
            PASSES,
        ),
        (
            "a tagged solicitation of it",
            ethernet(
                &[VLAN, 7, IPV6],
                &ipv6(ICMPV6, OTHER6, ASKED, &icmp(SOLICITATION, VIP6)),
            ),
            ARRIVES,
        ),
        ("ipv6 cut short", udp(OTHER6, VIP6)[..50].to_vec(), PASSES),
        (
            "a solicitation cut short",
            nd(SOLICITATION, OTHER6, ASKED, VIP6)[..70].to_vec(),
            PASSES,
        ),
    ]
    .map(|(name, bytes, dropped)| frame(name, bytes, dropped, true))
    .into()
}

fn frame(name: &'static str, bytes: Vec<u8>, dropped: (u64, u64), is_six: bool) -> Frame {
    Frame {
        name,
        bytes,
        is_six,
        dropped,
    }
}

/// An Ethernet frame between nobody and nobody; `kinds` is its type, or a tag and then the type.
fn ethernet(kinds: &[u16], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    for kind in kinds {
        frame.extend(kind.to_be_bytes());
    }
    frame.extend(payload);
    frame
}

/// A segment of a connection between the client's port `client` and the service, to the address or
/// in its name.
pub fn segment(is_six: bool, in_its_name: bool, client: u16, flags: u8) -> Vec<u8> {
    let service = 80_u16;
    let (from, to) = if in_its_name {
        (service, client)
    } else {
        (client, service)
    };
    let mut header = Vec::from(from.to_be_bytes());
    header.extend(to.to_be_bytes());
    header.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    if is_six {
        let (from, to) = if in_its_name {
            (VIP6, OTHER6)
        } else {
            (OTHER6, VIP6)
        };
        return ethernet(&[IPV6], &ipv6(TCP, from, to, &header));
    }
    let (from, to) = if in_its_name {
        (VIP, OTHER)
    } else {
        (OTHER, VIP)
    };
    let mut packet = ipv4(from, to);
    packet.truncate(20);
    packet[3] = 40;
    packet[9] = TCP;
    packet.extend(header);
    ethernet(&[IPV4], &packet)
}

/// ARP in the name of the address: asks for another one, or answers.
pub fn arp_in_its_name(asks: bool) -> Vec<u8> {
    let form = if asks { REQUEST } else { REPLY };
    ethernet(&[ARP], &arp(form, VIP, OTHER))
}

/// A header of RFC 791 and 8 bytes. The checksum is not filled in: the guard stands before it.
fn ipv4(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, UDP, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend([0; 8]);
    packet
}

/// RFC 826, over Ethernet.
fn arp(form: u16, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(form.to_be_bytes());
    packet.extend([2, 0, 0, 0, 0, 1]);
    packet.extend(sender.octets());
    packet.extend([0; 6]);
    packet.extend(target.octets());
    packet
}

/// A header of RFC 8200 and what follows.
fn ipv6(next: u8, from: Ipv6Addr, to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([next, 255]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

/// RFC 4861, without options.
fn icmp(kind: u8, target: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message
}
