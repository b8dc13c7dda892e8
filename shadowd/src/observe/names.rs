//! The names under which DNS answers give addresses, for people who read flows.
//!
//! Raw sockets with a filter of their own see UDP datagrams from port 53 that come in, loopback
//! included, in the daemon's network namespace. Packets of other protocols never come near them,
//! which a packet socket would slow down. They are drained on each tick. Answers over TCP, TLS or
//! HTTPS are not seen. Whoever can send a datagram from port 53 can lie: a name is shown and
//! nothing is decided by it. Sends nothing.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, RCODE};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::sys;
use crate::facts::{NameAnswer, ProbeStatus, Sample};

/// Name of the feature.
pub const NAME: &str = "dns";

/// Most datagrams that one tick takes; more wait in the socket's buffer.
const DATAGRAMS_MAX: usize = 8_192;
/// Most names that one tick hands out.
const NAMES_MAX: usize = 4_096;
/// Room for what comes between two ticks.
const BUFFER_BYTES: usize = 2 << 20;
/// Longest datagram that is read, headers included; a longer one is counted as dropped.
const PACKET_MAX: usize = 8_192;
/// Bytes of a UDP header (RFC 768).
const UDP_HEADER: usize = 8;
/// Bytes of a DNS header (RFC 1035, section 4.1.1).
const DNS_HEADER: usize = 12;
/// Most records of an answer; one with more is counted as dropped.
const RECORDS_MAX: usize = 128;
/// Longest chain of aliases that is followed.
const ALIASES_MAX: usize = 16;

/// UDP from port 53, behind an IPv4 header of any length.
const FILTER_V4: [SockFilter; 5] = [
    SockFilter::new(LOAD_HEADER_LENGTH, 0, 0, 0),
    SockFilter::new(LOAD_HALF_INDEXED, 0, 0, 0),
    SockFilter::new(JUMP_EQUAL, 1, 0, 53),
    SockFilter::new(RETURN, 0, 0, 0),
    SockFilter::new(RETURN, 0, 0, 0xffff),
];

/// The same over IPv6, whose headers a raw socket does not show (RFC 3542, section 3).
const FILTER_V6: [SockFilter; 4] = [
    SockFilter::new(LOAD_HALF, 0, 0, 0),
    SockFilter::new(JUMP_EQUAL, 1, 0, 53),
    SockFilter::new(RETURN, 0, 0, 0),
    SockFilter::new(RETURN, 0, 0, 0xffff),
];

// Instructions of the classic packet filter (include/uapi/linux/bpf_common.h).
const LOAD_HALF: u16 = 0x28;
const LOAD_HALF_INDEXED: u16 = 0x48;
/// Four times the low half of a byte, into the index: the length of an IPv4 header.
const LOAD_HEADER_LENGTH: u16 = 0xb1;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// A raw socket of one family.
struct Tap {
    socket: OwnedFd,
    /// Where a datagram begins in what it gives.
    header: fn(&[u8]) -> Option<usize>,
    /// What its full buffer refused, as read last; wraps.
    dropped: u32,
}

impl Tap {
    fn open(
        domain: Domain,
        filter: &[SockFilter],
        header: fn(&[u8]) -> Option<usize>,
    ) -> io::Result<Self> {
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(filter)?;
        // Without CAP_NET_ADMIN it stays as small as the kernel made it, and losses are counted.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES);
        // What came before the filter stood.
        for _ in 0..DATAGRAMS_MAX {
            if recv(socket.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_DONTWAIT).is_err() {
                break;
            }
        }
        let socket = OwnedFd::from(socket);
        let dropped = sys::socket_drops(socket.as_fd())?;
        Ok(Self {
            socket,
            header,
            dropped,
        })
    }

    /// What its full buffer refused since the last time.
    fn drops(&mut self) -> io::Result<u64> {
        let before = self.dropped;
        self.dropped = sys::socket_drops(self.socket.as_fd())?;
        Ok(u64::from(self.dropped.wrapping_sub(before)))
    }
}

/// The sockets and what came of them.
pub struct Names {
    taps: Vec<Tap>,
    buffer: Vec<u8>,
    lost: u64,
}

