//! Files that hold a secret, such as the keys of a store: believed only if nobody else can read them.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A longer file (bytes) is cut off: no secret is that long.
const MAX_BYTES: u64 = 8_192;

/// Why a secret is not read. The secret itself is in no error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read, or is no text.
    #[error("cannot read {}: {why}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The file can be read or written by others, or belongs to somebody else.
    #[error(
        "{} has mode {mode:o} and belongs to user {owner}: it holds a secret, so make it root's and \
         `chmod 600` it", .path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        owner: u32,
    },
}

/// The text of a file that root or this process's user alone may read. Read anew each time it is
/// needed, so that a secret can be changed without a restart.
///
/// # Errors
/// See [`SecretError`].
pub fn read(path: &Path) -> Result<String, SecretError> {
    let unreadable = |error: io::Error| SecretError::Unreadable {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let file = File::open(path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    let (mode, owner) = (meta.mode() & 0o7777, meta.uid());
    let own = nix::unistd::geteuid().as_raw();
    if mode & 0o077 != 0 || (owner != 0 && owner != own) {
        let path = path.to_owned();
        return Err(SecretError::Open { path, mode, owner });
    }
    let mut text = String::new();
    file.take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let path = std::env::temp_dir().join(format!("shadowd-secret-{}", std::process::id()));
        std::fs::write(&path, "sesame").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        for open in [0o640, 0o604, 0o620] {
            mode(open);
            let told = read(&path).unwrap_err().to_string();
            assert!(
                told.contains(&format!("{open:o}")) && told.contains("chmod 600"),
                "{told}"
            );
            assert!(!told.contains("sesame"));
        }
        mode(0o600);
        assert_eq!(read(&path).unwrap(), "sesame");
        std::fs::remove_file(&path).unwrap();
        let gone = read(&path).unwrap_err();
        assert!(matches!(gone, SecretError::Unreadable { .. }), "{gone}");
    }
}
