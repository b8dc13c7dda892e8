//! What the decoder makes of frames, also of hostile ones.

use proptest::prelude::*;

use super::super::frames::{self, ArpForm};
use super::*;

const MAC: Mac = [0x02, 0, 0, 0, 0x0a, 0x01];
const FOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const SIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

fn said(address: impl Into<IpAddr>, answers: Option<IpAddr>) -> Result<Statement, StatementError> {
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
