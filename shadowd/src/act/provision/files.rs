//! Files: put in place whole, with their owner and mode, or not at all.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::fs::{fchown, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Group, User};

use super::{ActError, content_file};
use crate::facts::{FileFact, FileKind, ValueHash};

/// The bits of a mode by which a program runs as its owner or group (inode(7)).
const PRIVILEGE: u32 = 0o6000;

/// Makes `path` what `fact` says; the content of a regular file is in `dir`.
pub(super) fn copy(path: &str, fact: &FileFact, dir: &Path) -> Result<(), ActError> {
    let at = Path::new(path);
    let failed = |source| failed(at, source);
    let (user, group) = (user(&fact.owner)?, group(&fact.group)?);
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    match &fact.kind {
        FileKind::Directory => directory(at, (user, group), fact.mode).map_err(failed),
        FileKind::Link { target } => link(at, target, (user, group)),
        FileKind::Regular { hash, .. } => {
            no_privilege(path, fact.mode, 0)?;
            let bytes = fs::read(content_file(dir, hash)).map_err(failed)?;
            if ValueHash::from(blake3::hash(&bytes)) != *hash {
                let path = path.to_owned();
                return Err(ActError::Content { path });
            }
            write(at, &bytes, (user, group), fact.mode)
        }
        FileKind::Unreadable { why } => Err(failed(io::Error::other(why.clone()))),
    }
}

/// Makes a directory, or takes the one that is there: no file, and nothing that a link leads to.
fn directory(at: &Path, (user, group): (u32, u32), mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(at) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }?;
    let there = Unfollowed::open(at)?;
    match there.0.metadata()?.is_dir() {
        true => there.set(user, group, mode),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}

/// Makes a link beside its place and moves it there.
pub(super) fn link(at: &Path, target: &str, (user, group): (u32, u32)) -> Result<(), ActError> {
    let beside = beside(at);
    symlink(target, &beside)
        .and_then(|()| lchown(&beside, Some(user), Some(group)))
        .map_err(|source| failed(at, source))?;
    replace(&beside, at)
}

/// Writes a file beside its place, with all that belongs to it, and moves it there.
pub(super) fn write(
    at: &Path,
    bytes: &[u8],
    (user, group): (u32, u32),
    mode: u32,
) -> Result<(), ActError> {
    let beside = beside(at);
    let make = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&beside)?;
        file.write_all(bytes)?;
        lchown(&beside, Some(user), Some(group))?;
        // After the owner: a change of that takes set-user-id away (chown(2)).
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()
    };
    if let Err(source) = make() {
        let _ = fs::remove_file(&beside);
        return Err(failed(at, source));
    }
    replace(&beside, at)
}

/// Moves what was made into its place. A directory there is not replaced.
fn replace(beside: &Path, at: &Path) -> Result<(), ActError> {
    fs::rename(beside, at).map_err(|source| {
        let _ = fs::remove_file(beside);
        failed(at, source)
    })?;
    if let Some(parent) = at.parent()
        && let Ok(parent) = fs::File::open(parent)
    {
        let _ = parent.sync_all();
    }
    Ok(())
}

/// Hidden, so that no pattern of a configuration takes it in. What a run that was killed left there goes
/// first: of a group there is one at a time.
fn beside(at: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(at.file_name().unwrap_or_default());
    name.push(".shadowd");
    let beside = at.with_file_name(name);
    let _ = fs::remove_file(&beside);
    beside
}

/// Removes what a run that was killed left beside `at`.
pub(super) fn clear(at: &Path) {
    beside(at);
}

pub(super) fn own(path: &str, owner: &str, of: &str) -> Result<(), ActError> {
    let (user, group) = (user(owner)?, group(of)?);
    let at = Path::new(path);
    let failed = |source| failed(at, source);
    let before = fs::symlink_metadata(at).map_err(failed)?;
    if before.is_symlink() {
        return lchown(at, Some(user), Some(group)).map_err(failed);
    }
    let there = Unfollowed::open(at).map_err(failed)?;
    let before = there.0.metadata().map_err(failed)?;
    let mode = before.permissions().mode() & 0o7777;
    if before.is_file() {
        no_privilege(path, mode, 0)?;
    }
    there.set(user, group, mode).map_err(failed)
}

pub(super) fn mode(path: &str, mode: u32) -> Result<(), ActError> {
    let at = Path::new(path);
    let failed = |source| failed(at, source);
    let there = Unfollowed::open(at).map_err(failed)?;
    let before = there.0.metadata().map_err(failed)?;
    if before.is_file() {
        no_privilege(path, mode, before.permissions().mode())?;
    }
    there.set_mode(mode).map_err(failed)
}

/// A program that runs as its owner for everybody who calls it is nothing that another host may bring:
/// `before` is the mode of what is there.
fn no_privilege(path: &str, mode: u32, before: u32) -> Result<(), ActError> {
    match mode & !before & PRIVILEGE {
        0 => Ok(()),
        _ => Err(ActError::Privilege {
            path: path.to_owned(),
            mode,
        }),
    }
}

/// A file or directory itself: never what a link leads to, also when one is put there meanwhile.
struct Unfollowed(fs::File);

impl Unfollowed {
    fn open(at: &Path) -> io::Result<Self> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(flags.bits());
        let file = options.open(at).map_err(|error| {
            match error.raw_os_error() == Some(Errno::ELOOP as i32) {
                true => io::Error::other("it is a link"),
                false => error,
            }
        })?;
        Ok(Self(file))
    }

    fn set(&self, user: u32, group: u32, mode: u32) -> io::Result<()> {
        fchown(&self.0, Some(user), Some(group))?;
        // After the owner: a change of that takes set-user-id away (chown(2)).
        self.set_mode(mode)
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.0.set_permissions(Permissions::from_mode(mode))
    }
}

pub(super) fn failed(path: &Path, source: io::Error) -> ActError {
    let path = path.to_owned();
    ActError::File { path, source }
}

/// The number of a user, who may be named by it.
fn user(name: &str) -> Result<u32, ActError> {
    let found = User::from_name(name)
        .ok()
        .flatten()
        .map(|user| user.uid.as_raw());
    found
        .or_else(|| name.parse().ok())
        .ok_or_else(|| unknown(name))
}

fn group(name: &str) -> Result<u32, ActError> {
    let found = Group::from_name(name)
        .ok()
        .flatten()
        .map(|group| group.gid.as_raw());
    found
        .or_else(|| name.parse().ok())
        .ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> ActError {
    let name = name.to_owned();
    ActError::Account { name }
}
