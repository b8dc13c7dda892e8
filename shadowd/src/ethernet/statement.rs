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
mod tests;
