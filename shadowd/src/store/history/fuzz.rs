//! The decoders of history files, for the fuzzer.

use super::frame::{HEAD, Head, Kind, scan};
use super::record::{Packer, begin, unpack};
use crate::facts::{Observation, UnitUse};

/// A whole file: every byte of it belongs to a frame or to a broken place.
pub(crate) fn file(bytes: &[u8]) {
    let mut before = None;
    for found in scan(bytes) {
        match found {
            Ok((head, content)) => {
                assert_eq!(content.len(), head.length);
                if head.kind == Kind::Record {
                    let _ = unpack::<Observation>(&head, content);
                }
            }
            Err(broken) => {
                assert!(before < Some(broken.offset), "it goes on");
                before = Some(broken.offset);
            }
        }
    }
}

fn observed() -> Observation {
    let unit = UnitUse {
        unit: "nginx.service".to_owned(),
        processes: 2,
        ..UnitUse::default()
    };
    Observation {
        interval_ns: 1_000_000_000,
        units: vec![unit],
        ..Observation::default()
    }
}

/// A file with two records.
pub(crate) fn files() -> Vec<Vec<u8>> {
    let mut packer = Packer::new().expect("zstd");
    let mut bytes = begin(1, "5c9a46a8-98d0-4b54-a1b1-1f1f1f1f1f1f");
    for number in 1..3 {
        bytes.extend(packer.frame(number, &observed()).expect("it is packed"));
    }
    vec![bytes]
}

/// The content of a record whose checksums are right: its length unpacked, then what was packed.
/// Plain JSON is what is packed when the length is even, so that both decoders are reached.
pub(crate) fn record(bytes: &[u8]) {
    let Some((length, content)) = bytes.split_first_chunk::<4>() else {
        return;
    };
    let unpacked = u32::from_le_bytes(*length) as usize;
    let head = Head::new(Kind::Record, 1, content, unpacked);
    // A head that claims too much is refused before anything is unpacked.
    if let Some(head) = Head::decode(&head.encode()) {
        let _ = unpack::<Observation>(&head, content);
    }
    let packed = zstd::bulk::compress(content, 1).expect("zstd");
    let head = Head::new(Kind::Record, 1, &packed, content.len());
    let _ = unpack::<Observation>(&head, &packed);
}

/// A record packed, and one as it is before.
pub(crate) fn records() -> Vec<Vec<u8>> {
    let json = serde_json::to_vec(&observed()).expect("it is written");
    let length = u32::try_from(json.len())
        .expect("it is short")
        .to_le_bytes();
    let frame = Packer::new().and_then(|mut packer| packer.frame(1, &observed()));
    let frame = frame.expect("it is packed");
    let head = Head::decode(&frame).expect("a head");
    let unpacked = u32::try_from(head.unpacked)
        .expect("it is short")
        .to_le_bytes();
    vec![
        [&length[..], &json].concat(),
        [&unpacked[..], &frame[HEAD..]].concat(),
    ]
}

/// The name of a file in the folder.
pub(crate) fn name(bytes: &[u8]) {
    let _ = super::index::parse(&String::from_utf8_lossy(bytes));
}

/// Both kinds of names.
pub(crate) fn names() -> Vec<Vec<u8>> {
    ["00000000000004d2.full", "ffffffffffffffff.minutes"]
        .map(|name| name.into())
        .into()
}
