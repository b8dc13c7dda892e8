//! What a received frame says of who has an address.
//!
//! The bytes come from anybody on the link. Whatever is not complete, valid and unambiguous is an
//! error, as the RFCs ask of a receiver; nothing here believes a statement or remembers it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Mac;
use super::frames::{ADVERTISEMENT, ICMPV6, SOLICITATION, checksum};

const ETHERNET_HEADER: usize = 14;
const IPV6_HEADER: usize = 40;
/// Of a solicitation or advertisement before its options.
const DISCOVERY_HEADER: usize = 24;

/// A host says that an address is at a MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The address that is spoken of: the sender's own.
    pub address: IpAddr,
    /// Where it is said to be.
    pub mac: Mac,
    /// The address that had asked, when this is an answer: a reply, or an advertisement that was
    /// solicited.
    pub answers: Option<IpAddr>,
}

/// Why a frame states nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Neither ARP nor a neighbour solicitation or advertisement.
    #[error("the frame is neither ARP nor neighbour discovery")]
    Foreign,
    /// It asks without saying who asks: a probe (RFC 5227) or duplicate address detection
    /// (RFC 4862), by a host that does not have the address yet.
    #[error("the frame claims no address")]
    ClaimsNothing,
    /// Too short, or a field has a value that the RFCs forbid.
    #[error("the frame is malformed")]
    Malformed,
}

impl Statement {
    /// Reads a whole Ethernet frame without a VLAN tag; what follows the message is padding.
    ///
    /// # Errors
    /// When it says nothing of who has which address, or is not valid: RFC 826 for ARP; RFC 4861,
    /// sections 7.1.1 and 7.1.2, for neighbour discovery, whose message must follow the IPv6 header
    /// at once.
    pub fn decode(frame: &[u8]) -> Result<Self, StatementError> {
        let (header, payload) = frame
            .split_at_checked(ETHERNET_HEADER)
            .ok_or(StatementError::Malformed)?;
        let source = bytes(header, 6)?;
        match bytes(header, 12)? {
            [0x08, 0x06] => arp(payload),
            [0x86, 0xdd] => discovery(payload, source),
            _ => Err(StatementError::Foreign),
        }
    }
}

fn arp(packet: &[u8]) -> Result<Statement, StatementError> {
    // Hardware type Ethernet, protocol IPv4, address lengths 6 and 4.
    if bytes(packet, 0)? != [0, 1, 8, 0, 6, 4] {
        return Err(StatementError::Foreign);
    }
    let mac = bytes(packet, 8)?;
    let sender = Ipv4Addr::from(bytes::<4>(packet, 14)?);
    let target = Ipv4Addr::from(bytes::<4>(packet, 24)?);
    let answers = match bytes(packet, 6)? {
        [0, 1] => None,
        [0, 2] => Some(target.into()),
        _ => return Err(StatementError::Foreign),
    };
    if sender.is_unspecified() {
        return Err(StatementError::ClaimsNothing);
    }
    statement(sender.into(), mac, answers)
}

fn discovery(packet: &[u8], sender: Mac) -> Result<Statement, StatementError> {
    let (header, rest) = packet
        .split_at_checked(IPV6_HEADER)
        .ok_or(StatementError::Malformed)?;
    if header[0] >> 4 != 6 || header[6] != ICMPV6 {
        return Err(StatementError::Foreign);
    }
    let length = u16::from_be_bytes(bytes(header, 4)?);
    let message = rest.get(..length.into()).ok_or(StatementError::Malformed)?;
    let kind = *message.first().ok_or(StatementError::Malformed)?;
    if ![SOLICITATION, ADVERTISEMENT].contains(&kind) {
        return Err(StatementError::Foreign);
    }
    let source = Ipv6Addr::from(bytes::<16>(header, 8)?);
    let destination = Ipv6Addr::from(bytes::<16>(header, 24)?);
    let target = Ipv6Addr::from(bytes::<16>(message, 8)?);
    let hop_limit = header[7];
    // A router lowers the hop limit, so 255 proves that the sender is on this link.
    let valid = hop_limit == 255
        && bytes(message, 1)? == [0]
        && !source.is_multicast()
        && !target.is_multicast()
        && checksum(source, destination, message) == 0;
    if !valid {
        return Err(StatementError::Malformed);
    }
    let options = &message[DISCOVERY_HEADER..];
    let (source_option, target_option) = (option(options, 1)?, option(options, 2)?);
    if kind == SOLICITATION {
        if source.is_unspecified() {
            return Err(StatementError::ClaimsNothing);
        }
        return statement(source.into(), source_option.unwrap_or(sender), None);
    }
    let is_solicited = message[4] & 0x40 != 0;
    if is_solicited && destination.is_multicast() {
        return Err(StatementError::Malformed);
    }
    let answers = is_solicited.then_some(destination.into());
    statement(target.into(), target_option.unwrap_or(sender), answers)
}

