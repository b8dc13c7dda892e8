//! When the certificates among the files of a profile expire.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// Files that are looked into.
const FILES_MAX: usize = 256;
/// A longer file (bytes) is no certificate.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Certificates of one file: bundles of authorities are no business of a service's readiness.
const CERTIFICATES_MAX: usize = 16;

/// Seconds until the first certificate of each file expires, below 0 when it has; files without one,
/// or with so many that they are a bundle of authorities, are left out.
pub fn expiry<'a>(
    paths: impl IntoIterator<Item = &'a String>,
    now_s: i64,
) -> BTreeMap<String, i64> {
    let named = paths.into_iter().filter(|path| may_be_certificate(path));
    let found = named.take(FILES_MAX).filter_map(|path| {
        let bytes = read(Path::new(path)).ok()?;
        let not_after = first_end(&bytes)?;
        Some((path.clone(), not_after.saturating_sub(now_s)))
    });
    found.collect()
}

fn may_be_certificate(path: &str) -> bool {
    [".pem", ".crt", ".cer", ".cert"]
        .iter()
        .any(|end| path.ends_with(end))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Some devices do something when they are opened.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("no certificate"));
    }
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("no certificate"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The end of the certificate that ends first, seconds since 1970.
pub(super) fn first_end(pem: &[u8]) -> Option<i64> {
    let certificates = CertificateDer::pem_slice_iter(pem).take(CERTIFICATES_MAX + 1);
    let mut ends = Vec::new();
    for certificate in certificates {
        let certificate = certificate.ok()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        ends.push(parsed.validity().not_after.timestamp());
    }
    match ends.len() > CERTIFICATES_MAX {
        true => None,
        false => ends.into_iter().min(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// A certificate that ends at the begin of a year, as PEM, and when that is.
    fn ending(year: i32) -> (String, i64) {
        let mut params = CertificateParams::new(vec!["app.example".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        (pem, params.not_after.unix_timestamp())
    }

    #[test]
    fn the_first_end_of_a_chain_counts_and_what_is_no_certificate_has_none() {
        let ((late, _), (soon, end)) = (ending(2040), ending(2035));
        assert_eq!(first_end(format!("{late}{soon}").as_bytes()), Some(end));
        assert_eq!(first_end(b"no certificate"), None);
        assert_eq!(first_end(&soon.as_bytes()[..90]), None);
        assert_eq!(
            first_end(late.repeat(CERTIFICATES_MAX + 1).as_bytes()),
            None
        );
    }

    #[test]
    fn only_files_named_like_certificates_are_looked_into() {
        let folder =
            std::env::temp_dir().join(format!("shadowd-certificates-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (pem, end) = ending(2035);
        let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
        for name in ["tls.pem", "app.conf"] {
            std::fs::write(path(name), &pem).unwrap();
        }
        let paths = [path("tls.pem"), path("app.conf"), path("missing.pem")];
        let found = expiry(&paths, end - 100);
        assert_eq!(found, BTreeMap::from([(path("tls.pem"), 100)]));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
