//! Who this host is: one key pair, kept in the state directory, made at the first start.
//!
//! `key.pem` (0600) holds the private key; the certificate is made of it anew at each start, since
//! peers pin the key alone. `id` (0644) holds the identity in letters, for those who may not read
//! the key. A key file that is damaged, or that others may read, is refused and never replaced: a
//! host that silently got a new identity would be refused by all its peers.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use thiserror::Error;

use super::tls;
use crate::facts::HostId;

const KEY_FILE: &str = "key.pem";
const ID_FILE: &str = "id";
/// An Ed25519 key in PEM has about 170 bytes.
const MAX_KEY_BYTES: u64 = 16 * 1024;

/// Why there is no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// There is none yet.
    #[error("{} does not exist: the identity is made when shadowd first starts", path.display())]
    Missing {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// A file or directory could not be used.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Others than the owner may read or change the private key.
    #[error(
        "others may read the private key {} (mode {mode:04o}): run `chmod 600` on it, and replace \
         the identity if somebody may have read it", path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file is not a private key that can be used.
    #[error(
        "{} is not a usable private key: restore it from a backup, or move it away and give the \
         new identity to every peer", path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The key or its certificate could not be made.
    #[error("cannot make a key pair")]
    Generate(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The key pair of this host, with a certificate of it.
pub struct Identity {
    id: HostId,
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            id: self.id,
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// The identity in `state_dir`; makes the directory (0700) and the identity if they are not
    /// there. Two processes that start at once agree on one identity.
    pub fn load_or_create(state_dir: &Path) -> Result<Self, IdentityError> {
        let identity = match Self::load(state_dir) {
            Err(IdentityError::Missing { .. }) => {
                create_dir(state_dir)?;
                create_key(state_dir)?;
                Self::load(state_dir)?
            }
            loaded => loaded?,
        };
        write_id(state_dir, identity.id)?;
        Ok(identity)
    }

    /// The identity in `state_dir`; changes nothing.
    pub fn load(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = state_dir.join(KEY_FILE);
        let pem = read_key(&path)?;
        let pair = KeyPair::from_pem(&pem).map_err(|source| IdentityError::Corrupt {
            path: path.clone(),
            source: source.into(),
        })?;
        Self::of(&pair).map_err(|source| IdentityError::Corrupt { path, source })
    }

    /// The identity that the daemon left in `state_dir` for everybody to read; needs no right to
    /// the private key.
    pub fn load_id(state_dir: &Path) -> Result<HostId, IdentityError> {
        let path = state_dir.join(ID_FILE);
        let text = fs::read_to_string(&path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => IdentityError::Missing { path: path.clone() },
            _ => IdentityError::File {
                what: "read",
                path: path.clone(),
                source,
            },
        })?;
        text.trim().parse().map_err(|error| IdentityError::File {
            what: "read",
            path,
            source: io::Error::new(ErrorKind::InvalidData, error),
        })
    }

    /// The hash of the public key.
    pub const fn id(&self) -> HostId {
        self.id
    }

    /// A self-signed certificate of the public key.
    pub(super) const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The private key.
    pub(super) const fn key(&self) -> &PrivatePkcs8KeyDer<'static> {
        &self.key
    }

    pub(super) fn of(pair: &KeyPair) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let params = CertificateParams::new(vec!["shadowd".to_owned()])?;
        let certificate = params.self_signed(pair)?.der().clone();
        let id = tls::id_of(&certificate)?;
        Ok(Self {
            id,
            certificate,
            key: pair.serialize_der().into(),
        })
    }
}

fn read_key(path: &Path) -> Result<String, IdentityError> {
    let failed = |source: io::Error| match source.kind() {
        ErrorKind::NotFound => IdentityError::Missing {
            path: path.to_owned(),
        },
        _ => IdentityError::File {
            what: "read",
            path: path.to_owned(),
            source,
        },
    };
    // Not through a symbolic link, and not waiting for a pipe: only a file that lies here counts.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(IdentityError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let corrupt = |why: &str| IdentityError::Corrupt {
        path: path.to_owned(),
        source: why.into(),
    };
    if !metadata.is_file() || metadata.len() > MAX_KEY_BYTES {
        return Err(corrupt("not a regular file of a key's size"));
    }
    let mut pem = String::new();
    file.take(MAX_KEY_BYTES)
        .read_to_string(&mut pem)
        .map_err(|source| match source.kind() {
            ErrorKind::InvalidData => corrupt("not text"),
            _ => failed(source),
        })?;
    Ok(pem)
}

fn create_dir(state_dir: &Path) -> Result<(), IdentityError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir)
        .map_err(|source| IdentityError::File {
            what: "create",
            path: state_dir.to_owned(),
            source,
        })
}