fn statement(
    address: IpAddr,
    mac: Mac,
    answers: Option<IpAddr>,
) -> Result<Statement, StatementError> {
    // No host has a group's address or none at all.
    if mac[0] & 1 == 1 || mac == [0; 6] || address.is_unspecified() {
        return Err(StatementError::Malformed);
    }
    Ok(Statement {
        address,
        mac,
        answers,
    })
}

/// The Ethernet address in the first option of this kind. All options are looked at: one of length
/// zero makes the whole message invalid.
fn option(mut options: &[u8], kind: u8) -> Result<Option<Mac>, StatementError> {
    let mut found = None;
    while !options.is_empty() {
        let [this, length] = bytes(options, 0)?;
        if length == 0 {
            return Err(StatementError::Malformed);
        }
        let (one, rest) = options
            .split_at_checked(usize::from(length) * 8)
            .ok_or(StatementError::Malformed)?;
        if this == kind && found.is_none() {
            found = Some(bytes(one, 2)?);
        }
        options = rest;
    }
    Ok(found)
}

/// The `N` bytes at `at`.
fn bytes<const N: usize>(from: &[u8], at: usize) -> Result<[u8; N], StatementError> {
    from.get(at..)
        .and_then(<[u8]>::first_chunk)
        .copied()
        .ok_or(StatementError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frames::{self, ArpForm};
    use super::*;

    const MAC: Mac = [0x02, 0, 0, 0, 0x0a, 0x01];
    const FOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const SIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
    const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

    fn said(
        address: impl Into<IpAddr>,
        answers: Option<IpAddr>,
    ) -> Result<Statement, StatementError> {
        statement(address.into(), MAC, answers)
    }

    /// `frame` with a change to its message, whose checksum is then made right again.
    fn changed(mut frame: [u8; 86], change: impl FnOnce(&mut [u8; 86])) -> [u8; 86] {
        change(&mut frame);
        frame[56..58].fill(0);
        let address = |at: usize| Ipv6Addr::from(bytes::<16>(&frame, at).expect("inside"));
        let sum = checksum(address(22), address(38), &frame[54..86]);
        frame[56..58].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    #[test]
    fn what_is_sent_is_understood() {
        let target = Ipv4Addr::new(192, 0, 2, 2);
        let announced = frames::arp(ArpForm::Request, MAC, FOUR);
        assert_eq!(Statement::decode(&announced), said(FOUR, None));
        let announced = frames::arp(ArpForm::Reply, MAC, FOUR);
        assert_eq!(Statement::decode(&announced), said(FOUR, Some(FOUR.into())));
        let asked = frames::request(MAC, FOUR, target);
        assert_eq!(Statement::decode(&asked), said(FOUR, None));
        let announced = frames::advertisement(MAC, SIX);
        assert_eq!(Statement::decode(&announced), said(SIX, None));
        let asked = frames::solicitation(MAC, SIX, OTHER);
        assert_eq!(Statement::decode(&asked), said(SIX, None));
        let padded = [&asked[..], &[0xff; 20]].concat();
        assert_eq!(Statement::decode(&padded), said(SIX, None));
    }

    #[test]
    fn a_solicited_advertisement_names_who_asked() {
        let to_us = changed(frames::advertisement(MAC, SIX), |frame| {
            frame[38..54].copy_from_slice(&OTHER.octets());
            frame[58] = 0x60;
        });
        assert_eq!(Statement::decode(&to_us), said(SIX, Some(OTHER.into())));
        let to_all = changed(frames::advertisement(MAC, SIX), |frame| frame[58] = 0x60);
        assert_eq!(Statement::decode(&to_all), Err(StatementError::Malformed));
    }

    #[test]
    fn who_only_probes_claims_nothing() {
        let probe = frames::request(MAC, Ipv4Addr::UNSPECIFIED, FOUR);
        assert_eq!(
            Statement::decode(&probe),
            Err(StatementError::ClaimsNothing)
        );
        let detection = frames::solicitation(MAC, Ipv6Addr::UNSPECIFIED, SIX);
        assert_eq!(
            Statement::decode(&detection),
            Err(StatementError::ClaimsNothing)
        );
    }

    #[test]
    fn without_an_option_the_frames_source_counts_and_other_options_are_skipped() {
        let other = changed(frames::advertisement(MAC, SIX), |frame| frame[78] = 14);
        assert_eq!(Statement::decode(&other), said(SIX, None));
        let moved = changed(frames::advertisement(MAC, SIX), |frame| frame[6] = 0x06);
        assert_eq!(
            Statement::decode(&moved),
            said(SIX, None),
            "the option counts"
        );
    }

    #[test]
    fn what_the_rfcs_forbid_is_refused() {
        let valid = frames::advertisement(MAC, SIX);
        for (what, at, value) in [
            ("a hop limit below 255", 21, 254),
            ("a code", 55, 1),
            ("an option of length zero", 79, 0),
            ("an option that is too long", 79, 2),
            ("a target that is a group", 62, 0xff),
            ("a source that is a group", 22, 0xff),
            ("the MAC of a group", 80, 0x03),
            ("a length beyond the frame", 19, 33),
        ] {
            let frame = changed(valid, |frame| frame[at] = value);
            assert_eq!(
                Statement::decode(&frame),
                Err(StatementError::Malformed),
                "{what}"
            );
        }
        let mut broken = valid;
        broken[70] ^= 1;
        assert_eq!(Statement::decode(&broken), Err(StatementError::Malformed));
        let nobody = frames::arp(ArpForm::Reply, [0; 6], FOUR);
        assert_eq!(Statement::decode(&nobody), Err(StatementError::Malformed));
        for length in 0..valid.len() {
            assert!(
                Statement::decode(&valid[..length]).is_err(),
                "{length} bytes"
            );
        }
        for length in 0..nobody.len() {
            let cut = &frames::arp(ArpForm::Reply, MAC, FOUR)[..length];
            assert!(Statement::decode(cut).is_err(), "{length} bytes");
        }
    }

    /// Any bytes, most of them made to look like a frame that is worth decoding.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let bytes = prop::collection::vec(any::<u8>(), 0..200);
        (bytes, 0..4_u8, any::<bool>()).prop_map(|(mut bytes, looks, advertises)| {
            let mut put = |at: usize, value: &[u8]| {
                if let Some(place) = bytes.get_mut(at..at + value.len()) {
                    place.copy_from_slice(value);
                }
            };
            match looks {
                0 => {}
                1 => put(12, &[8, 6, 0, 1, 8, 0, 6, 4, 0]),
                _ => {
                    put(12, &[0x86, 0xdd, 0x60]);
                    put(18, &[0]);
                    put(20, &[ICMPV6, 255]);
                    put(
                        54,
                        &[
                            if advertises {
                                ADVERTISEMENT
                            } else {
                                SOLICITATION
                            },
                            0,
                        ],
                    );
                }
            }
            if let (3, Some(length)) = (looks, bytes.len().checked_sub(54 + 24)) {
                bytes[18..20].copy_from_slice(&(length as u16 + 24).to_be_bytes());
                bytes[56..58].fill(0);
                let address =
                    |at: usize| Ipv6Addr::from(super::bytes::<16>(&bytes, at).expect("inside"));
                let sum = checksum(address(22), address(38), &bytes[54..]);
                bytes[56..58].copy_from_slice(&sum.to_be_bytes());
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in frame()) {
            if let Ok(statement) = Statement::decode(&bytes) {
                prop_assert!(statement.mac[0] & 1 == 0);
                prop_assert!(!statement.address.is_unspecified());
            }
        }
    }
}
