//! What is at a path: kind, owner, mode and content, without ever following a link or waiting.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::accounts::Accounts;
use crate::config::pattern::Glob;
use crate::facts::{FileFact, FileKind, ValueHash};

/// A longer file (bytes) is not read.
pub const FILE_BYTES_MAX: u64 = 16 << 20;
/// A file that changed while it was read is read again so often.
const TRIES: u32 = 3;
/// Paths whose facts are kept.
const KEPT: usize = 16_384;
const BLOCK: usize = 64 << 10;

/// Which contents may leave the host, and the key that hides the others.
#[derive(Clone, Debug)]
pub struct HashRules {
    /// Contents of paths that match may leave the host: their hash is a plain one.
    pub replicated: Vec<Glob>,
    /// But not these, whatever else says so.
    pub secret: Vec<Glob>,
    /// The group's key: without it nobody can try contents against a hash.
    pub key: [u8; 32],
}

impl HashRules {
    /// Whether the content of `path` may leave the host.
    pub fn replicates(&self, path: &str) -> bool {
        let matches = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(path));
        matches(&self.replicated) && !matches(&self.secret)
    }

    fn hasher(&self, plain: bool) -> blake3::Hasher {
        match plain {
            true => blake3::Hasher::new(),
            false => blake3::Hasher::new_keyed(&self.key),
        }
    }

    /// The hash of a value that never leaves the host.
    pub fn hide(&self, value: &[u8]) -> ValueHash {
        blake3::keyed_hash(&self.key, value).into()
    }
}

/// What tells whether a file has changed: any change of content, owner or mode moves its ctime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// Reads files, and remembers what it read.
#[derive(Debug)]
pub struct FileReader {
    rules: HashRules,
    accounts: Accounts,
    known: HashMap<String, (Stamp, FileFact)>,
}

impl FileReader {
    /// A reader with these rules.
    pub fn new(rules: HashRules) -> Self {
        Self {
            rules,
            accounts: Accounts::default(),
            known: HashMap::new(),
        }
    }

    /// The rules.
    pub fn rules(&self) -> &HashRules {
        &self.rules
    }

    /// What is at `path`; none when nothing is.
    ///
    /// # Errors
    /// The file system does not tell.
    pub fn read(&mut self, path: &str) -> io::Result<Option<FileFact>> {
        self.read_as(path, None)
    }

    /// The same, hashed plainly or under the key as it is to be compared, whatever the rules are now.
    ///
    /// # Errors
    /// The file system does not tell.
    pub fn read_as(&mut self, path: &str, plain: Option<bool>) -> io::Result<Option<FileFact>> {
        let plain = plain.unwrap_or_else(|| self.rules.replicates(path));
        let meta = match fs::symlink_metadata(path) {
            Ok(meta) => meta,
            Err(error) if is_absent(&error) => {
                self.known.remove(path);
                // A name that is no UTF-8 was told with another character for what is none.
                if path.contains(char::REPLACEMENT_CHARACTER) {
                    return Err(io::Error::other("its name is no UTF-8"));
                }
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let stamp = Stamp::of(&meta);
        if let Some((known, fact)) = self.known.get(path)
            && *known == stamp
            && is_hashed(&fact.kind, plain)
        {
            return Ok(Some(fact.clone()));
        }
        let (kind, stable) = self.kind(path, &meta, plain);
        let fact = FileFact {
            kind,
            owner: self.accounts.user(meta.uid()),
            group: self.accounts.group(meta.gid()),
            mode: meta.mode() & 0o7777,
        };
        if stable {
            if self.known.len() >= KEPT {
                self.known.clear();
            }
            self.known.insert(path.to_owned(), (stamp, fact.clone()));
        }
        Ok(Some(fact))
    }

    /// Begins a look: where users or groups have changed, their names are looked up again.
    pub fn begin(&mut self) {
        if self.accounts.renew() {
            self.known.clear();
        }
    }

    /// What it is, and whether that will do until it changes.
    fn kind(&self, path: &str, meta: &Metadata, plain: bool) -> (FileKind, bool) {
        let unreadable = |why: String| FileKind::Unreadable { why };
        if meta.is_symlink() {
            return match fs::read_link(path) {
                Ok(target) => (
                    FileKind::Link {
                        target: target.to_string_lossy().into_owned(),
                    },
                    true,
                ),
                Err(error) => (unreadable(error.to_string()), false),
            };
        }
        if meta.is_dir() {
            return (FileKind::Directory, true);
        }
        if !meta.is_file() {
            return (unreadable("no regular file".to_owned()), true);
        }
        if meta.size() > FILE_BYTES_MAX {
            let why = format!("longer than {} MiB", FILE_BYTES_MAX >> 20);
            return (unreadable(why), true);
        }
        for _ in 0..TRIES {
            match self.hash(Path::new(path), plain) {
                Ok(Some((hash, size))) => {
                    let kind = FileKind::Regular {
                        hash,
                        size,
                        replicated: plain,
                    };
                    return (kind, true);
                }
                Ok(None) => {}
                Err(error) => return (unreadable(error.to_string()), false),
            }
        }
        (unreadable("it changes while it is read".to_owned()), false)
    }

    /// The hash and the length of a regular file; none when it changed meanwhile.
    fn hash(&self, path: &Path, plain: bool) -> io::Result<Option<(ValueHash, u64)>> {
        let (mut file, before) = open(path)?;
        let mut hasher = self.rules.hasher(plain);
        let mut block = vec![0; BLOCK];
        let mut size = 0;
        loop {
            let read = file.read(&mut block)?;
            if read == 0 {
                break;
            }
            size += read as u64;
            if size > FILE_BYTES_MAX {
                return Ok(None);
            }
            hasher.update(&block[..read]);
        }
        let same = Stamp::of(&file.metadata()?) == before && size == before.size;
        Ok(same.then(|| (hasher.finalize().into(), size)))
    }
}

/// Whether a content, if it is one, was hashed so.
const fn is_hashed(kind: &FileKind, plain: bool) -> bool {
    match kind {
        FileKind::Regular { replicated, .. } => *replicated == plain,
        FileKind::Link { .. } | FileKind::Directory | FileKind::Unreadable { .. } => true,
    }
}

/// The content of a regular file, if it is what `hash` says: what is sent to another host.
///
/// # Errors
/// It cannot be read, or is something else by now.
pub fn content(path: &Path, hash: &ValueHash) -> io::Result<Vec<u8>> {
    let (mut file, _) = open(path)?;
    let mut bytes = Vec::new();
    let read = file
        .by_ref()
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if read as u64 > FILE_BYTES_MAX || ValueHash::from(blake3::hash(&bytes)) != *hash {
        return Err(io::Error::other("it has changed"));
    }
    Ok(bytes)
}

/// Opens a regular file and nothing else: a pipe would keep whoever opens it waiting, and there are
/// devices that do something when they are opened.
fn open(path: &Path) -> io::Result<(File, Stamp)> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other("no regular file"));
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let meta = file.metadata()?;
    match meta.is_file() {
        true => Ok((file, Stamp::of(&meta))),
        false => Err(io::Error::other("no regular file")),
    }
}

/// Nothing is there: neither it nor a folder on the way.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
