//! The decoder of letters, for the fuzzer: any member sends them.

use super::letter::{Body, Letter};
use crate::facts::{Beside, Content, Digest, Hot, HotFile, Signed, ValueHash, VersionId};

/// Plain bytes, as they are once they are unpacked.
pub(crate) fn letter(bytes: &[u8]) {
    let _ = Letter::from_bytes(bytes);
    let packed = zstd::bulk::compress(bytes, 1).expect("it is packed");
    if let Ok(letter) = Letter::from_bytes(&packed) {
        let again = letter.to_bytes().expect("it is written");
        // Numbers that are none are not even equal to themselves.
        assert!(Letter::from_bytes(&again).is_ok());
    }
}

/// One of each.
pub(crate) fn letters() -> Vec<Vec<u8>> {
    let hash = ValueHash::from_bytes([7; 32]);
    let id = VersionId::from_bytes([3; 32]);
    let bodies = [
        Body::Digest(Digest::default()),
        Body::Content(Content::default()),
        Body::Head { number: 9, id },
        Body::Ask(id),
        Body::Version(Signed {
            bytes: vec![1; 40],
            key: vec![2; 44],
            signature: vec![3; 64],
        }),
        Body::Key([5; 32]),
        Body::AskFile {
            path: "/etc/app.conf".into(),
            hash,
        },
        Body::File(vec![9; 20]),
        Body::Beside(Beside {
            hot: Hot {
                units: [("app.service".to_owned(), ["/usr/bin/app".to_owned()].into())].into(),
                files: [("/usr/bin/app".to_owned(), HotFile { size: 9, pieces: 1 })].into(),
            },
            ..Beside::default()
        }),
    ];
    let letters = bodies.map(|body| Letter {
        group: "web".parse().expect("a name"),
        body,
    });
    letters
        .iter()
        .map(|letter| postcard::to_stdvec(letter).expect("it is written"))
        .collect()
}
