//! Which frames are answers for a virtual IP. Pure: bytes in, meaning out.
//!
//! Segments of an open connection are no answers: they go on between two ends that know each other
//! already, and lead no new client to a host.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::lab::{CLIENT_V4, VIP_V4, VIP_V6};

/// One of the two virtual IPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vip {
    /// [`VIP_V4`].
    V4,
    /// [`VIP_V6`].
    V6,
}

/// How a host says that it has a virtual IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An ARP reply, or solicited neighbour advertisement.
    Neighbour,
    /// A gratuitous ARP of either form, or an unsolicited neighbour advertisement.
    Announcement,
    /// SYN and ACK of a TCP connection.
    SynAck,
    /// An ICMP echo reply.
    Echo,
}

impl Kind {
    /// All, in the order of tables.
    pub const ALL: [Self; 4] = [
        Self::Neighbour,
        Self::Announcement,
        Self::SynAck,
        Self::Echo,
    ];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Neighbour => "ARP reply, NA",
            Self::Announcement => "announcement",
            Self::SynAck => "SYN-ACK",
            Self::Echo => "echo reply",
        }
    }
}

/// A frame in which a host answered for a virtual IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When the host's kernel handed it to the bridge, on `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// The number of the bridge's port that it came in by, which is the number of the host.
    pub host: u8,
    /// For which address.
    pub vip: Vip,
    /// How.
    pub kind: Kind,
}

/// What a frame is to the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// An answer.
    Answer(Vip, Kind),
    /// The client asks everybody who has the IPv4 address.
    Question,
    /// Nothing of this.
    Other,
}

/// The Ethernet address of a frame's sender.
pub fn sender(frame: &[u8]) -> Option<[u8; 6]> {
    frame.get(6..12)?.try_into().ok()
}

/// What a frame means.
pub fn meaning(frame: &[u8]) -> Meaning {
    let Some((header, packet)) = frame.split_at_checked(14) else {
        return Meaning::Other;
    };
    let found = match header[12..14] {
        [0x08, 0x06] => arp(packet),
        [0x08, 0x00] => v4(packet),
        [0x86, 0xdd] => v6(packet),
        _ => None,
    };
    found.unwrap_or(Meaning::Other)
}

fn arp(packet: &[u8]) -> Option<Meaning> {
    let address = |at: usize| -> Option<Ipv4Addr> {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(octets.into())
    };
    let (sender, target) = (address(14)?, address(24)?);
    let is_request = packet[6..8] == [0, 1];
    if is_request && sender == CLIENT_V4 && target == VIP_V4 {
        return Some(Meaning::Question);
    }
    if sender != VIP_V4 {
        return None;
    }
    // Also a request for another address, if it is sent in the virtual one's name, makes all who
    // hear it turn to the sender.
    let kind = match is_request || sender == target {
        true => Kind::Announcement,
        false => Kind::Neighbour,
    };
    Some(Meaning::Answer(Vip::V4, kind))
}

fn v4(packet: &[u8]) -> Option<Meaning> {
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    if Ipv4Addr::from(source) != VIP_V4 {
        return None;
    }
    let payload = packet.get(usize::from(packet[0] & 0xf) * 4..)?;
    let kind = match packet[9] {
        1 if *payload.first()? == 0 => Kind::Echo,
        6 if is_syn_ack(payload)? => Kind::SynAck,
        _ => return None,
    };
    Some(Meaning::Answer(Vip::V4, kind))
}

fn v6(packet: &[u8]) -> Option<Meaning> {
    let address = |bytes: &[u8]| -> Option<Ipv6Addr> {
        let octets: [u8; 16] = bytes.try_into().ok()?;
        Some(octets.into())
    };
    let source = address(packet.get(8..24)?)?;
    let payload = packet.get(40..)?;
    if packet[6] == 58 && *payload.first()? == 136 {
        let is_solicited = payload.get(4)? & 0x40 != 0;
        let kind = match is_solicited {
            true => Kind::Neighbour,
            false => Kind::Announcement,
        };
        let target = address(payload.get(8..24)?)?;
        return (target == VIP_V6).then_some(Meaning::Answer(Vip::V6, kind));
    }
    if source != VIP_V6 {
        return None;
    }
    let kind = match packet[6] {
        58 if *payload.first()? == 129 => Kind::Echo,
        6 if is_syn_ack(payload)? => Kind::SynAck,
        _ => return None,
    };
    Some(Meaning::Answer(Vip::V6, kind))
}

