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

/// Opens a regular file and nothing else: a pipe would keep whoever opens it waiting.
fn open(path: &Path) -> io::Result<(File, Stamp)> {
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
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("shadowd-files-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn path(&self, name: &str) -> String {
            self.0.join(name).to_string_lossy().into_owned()
        }

        fn write(&self, name: &str, bytes: &[u8]) -> String {
            fs::write(self.0.join(name), bytes).unwrap();
            self.path(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn reader(folder: &Folder) -> FileReader {
        let glob = |name: &str| folder.path(name).parse().unwrap();
        FileReader::new(HashRules {
            replicated: vec![glob("*")],
            secret: vec![glob("secret*")],
            key: [7; 32],
        })
    }

    fn hash_of(fact: Option<FileFact>) -> (ValueHash, bool) {
        match fact.map(|fact| fact.kind) {
            Some(FileKind::Regular {
                hash, replicated, ..
            }) => (hash, replicated),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_plain_content_has_the_plain_hash_and_a_secret_a_hidden_one() {
        let folder = Folder::new();
        let mut reader = reader(&folder);
        let (plain, secret) = (folder.write("a", b"x"), folder.write("secret", b"x"));
        let (hash, replicated) = hash_of(reader.read(&plain).unwrap());
        assert_eq!((hash, replicated), (blake3::hash(b"x").into(), true));
        assert_eq!(content(Path::new(&plain), &hash).unwrap(), b"x");
        let (hidden, replicated) = hash_of(reader.read(&secret).unwrap());
        assert!(!replicated);
        assert_ne!(hidden, hash);
        assert_eq!(hidden, reader.rules().hide(b"x"));
        // As a version has it that was made under other rules.
        let as_asked = |reader: &mut FileReader, path: &str, plain| {
            hash_of(reader.read_as(path, Some(plain)).unwrap())
        };
        assert_eq!(as_asked(&mut reader, &secret, true), (hash, true));
        assert_eq!(as_asked(&mut reader, &secret, false), (hidden, false));
        assert_eq!(as_asked(&mut reader, &plain, false), (hidden, false));
    }

    #[test]
    fn content_mode_and_absence_are_noticed() {
        let folder = Folder::new();
        let mut reader = reader(&folder);
        let path = folder.write("a", b"one");
        let before = reader.read(&path).unwrap();
        assert_eq!(reader.read(&path).unwrap(), before);
        folder.write("a", b"two");
        assert_ne!(hash_of(reader.read(&path).unwrap()), hash_of(before));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(
            reader.read(&path).unwrap().map(|fact| fact.mode),
            Some(0o600)
        );
        fs::remove_file(&path).unwrap();
        assert_eq!(reader.read(&path).unwrap(), None);
        assert_eq!(reader.read(&folder.path("no/such/folder")).unwrap(), None);
    }

    #[test]
    fn links_folders_pipes_and_huge_files_are_named_and_not_followed() {
        let folder = Folder::new();
        let mut reader = reader(&folder);
        let mut kind = |name: &str| reader.read(&folder.path(name)).unwrap().unwrap().kind;
        symlink("/etc/shadow", folder.path("link")).unwrap();
        let target = "/etc/shadow".to_owned();
        assert_eq!(kind("link"), FileKind::Link { target });
        fs::create_dir(folder.path("dir")).unwrap();
        assert_eq!(kind("dir"), FileKind::Directory);
        let mode = nix::sys::stat::Mode::S_IRUSR;
        nix::unistd::mkfifo(folder.path("pipe").as_str(), mode).unwrap();
        assert!(matches!(kind("pipe"), FileKind::Unreadable { .. }));
        let huge = File::create(folder.path("huge")).unwrap();
        huge.set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(matches!(kind("huge"), FileKind::Unreadable { why } if why.contains("16 MiB")));
    }

    #[test]
    fn a_content_that_is_another_by_now_is_not_sent() {
        let folder = Folder::new();
        let path = folder.write("a", b"new");
        let old = blake3::hash(b"old").into();
        assert!(content(Path::new(&path), &old).is_err());
    }

    #[test]
    fn a_file_that_changes_all_the_time_is_bounded() {
        let folder = Folder::new();
        let path = folder.write("a", &[0; 1 << 20]);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut byte = 0_u8;
                while !stop.load(Ordering::Relaxed) {
                    byte = byte.wrapping_add(1);
                    let _ = fs::write(&path, vec![byte; 1 << 20]);
                }
            });
            let mut reader = reader(&folder);
            for _ in 0..20 {
                // Whatever it is at this moment, it comes back.
                let fact = reader.read(&path).unwrap();
                assert!(fact.is_some());
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
