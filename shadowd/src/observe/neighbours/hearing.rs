//! What is made of the frames: who claims a virtual IP, who answers a probe. No I/O and no clock.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::{Answer, Claim, Heard};
use crate::ethernet::Mac;
use crate::ethernet::statement::{Statement, StatementError};
use crate::facts::{BootTime, Vip};

/// Probes that wait for an answer.
pub(super) const MAX_PROBES: usize = 64;
/// After that a probe is forgotten: on a link an answer takes less than a millisecond.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(2);
/// The same claim is told once in this time.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Different claimants of one virtual IP that are told in that time.
const CLAIMANTS: usize = 4;

/// What was heard and not told, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourCounts {
    /// Frames that the filter let through.
    pub frames: u64,
    /// Claims that were told.
    pub claims: u64,
    /// Claims that were not told, because they were told within the last second or four other
    /// claimants of the virtual IP were.
    pub claims_withheld: u64,
    /// Probes that were sent.
    pub probes: u64,
    /// Answers that were told.
    pub answers: u64,
    /// Answers that nobody had asked for, or that came after 2 s.
    pub answers_unasked: u64,
    /// Frames that were not valid.
    pub malformed: u64,
    /// Frames that the sockets' buffers could not take: something floods the link.
    pub dropped: u64,
    /// How often the sockets were opened anew, because the interface was.
    pub reopened: u64,
}

#[derive(Debug)]
struct Probe {
    source: IpAddr,
    since: BootTime,
}

#[derive(Debug)]
struct Watched {
    vip: Vip,
    /// Who was told to claim it, and when; at most [`CLAIMANTS`].
    told: Vec<(Mac, BootTime)>,
}

#[derive(Debug)]
pub(super) struct Hearing {
    vips: BTreeMap<IpAddr, Watched>,
    probes: BTreeMap<IpAddr, Probe>,
    pub counts: NeighbourCounts,
}

impl Hearing {
    pub fn new(vips: &[Vip]) -> Self {
        let watched = |vip: &Vip| {
            let told = Vec::new();
            (vip.address, Watched { vip: *vip, told })
        };
        Self {
            vips: vips.iter().map(watched).collect(),
            probes: BTreeMap::new(),
            counts: NeighbourCounts::default(),
        }
    }

    pub fn vips(&self) -> impl Iterator<Item = IpAddr> {
        self.vips.keys().copied()
    }

    pub fn is_vip(&self, address: IpAddr) -> bool {
        self.vips.contains_key(&address)
    }

    /// Whether another address may be probed now.
    pub fn has_room(&mut self, address: IpAddr, now: BootTime) -> bool {
        self.probes
            .retain(|_, probe| now.since(probe.since) < FORGET_AFTER);
        self.probes.contains_key(&address) || self.probes.len() < MAX_PROBES
    }

    /// A probe for `address` left. While one waits, the time of the first counts.
    pub fn asked(&mut self, address: IpAddr, source: IpAddr, now: BootTime) {
        self.counts.probes += 1;
        let probe = self
            .probes
            .entry(address)
            .or_insert(Probe { source, since: now });
        probe.source = source;
    }

    /// A frame came while the interface had the address `own`.
    pub fn hear(&mut self, frame: &[u8], own: Mac, now: BootTime) -> Option<Heard> {
        self.counts.frames += 1;
        let statement = match Statement::decode(frame) {
            Ok(statement) => statement,
            Err(StatementError::Malformed) => {
                self.counts.malformed += 1;
                return None;
            }
            Err(StatementError::Foreign | StatementError::ClaimsNothing) => return None,
        };
        // A bridge or a switch may send this host's own frames back to it.
        if statement.mac == own {
            return None;
        }
        if let Some(watched) = self.vips.get_mut(&statement.address) {
            let claim = watched.claim(statement.mac, now);
            match claim {
                Some(_) => self.counts.claims += 1,
                None => self.counts.claims_withheld += 1,
            }
            return claim.map(Heard::Claim);
        }
        let answer = self.answer(statement, now);
        if answer.is_none() && statement.answers.is_some() {
            self.counts.answers_unasked += 1;
        }
        answer.map(Heard::Answer)
    }

    fn answer(&mut self, statement: Statement, now: BootTime) -> Option<Answer> {
        let probe = self.probes.get(&statement.address)?;
        let round_trip = now.since(probe.since);
        if statement.answers != Some(probe.source) || round_trip >= FORGET_AFTER {
            return None;
        }
        self.probes.remove(&statement.address);
        self.counts.answers += 1;
        Some(Answer {
            address: statement.address,
            mac: statement.mac,
            round_trip,
            at: now,
        })
    }
}