fn create_key(state_dir: &Path) -> Result<(), IdentityError> {
    let pair = KeyPair::generate_for(&PKCS_ED25519)
        .map_err(|source| IdentityError::Generate(source.into()))?;
    let temporary = write_temporary(state_dir, KEY_FILE, 0o600, &pair.serialize_pem())?;
    let path = state_dir.join(KEY_FILE);
    // A link, unlike a rename, never replaces a key that another process made meanwhile.
    let linked = fs::hard_link(&temporary, &path);
    let removed = fs::remove_file(&temporary);
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(IdentityError::File {
                what: "create",
                path,
                source: error,
            });
        }
        _ => {}
    }
    removed.map_err(|source| IdentityError::File {
        what: "remove",
        path: temporary,
        source,
    })?;
    sync_dir(state_dir)
}

fn write_id(state_dir: &Path, id: HostId) -> Result<(), IdentityError> {
    let path = state_dir.join(ID_FILE);
    let text = format!("{id}\n");
    if fs::read_to_string(&path).is_ok_and(|found| found == text) {
        return Ok(());
    }
    let temporary = write_temporary(state_dir, ID_FILE, 0o644, &text)?;
    fs::rename(&temporary, &path).map_err(|source| IdentityError::File {
        what: "create",
        path,
        source,
    })?;
    sync_dir(state_dir)
}

/// Writes `text` to a new file beside `name`, synced, with exactly `mode`.
fn write_temporary(
    state_dir: &Path,
    name: &str,
    mode: u32,
    text: &str,
) -> Result<PathBuf, IdentityError> {
    let path = state_dir.join(format!(".{name}.{}", std::process::id()));
    // Only a dead process with the same id can have left it: this one writes one file at a time.
    match fs::remove_file(&path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            return Err(IdentityError::File {
                what: "remove",
                path,
                source,
            });
        }
        _ => {}
    }
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| IdentityError::File {
        what: "write",
        path: path.clone(),
        source,
    })?;
    Ok(path)
}

fn sync_dir(path: &Path) -> Result<(), IdentityError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| IdentityError::File {
            what: "sync",
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rcgen::PublicKeyData as _;

    use super::*;

    struct StateDir(PathBuf);

    impl StateDir {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("shadowd-identity-{}-{number}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for StateDir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn an_identity_is_made_once_and_stays() {
        let dir = StateDir::new();
        assert!(matches!(
            Identity::load(&dir.0),
            Err(IdentityError::Missing { .. })
        ));
        let made = Identity::load_or_create(&dir.0).unwrap();
        assert_eq!(mode(&dir.0), 0o700);
        assert_eq!(mode(&dir.0.join(KEY_FILE)), 0o600);
        assert_eq!(mode(&dir.0.join(ID_FILE)), 0o644);
        assert_eq!(
            fs::read_dir(&dir.0).unwrap().count(),
            2,
            "nothing temporary is left"
        );
        assert_eq!(Identity::load_or_create(&dir.0).unwrap().id(), made.id());
        assert_eq!(Identity::load(&dir.0).unwrap().id(), made.id());
        assert_eq!(Identity::load_id(&dir.0).unwrap(), made.id());
    }

    #[test]
    fn the_id_is_the_hash_of_the_public_key() {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let hash = blake3::hash(&pair.subject_public_key_info());
        assert_eq!(
            Identity::of(&pair).unwrap().id().as_bytes(),
            hash.as_bytes()
        );
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = StateDir::new();
        Identity::load_or_create(&dir.0).unwrap();
        let path = dir.0.join(KEY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load_or_create(&dir.0).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_damaged_key_is_named_and_never_replaced() {
        let dir = StateDir::new();
        Identity::load_or_create(&dir.0).unwrap();
        let path = dir.0.join(KEY_FILE);
        let pem = fs::read(&path).unwrap();
        let damages: [&[u8]; 4] = [b"", b"\xff\xfe", &pem[..pem.len() / 2], b"no key at all"];
        for damaged in damages {
            fs::write(&path, damaged).unwrap();
            let error = Identity::load_or_create(&dir.0).unwrap_err();
            assert!(matches!(error, IdentityError::Corrupt { .. }), "{error:?}");
            assert!(error.to_string().contains(KEY_FILE));
            assert_eq!(fs::read(&path).unwrap(), damaged);
        }
    }

    #[test]
    fn a_wrong_id_file_is_put_right() {
        let dir = StateDir::new();
        let made = Identity::load_or_create(&dir.0).unwrap();
        fs::write(dir.0.join(ID_FILE), "something else").unwrap();
        assert!(matches!(
            Identity::load_id(&dir.0),
            Err(IdentityError::File { .. })
        ));
        Identity::load_or_create(&dir.0).unwrap();
        assert_eq!(Identity::load_id(&dir.0).unwrap(), made.id());
    }
}