fn is_syn_ack(segment: &[u8]) -> Option<bool> {
    Some(segment.get(13)? & 0x12 == 0x12)
}

#[cfg(test)]
mod tests {
    use super::super::frames::{Ends, Mac, arp_request, echo_v4, echo_v6, solicitation, syn_v4};
    use super::*;
    use crate::lab::CLIENT_V6;

    const HOST: Mac = [2, 0, 0, 0, 0, 1];
    const CLIENT: Mac = [2, 0, 0, 0, 0, 9];

    #[test]
    fn questions_are_no_answers() {
        let asked = arp_request((CLIENT, CLIENT_V4), VIP_V4);
        assert_eq!(meaning(&asked), Meaning::Question);
        assert_eq!(sender(&asked), Some(CLIENT));
        let asked = solicitation((CLIENT, CLIENT_V6), VIP_V6);
        assert_eq!(meaning(&asked), Meaning::Other);
    }

    #[test]
    fn arp_in_the_name_of_the_address_is_an_answer() {
        let announced = arp_request((HOST, VIP_V4), VIP_V4);
        let answer = |kind| Meaning::Answer(Vip::V4, kind);
        assert_eq!(meaning(&announced), answer(Kind::Announcement));
        let mut reply = arp_request((HOST, VIP_V4), CLIENT_V4);
        assert_eq!(meaning(&reply), answer(Kind::Announcement));
        reply[21] = 2;
        assert_eq!(meaning(&reply), answer(Kind::Neighbour));
    }

    #[test]
    fn advertisements_of_the_address_are_answers_whoever_sends_them() {
        let mut frame = solicitation((HOST, CLIENT_V6), VIP_V6);
        frame[54] = 136;
        assert_eq!(
            meaning(&frame),
            Meaning::Answer(Vip::V6, Kind::Announcement)
        );
        frame[58] = 0x60;
        assert_eq!(meaning(&frame), Meaning::Answer(Vip::V6, Kind::Neighbour));
        frame[77] ^= 1;
        assert_eq!(meaning(&frame), Meaning::Other);
    }

    #[test]
    fn the_first_segment_and_the_echo_are_answers_and_data_is_not() {
        let v4 = Ends {
            from: (HOST, VIP_V4),
            to: (CLIENT, CLIENT_V4),
        };
        let v6 = Ends {
            from: (HOST, VIP_V6),
            to: (CLIENT, CLIENT_V6),
        };
        let mut segment = syn_v4(v4, 80);
        assert_eq!(meaning(&segment), Meaning::Other);
        segment[47] = 0x12;
        assert_eq!(meaning(&segment), Meaning::Answer(Vip::V4, Kind::SynAck));
        segment[47] = 0x18;
        assert_eq!(meaning(&segment), Meaning::Other);
        let (mut four, mut six) = (echo_v4(v4, 1), echo_v6(v6, 1));
        assert_eq!(meaning(&four), Meaning::Other);
        (four[34], six[54]) = (0, 129);
        assert_eq!(meaning(&four), Meaning::Answer(Vip::V4, Kind::Echo));
        assert_eq!(meaning(&six), Meaning::Answer(Vip::V6, Kind::Echo));
    }

    #[test]
    fn any_bytes_have_a_meaning() {
        let frame = solicitation((HOST, VIP_V6), VIP_V6);
        for kind in [[0x08, 0x06], [0x08, 0x00], [0x86, 0xdd]] {
            for end in 0..frame.len() {
                let mut cut = frame[..end].to_vec();
                if let Some(field) = cut.get_mut(12..14) {
                    field.copy_from_slice(&kind);
                }
                let _ = meaning(&cut);
            }
        }
    }
}
