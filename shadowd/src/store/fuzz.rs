//! The decoders of stored values, for the fuzzer: a disk may give back anything.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::facts::{
    Epoch, HostId, Kept, KeptPause, KeptPromise, KeptVote, Place, PolicyMemory, Signed, VersionId,
};

pub(crate) use super::history::fuzz::{
    file as history, files as history_files, name as history_name, names as history_names, record,
    records,
};

/// The values that rows hold as JSON; what is read must be written and read back.
pub(crate) fn json(bytes: &[u8]) {
    reads_back::<Kept>(bytes);
    reads_back::<KeptPromise>(bytes);
    let _ = serde_json::from_slice::<PolicyMemory>(bytes);
}

fn reads_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(bytes) {
        let text = serde_json::to_string(&value).expect("it is written");
        let again: T = serde_json::from_str(&text).expect("it is read again");
        assert_eq!(again, value);
    }
}

/// One of each.
pub(crate) fn jsons() -> Vec<Vec<u8>> {
    let epoch = Epoch {
        counter: 3,
        owner: HostId::from_bytes([7; 32]),
    };
    let at = crate::facts::BootTime::from_nanos;
    let kept = Kept {
        vote: Some(KeptVote {
            electorate: 8,
            quiet_until: at(5),
            promise: Some((epoch, at(u64::MAX - 1))),
            newest: epoch,
            asked: 9,
        }),
        pause: Some(KeptPause {
            epoch,
            deadline: at(77),
            electorate: u64::MAX,
            interface: "eth0".to_owned(),
            vips: vec!["192.0.2.10/24".parse().expect("an address")],
        }),
    };
    let promise = KeptPromise {
        epoch,
        until: at(99),
        length_ns: 50,
    };
    let texts = [
        serde_json::to_vec(&kept),
        serde_json::to_vec(&promise),
        serde_json::to_vec(&PolicyMemory::default()),
    ];
    texts.map(|text| text.expect("it is written")).into()
}

/// An object of the central repository; the first 32 bytes are the identity that it is called by.
pub(crate) fn object(bytes: &[u8]) {
    let Some((id, packed)) = bytes.split_first_chunk() else {
        return;
    };
    let id = VersionId::from_bytes(*id);
    if let Some(signed) = super::profiles::unpacked(packed, &id) {
        assert_eq!(VersionId::of(&signed.bytes), id);
    }
}

/// Some.
pub(crate) fn objects() -> Vec<Vec<u8>> {
    let object = |length: usize| {
        let signed = Signed {
            bytes: vec![7; length],
            key: vec![1; 44],
            signature: vec![2; 64],
        };
        let id = VersionId::of(&signed.bytes);
        let packed = super::profiles::packed(&signed).expect("it is packed");
        [id.as_bytes().as_slice(), &packed].concat()
    };
    [0, 9, 70_000].map(object).into()
}

/// Its name.
pub(crate) fn object_name(bytes: &[u8]) {
    if let Ok(name) = std::str::from_utf8(bytes) {
        let _ = super::repository::place_of(name);
    }
}

/// Some.
pub(crate) fn object_names() -> Vec<Vec<u8>> {
    let name = |number: u64| {
        let id = VersionId::from_bytes([number as u8; 32]);
        super::repository::file_name(Place { number, id }).into_bytes()
    };
    [0, 1, u64::MAX].map(name).into()
}