impl Watched {
    fn claim(&mut self, mac: Mac, now: BootTime) -> Option<Claim> {
        self.told.retain(|(_, at)| now.since(*at) < TELL_EVERY);
        let is_known = self.told.iter().any(|(known, _)| *known == mac);
        if is_known || self.told.len() >= CLAIMANTS {
            return None;
        }
        self.told.push((mac, now));
        Some(Claim {
            vip: self.vip,
            mac,
            at: now,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::ethernet::frames::{self, ArpForm};

    const OWN: Mac = [0x02, 0, 0, 0, 0x0a, 0x01];
    const OTHER: Mac = [0x02, 0, 0, 0, 0x0b, 0x01];
    const FOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const ME: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    fn hearing() -> Hearing {
        let vip = |text: &str| text.parse().expect("a vip");
        Hearing::new(&[vip("192.0.2.10/24"), vip("2001:db8::10/64")])
    }

    fn at(millis: u64) -> BootTime {
        BootTime::from_nanos(1_000_000_000 + millis * 1_000_000)
    }

    /// A reply by `address` at `mac` to this host.
    fn reply(mac: Mac, address: Ipv4Addr) -> [u8; 42] {
        let mut frame = frames::arp(ArpForm::Reply, mac, address);
        frame[38..42].copy_from_slice(&ME.octets());
        frame
    }

    #[test]
    fn a_claim_by_another_mac_is_told_once_a_second_and_the_own_never() {
        let mut hearing = hearing();
        let frame = frames::arp(ArpForm::Request, OTHER, FOUR);
        let mine = frames::arp(ArpForm::Request, OWN, FOUR);
        assert_eq!(hearing.hear(&mine, OWN, at(0)), None);
        let told = hearing.hear(&frame, OWN, at(0));
        let vip = "192.0.2.10/24".parse().expect("a vip");
        let (mac, now) = (OTHER, at(0));
        assert_eq!(told, Some(Heard::Claim(Claim { vip, mac, at: now })));
        assert_eq!(hearing.hear(&frame, OWN, at(999)), None);
        assert!(hearing.hear(&frame, OWN, at(1_000)).is_some());
        let elsewhere = frames::arp(ArpForm::Request, OTHER, PEER);
        assert_eq!(hearing.hear(&elsewhere, OWN, at(1_000)), None);
        assert_eq!(
            (hearing.counts.claims, hearing.counts.claims_withheld),
            (2, 1)
        );
    }

    #[test]
    fn a_flood_of_claimants_is_told_four_times_a_second_for_each_virtual_ip() {
        let mut hearing = hearing();
        let mut told = 0;
        for (number, millis) in (0..2_000_u16).zip(0..) {
            let [a, b] = number.to_be_bytes();
            let mac = [0x02, 0, 0, 1, a, b];
            let frame = frames::arp(ArpForm::Request, mac, FOUR);
            told += usize::from(hearing.hear(&frame, OWN, at(millis)).is_some());
            if number == 500 {
                let six = "2001:db8::10".parse().expect("an address");
                let frame = frames::advertisement(OTHER, six);
                assert!(hearing.hear(&frame, OWN, at(millis)).is_some());
            }
        }
        assert_eq!(told, 8);
        assert_eq!(hearing.counts.claims_withheld, 1_992);
    }

    #[test]
    fn an_answer_is_told_once_and_only_if_it_was_asked_for() {
        let mut hearing = hearing();
        assert_eq!(hearing.hear(&reply(OTHER, PEER), OWN, at(0)), None);
        assert!(hearing.has_room(PEER.into(), at(0)));
        hearing.asked(PEER.into(), ME.into(), at(0));
        hearing.asked(PEER.into(), ME.into(), at(5));
        let to_another = frames::arp(ArpForm::Reply, OTHER, PEER);
        assert_eq!(hearing.hear(&to_another, OWN, at(6)), None);
        let told = hearing.hear(&reply(OTHER, PEER), OWN, at(7));
        let expected = Answer {
            address: PEER.into(),
            mac: OTHER,
            round_trip: Duration::from_millis(7),
            at: at(7),
        };
        assert_eq!(told, Some(Heard::Answer(expected)));
        assert_eq!(hearing.hear(&reply(OTHER, PEER), OWN, at(8)), None);
        hearing.asked(PEER.into(), ME.into(), at(10));
        assert_eq!(
            hearing.hear(&reply(OTHER, PEER), OWN, at(2_010)),
            None,
            "too late"
        );
        assert_eq!(
            (hearing.counts.answers, hearing.counts.answers_unasked),
            (1, 4)
        );
    }

    #[test]
    fn probes_are_bounded_and_forgotten() {
        let mut hearing = hearing();
        let address = |number: usize| IpAddr::from([198, 51, 100, number as u8]);
        for number in 0..MAX_PROBES {
            assert!(hearing.has_room(address(number), at(0)));
            hearing.asked(address(number), ME.into(), at(0));
        }
        assert!(
            hearing.has_room(address(0), at(1)),
            "that one waits already"
        );
        assert!(!hearing.has_room(address(MAX_PROBES), at(1_999)));
        assert!(hearing.has_room(address(MAX_PROBES), at(2_000)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_heard(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..8)) {
            let mut hearing = hearing();
            for frame in &frames {
                hearing.hear(frame, OWN, at(0));
            }
            prop_assert_eq!(hearing.counts.frames, frames.len() as u64);
        }
    }
}
