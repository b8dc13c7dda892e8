//! Files of every kind, on a real file system.

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

#[test]
fn loops_and_names_that_are_odd_are_told_and_nothing_hangs() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = Folder::new();
    let mut reader = reader(&folder);
    symlink(folder.path("b"), folder.path("a")).unwrap();
    symlink(folder.path("a"), folder.path("b")).unwrap();
    // The link itself is one; below it there is no end.
    let kind = reader.read(&folder.path("a")).unwrap().unwrap().kind;
    assert!(matches!(kind, FileKind::Link { .. }));
    let error = reader.read(&folder.path("a/file")).unwrap_err();
    assert!(error.to_string().contains("symbolic links"), "{error}");
    for name in [
        "two\nlines",
        "bell\u{7}",
        "esc\u{1b}[31m",
        "-rf",
        "sp ace",
        "$(id)",
    ] {
        let path = folder.write(name, b"x");
        let (hash, _) = hash_of(reader.read(&path).unwrap());
        assert_eq!(hash, blake3::hash(b"x").into(), "{name:?}");
    }
    let odd = folder.0.join(std::ffi::OsStr::from_bytes(b"odd\xff"));
    fs::write(&odd, "x").unwrap();
    let error = reader.read(&odd.to_string_lossy()).unwrap_err();
    assert!(error.to_string().contains("no UTF-8"), "{error}");
}

#[test]
fn pipes_sockets_and_devices_are_never_opened() {
    let folder = Folder::new();
    let mut reader = reader(&folder);
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::unistd::mkfifo(folder.path("pipe").as_str(), mode).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path("socket")).unwrap();
    let places = [
        folder.path("pipe"),
        folder.path("socket"),
        "/dev/tty".into(),
        "/dev/zero".into(),
    ];
    for path in places {
        let kind = reader.read(&path).unwrap().map(|fact| fact.kind);
        let why = "no regular file".to_owned();
        assert_eq!(kind, Some(FileKind::Unreadable { why }), "{path}");
        assert!(open(Path::new(&path)).is_err(), "{path}");
        assert!(content(Path::new(&path), &blake3::hash(b"").into()).is_err());
    }
}

#[test]
fn what_may_not_be_read_is_told() {
    let folder = Folder::new();
    let mut reader = reader(&folder);
    let path = folder.write("closed", b"x");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let kind = reader.read(&path).unwrap().unwrap().kind;
    // Root reads it all the same.
    match nix::unistd::geteuid().is_root() {
        true => assert!(matches!(kind, FileKind::Regular { .. }), "{kind:?}"),
        false => assert!(
            matches!(&kind, FileKind::Unreadable { why } if why.contains("ermission denied")),
            "{kind:?}"
        ),
    }
}

#[test]
fn a_huge_tree_is_read_in_bounded_memory_and_nothing_of_it_is_lost() {
    const MANY: usize = 100_000;
    let folder = Folder::new();
    let first = folder.write("0", b"same");
    for number in 1..MANY {
        fs::hard_link(&first, folder.0.join(number.to_string())).unwrap_or_else(|_| {
            // A file system allows only so many names of one file.
            fs::write(folder.0.join(number.to_string()), b"same").unwrap();
        });
    }
    let mut reader = reader(&folder);
    let wanted: ValueHash = blake3::hash(b"same").into();
    for number in 0..MANY {
        let (hash, _) = hash_of(reader.read(&folder.path(&number.to_string())).unwrap());
        assert_eq!(hash, wanted);
        assert!(reader.known.len() <= KEPT);
    }
}

#[test]
fn a_file_that_grows_while_it_is_read_is_bounded() {
    let folder = Folder::new();
    let path = folder.write("a", b"");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::io::Write as _;
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            for _ in 0..2 * FILE_BYTES_MAX / 65_536 {
                file.write_all(&[7; 65_536]).unwrap();
            }
        });
        let mut reader = reader(&folder);
        while fs::metadata(&path).unwrap().len() <= FILE_BYTES_MAX {
            let kind = reader.read(&path).unwrap().unwrap().kind;
            if let FileKind::Unreadable { why } = kind {
                let known = why.contains("while it is read") || why.contains("16 MiB");
                assert!(known, "{why}");
            }
        }
        let kind = reader.read(&path).unwrap().unwrap().kind;
        assert!(matches!(kind, FileKind::Unreadable { why } if why.contains("16 MiB")));
    });
}
