//! The decoders of files of services, for the fuzzer.

use rcgen::{CertificateParams, KeyPair};

use super::certificates::first_end;
use super::environment::parse;

/// An environment file.
pub(crate) fn environment(bytes: &[u8]) {
    for (name, _) in parse(&String::from_utf8_lossy(bytes)) {
        assert!(!name.is_empty());
    }
}

/// Some of them.
pub(crate) fn environments() -> Vec<Vec<u8>> {
    let texts = [
        "A=1\nB=\"two words\"\n# comment\nC='x' \\\n y\n",
        "\u{feff}NAME = value # not a comment\n;other\n=\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// A file with certificates.
pub(crate) fn certificate(bytes: &[u8]) {
    let _ = first_end(bytes);
}

/// Some of them.
pub(crate) fn certificates() -> Vec<Vec<u8>> {
    let one = || {
        let params = CertificateParams::new(vec!["app.example".to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("it is signed").pem()
    };
    let (first, second) = (one(), one());
    vec![(first.clone() + &second).into_bytes(), first.into_bytes()]
}