impl Names {
    /// Opens the sockets; only that of IPv4 on a host without IPv6.
    ///
    /// # Errors
    ///
    /// The kernel's; it needs CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        let mut taps = vec![Tap::open(Domain::IPV4, &FILTER_V4, header_v4)?];
        match Tap::open(Domain::IPV6, &FILTER_V6, |_| Some(0)) {
            Ok(tap) => taps.push(tap),
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
            Err(error) => return Err(error),
        }
        Ok(Self {
            taps,
            buffer: vec![0; PACKET_MAX],
            lost: 0,
        })
    }

    /// Datagrams that were refused, here or by a socket's full buffer, since it was opened.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Its line in the table of probes, given what keeps it from being open.
    pub fn status(off: Option<&str>) -> ProbeStatus {
        ProbeStatus {
            name: NAME.to_owned(),
            feeds: "names of remote addresses, from DNS answers".to_owned(),
            hook: off.is_none().then(|| "raw sockets, udp port 53".to_owned()),
            degraded: off.map(str::to_owned),
            ..ProbeStatus::default()
        }
    }

    /// Takes what came since the last time and adds each name once to a sample.
    ///
    /// # Errors
    ///
    /// The kernel's; the sockets stay usable.
    pub fn drain(&mut self, sample: &mut Sample) -> io::Result<()> {
        let mut known = BTreeSet::new();
        let mut failed = None;
        for tap in &mut self.taps {
            for _ in 0..DATAGRAMS_MAX {
                let length = match recv(
                    tap.socket.as_raw_fd(),
                    &mut self.buffer,
                    MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC,
                ) {
                    Ok(length) => length,
                    Err(Errno::EINTR) => continue,
                    Err(Errno::EAGAIN) => break,
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                };
                let answers = (self.buffer.get(..length))
                    .and_then(|packet| payload(packet.get((tap.header)(packet)?..)?))
                    .and_then(answers);
                match answers {
                    Some(answers) if known.len() + answers.len() <= NAMES_MAX => {
                        sample.dns_answers += 1;
                        known.extend(answers);
                    }
                    _ => self.lost += 1,
                }
            }
            self.lost += tap.drops()?;
        }
        sample.names.extend(
            known
                .into_iter()
                .map(|(address, name)| NameAnswer { address, name }),
        );
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Bytes of an IPv4 header.
pub(super) fn header_v4(packet: &[u8]) -> Option<usize> {
    Some(usize::from(packet.first()? & 0xf) * 4)
}

/// What a UDP datagram carries.
pub(super) fn payload(datagram: &[u8]) -> Option<&[u8]> {
    let length = u16::from_be_bytes([*datagram.get(4)?, *datagram.get(5)?]);
    datagram.get(UDP_HEADER..usize::from(length))
}

/// The addresses of a DNS answer with the name that was asked for; empty when the answer gives
/// none, `None` when it cannot be read.
pub(super) fn answers(message: &[u8]) -> Option<Vec<(IpAddr, String)>> {
    let mut message = message.to_vec();
    let count = |at: usize| {
        Some(usize::from(u16::from_be_bytes([
            *message.get(at)?,
            *message.get(at + 1)?,
        ])))
    };
    // The parser makes room for as many records as the header says.
    let (questions, answers) = (count(4)?, count(6)?);
    if questions > 1 || answers > RECORDS_MAX || message.len() < DNS_HEADER {
        return None;
    }
    // Authorities and additional records follow the answers and are not read.
    message[8..DNS_HEADER].fill(0);
    let packet = Packet::parse(&message).ok()?;
    if !packet.has_flags(PacketFlag::RESPONSE) || packet.rcode() != RCODE::NoError {
        return Some(Vec::new());
    }
    let [question] = packet.questions.as_slice() else {
        return Some(Vec::new());
    };
    let asked = text(&question.qname)?;
    let (aliases, addresses) = records(&packet);
    let mut names = BTreeSet::from([asked.as_str()]);
    // Servers write an alias before what it points to; another order costs another round.
    for _ in 0..ALIASES_MAX {
        let before = names.len();
        for (name, alias) in &aliases {
            if names.contains(name.as_str()) {
                names.insert(alias);
            }
        }
        if names.len() == before {
            break;
        }
    }
    let ours = |(name, _): &&(String, IpAddr)| names.contains(name.as_str());
    let found = addresses.iter().filter(ours);
    Some(
        found
            .map(|(_, address)| (*address, asked.clone()))
            .collect(),
    )
}

/// A name and the name that it stands for.
type Alias = (String, String);

/// The aliases and the addresses of an answer.
fn records(packet: &Packet<'_>) -> (Vec<Alias>, Vec<(String, IpAddr)>) {
    let (mut aliases, mut addresses) = (Vec::new(), Vec::new());
    for record in &packet.answers {
        let Some(name) = text(&record.name).filter(|_| record.class == CLASS::IN) else {
            continue;
        };
        match &record.rdata {
            RData::A(a) => addresses.push((name, IpAddr::from(a.address.to_be_bytes()))),
            RData::AAAA(aaaa) => addresses.push((name, IpAddr::from(aaaa.address.to_be_bytes()))),
            RData::CNAME(alias) => aliases.extend(text(&alias.0).map(|alias| (name, alias))),
            _ => {}
        }
    }
    (aliases, addresses)
}

/// A name without the dot at its end, lower case; `None` for the root and for one that no host has
/// and no screen should show.
fn text(name: &Name<'_>) -> Option<String> {
    let mut text = String::new();
    for label in name.as_bytes() {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            if !byte.is_ascii_graphic() || matches!(byte, b'.' | b'\\') {
                return None;
            }
            text.push(char::from(byte.to_ascii_lowercase()));
        }
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use simple_dns::rdata::{A, AAAA, CNAME, TXT};
    use simple_dns::{QCLASS, QTYPE, Question, ResourceRecord, TYPE};

    use super::*;

    /// Answers as a resolver sent them, from the IPv4 header on: an address, no address, no name.
    const RECORDED: [&str; 3] = [
        "4500004c4a5d40003f11250d0affff35c000020200358 02f0038cc806e308180000100010000000003646562\
         0664656269616e036f72670000010001c00c000100010000003c0004cb007150",
        "4500003c4a5c40003f11251e0affff35c000020200358 02f0028cc709e318180000100000000000003646562\
         0664656269616e036f726700001c0001",
        "450000474a5b40003f1125140affff35c00002020035 9e9f0033cc7b89c281830001000000000000055f6874\
         7470045f746370036465620664656269616e036f72670000210001",
    ];

    /// Written by hand after RFC 1035: the IPv6 addresses of an alias, with compressed names, an
    /// authority and an option record.
    const WRITTEN: &str = "
        45 00 00 a5 00 00 40 00 40 11 00 00 7f 00 00 01 7f 00 00 01 00 35 c3 50 00 91 00 00
        12 34 81 80 00 01 00 03 00 01 00 01
        03 77 77 77 07 45 78 61 6d 70 6c 65 03 6f 72 67 00 00 1c 00 01
        c0 0c 00 05 00 01 00 00 0e 10 00 08 05 66 72 6f 6e 74 c0 10
        c0 2d 00 1c 00 01 00 00 00 3c 00 10 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01
        c0 2d 00 1c 00 01 00 00 00 3c 00 10 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 02
        c0 10 00 02 00 01 00 00 0e 10 00 05 02 6e 73 c0 10
        00 00 29 04 d0 00 00 00 00 00 00";

    fn packet(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        data_encoding::HEXLOWER
            .decode(digits.as_bytes())
            .expect("the test's own constant")
    }

    /// What a packet of IPv4 carries.
    fn carried(packet: &[u8]) -> Option<&[u8]> {
        payload(packet.get(header_v4(packet)?..)?)
    }

    fn pairs(name: &str, addresses: &[&str]) -> Vec<(IpAddr, String)> {
        let address = |text: &&str| text.parse().expect("an address");
        let addresses = addresses.iter().map(address);
        addresses
            .map(|address| (address, name.to_owned()))
            .collect()
    }

    fn name(text: &'static str) -> Name<'static> {
        Name::new_unchecked(text)
    }

    fn record(of: &'static str, data: RData<'static>) -> ResourceRecord<'static> {
        ResourceRecord::new(name(of), CLASS::IN, 60, data)
    }

    fn reply(records: Vec<ResourceRecord<'static>>) -> Packet<'static> {
        let mut packet = Packet::new_reply(1);
        packet.questions.push(Question::new(
            name("Web.example.org"),
            QTYPE::TYPE(TYPE::A),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        packet.answers = records;
        packet
    }

    fn told(packet: &Packet<'_>) -> Option<Vec<(IpAddr, String)>> {
        answers(&packet.build_bytes_vec_compressed().expect("it is written"))
    }

    fn a(number: u32) -> RData<'static> {
        RData::A(A { address: number })
    }

    fn alias(of: &'static str, to: &'static str) -> ResourceRecord<'static> {
        record(of, RData::CNAME(CNAME(name(to))))
    }

    #[test]
    fn recorded_answers_name_their_addresses() {
        let found = RECORDED.map(|text| carried(&packet(text)).and_then(answers));
        let expected = pairs("deb.debian.org", &["203.0.113.80"]);
        assert_eq!(found, [Some(expected), Some(Vec::new()), Some(Vec::new())]);
    }

    #[test]
    fn an_alias_gives_the_name_that_was_asked_for() {
        let found = carried(&packet(WRITTEN)).and_then(answers);
        let expected = pairs("www.example.org", &["2001:db8::1", "2001:db8::2"]);
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn padding_is_no_part_of_a_message() {
        let mut packet = packet(RECORDED[0]);
        let whole = carried(&packet).expect("a datagram").to_vec();
        packet.extend([0; 20]);
        assert_eq!(carried(&packet).expect("a datagram"), whole);
    }

    #[test]
    fn aliases_are_followed_in_any_order_and_strangers_are_left_out() {
        let packet = reply(vec![
            record("c.example.org", a(0xc000_0201)),
            alias("b.example.org", "c.example.org"),
            alias("web.EXAMPLE.org", "b.example.org"),
            record("other.example.org", a(0xc000_0202)),
            record("b.example.org", RData::TXT(TXT::new())),
            record(
                "c.example.org",
                RData::AAAA(AAAA {
                    address: 0x2001_0db8 << 96,
                }),
            ),
        ]);
        let found = told(&packet).expect("it is read");
        let expected = pairs("web.example.org", &["192.0.2.1", "2001:db8::"]);
        assert_eq!(found, expected);
    }

    #[test]
    fn a_ring_of_aliases_ends() {
        let ring = vec![
            alias("web.example.org", "b.example.org"),
            alias("b.example.org", "web.example.org"),
        ];
        assert_eq!(told(&reply(ring)), Some(Vec::new()));
    }

    #[test]
    fn a_question_an_error_and_too_many_records_give_no_name() {
        let mut question = reply(vec![record("web.example.org", a(1))]);
        question.remove_flags(PacketFlag::RESPONSE);
        assert_eq!(told(&question), Some(Vec::new()));
        let mut error = reply(vec![record("web.example.org", a(1))]);
        *error.rcode_mut() = RCODE::NameError;
        assert_eq!(told(&error), Some(Vec::new()));
        let many = vec![record("web.example.org", a(1)); RECORDS_MAX + 1];
        assert_eq!(told(&reply(many)), None);
    }

    #[test]
    fn a_name_that_would_write_on_a_terminal_is_not_taken() {
        for label in [&b"\x1b[2Jweb"[..], b"a b", b"a.b", b"", &[0xff]] {
            let label = simple_dns::Label::new_unchecked(label);
            let hostile = Name::new_with_labels(&[label]);
            assert_eq!(text(&hostile), None, "{hostile:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = carried(&bytes).and_then(answers);
            let _ = answers(&bytes);
        }

        /// Changed in a few places, so that most of it is still understood.
        #[test]
        fn a_damaged_answer_is_read_or_refused(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            length in any::<prop::sample::Index>(),
        ) {
            let mut packet = packet(WRITTEN);
            for (place, value) in damage {
                let at = place.index(packet.len());
                packet[at] = value;
            }
            let _ = carried(&packet).and_then(answers);
            packet.truncate(length.index(packet.len()));
            let _ = packet.get(28..).and_then(answers);
        }

        /// A header that promises records of every kind, and any bytes for them.
        #[test]
        fn records_of_any_kind_are_read_or_refused(
            count in 0..20_u8,
            kinds in prop::collection::vec(0..300_u16, 20),
            data in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut message = vec![0, 1, 0x81, 0x80, 0, 0, 0, count, 0, 0, 0, 0];
            for kind in &kinds {
                message.push(0);
                message.extend(kind.to_be_bytes());
                message.extend([0, 1, 0, 0, 0, 9, 0, data.len() as u8]);
                message.extend(&data);
            }
            let _ = answers(&message);
        }
    }
}
