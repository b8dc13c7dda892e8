//! The decoder of versions, for the fuzzer: they come from peers, disks and files.

use super::codec;

/// What is read as a version has just these bytes.
pub(crate) fn version(bytes: &[u8]) {
    if let Ok(version) = codec::decode(bytes) {
        assert_eq!(codec::encode(&version).as_deref(), Ok(bytes));
    }
}

/// Some versions.
pub(crate) fn versions() -> Vec<Vec<u8>> {
    let paths = ["/etc/nginx/nginx.conf", "/etc/a", "relative", "/etc/../x"];
    let versions = paths.map(super::codec::tests::version);
    versions
        .iter()
        .filter_map(|version| codec::encode(version).ok())
        .collect()
}
