//! Changes this host so that it could take a group over, one act after the other, each on record
//! before it is done.
//!
//! The daemon's own sandbox writes nothing outside of its state directory, so this runs as
//! `shadowd --provision DIR`, started by systemd in a transient unit. DIR has `plan.json` with the
//! acts and the contents of files, each named by its hash. `journal.json` gets a line before each act,
//! with what undoes it, and one after it with what came of it; what an act replaces is kept in DIR.

mod cache;
mod confine;
mod files;
mod filter;
mod tools;
mod undo;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::facts::{Act, ValueHash};

pub use self::confine::{ALLOWED, Allowed};
pub use self::undo::{Undo, undo};

/// The acts.
pub const PLAN: &str = "plan.json";
/// What was done.
pub const JOURNAL: &str = "journal.json";

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// An act begins.
    Begin {
        /// Its place in the plan, from 0.
        number: usize,
        /// The act.
        act: Act,
        /// What undoes it; none when there is nothing to undo.
        undo: Option<Undo>,
    },
    /// It has ended.
    End {
        /// Which.
        number: usize,
        /// Why it failed; none when it did not.
        failed: Option<String>,
    },
    /// It was undone.
    Undone {
        /// Which.
        number: usize,
        /// Why that failed; none when it did not.
        failed: Option<String>,
    },
}

/// Why an act failed.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// A file cannot be read or written.
    #[error("{}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The content is not the one that was announced.
    #[error("the content for {path} is not the one of the active")]
    Content {
        /// For which path.
        path: String,
    },
    /// A link on the way leads out of where this host lets files come to.
    #[error("{path} is behind a link: it is {}, where nothing may be changed", .real.display())]
    Elsewhere {
        /// As it was named.
        path: String,
        /// Where that is.
        real: PathBuf,
    },
    /// The file would run as its owner for whoever calls it.
    #[error(
        "{path} would be set-user-id or set-group-id (mode {mode:04o}), which no other host may bring: \
         see what it is, and use chmod if it should be"
    )]
    Privilege {
        /// Which.
        path: String,
        /// With that mode.
        mode: u32,
    },
    /// There is no such user or group.
    #[error("there is no account {name} on this host")]
    Account {
        /// Its name.
        name: String,
    },
    /// This is no limit of a unit.
    #[error("{setting} is no limit of a unit")]
    Limit {
        /// As a unit file would have it.
        setting: String,
    },
    /// A package manager would take the name for something else.
    #[error("{name} is no package in a version")]
    Package {
        /// What it would be told.
        name: String,
    },
    /// The folder may be one of a package that could not be installed.
    #[error("{path} waits for {package}, which could not be installed: its folder is not there")]
    BeforePackage {
        /// Where it would be.
        path: String,
        /// Which package.
        package: String,
    },
    /// A program did not do it.
    #[error("`{command}` failed: {said}")]
    Tool {
        /// With its arguments.
        command: String,
        /// What it printed last.
        said: String,
    },
}

/// Carries the plan in `dir` out. One act that fails does not keep the others from being done.
///
/// # Errors
/// The plan cannot be read, or the journal not be written: nothing more is done.
pub fn provision(dir: &Path) -> io::Result<()> {
    let _alone = alone(dir)?;
    let plan = fs::read(dir.join(PLAN))?;
    let acts: Vec<Act> = serde_json::from_slice(&plan).map_err(io::Error::other)?;
    let allowed = Allowed::of(dir)?;
    let mut journal = Journal::open(dir)?;
    clear_leftovers();
    let mut lacking = None;
    for (number, act) in acts.into_iter().enumerate() {
        let begun = allowed
            .check_act(&act)
            .and_then(|()| undo::before(&act, dir, number));
        let (undo, refused) = match begun {
            Ok(undo) => (undo, None),
            Err(error) => (None, Some(error)),
        };
        let entry = Entry::Begin {
            number,
            act: act.clone(),
            undo,
        };
        journal.write(&entry)?;
        // What could not be undone is not done.
        let done = match refused {
            Some(error) => Err(error),
            None => before_package(&act, lacking.as_ref()).and_then(|()| perform(&act, dir)),
        };
        if let (Act::Install { package, .. }, Err(_)) = (&act, &done) {
            lacking = Some(package.clone());
        }
        let failed = done.err().map(|error| explain(&error));
        journal.write(&Entry::End { number, failed })?;
    }
    Ok(())
}

/// One run at a time on a host, whatever group it is for: package managers, their policy of starts and
/// the file of kernel parameters are the host's. As long as what is given lives; a run that is killed
/// holds nothing up.
fn alone(dir: &Path) -> io::Result<Flock<File>> {
    let batches = dir.ancestors().nth(2).unwrap_or(dir);
    let folder = || File::open(batches);
    let locked = Flock::lock(folder()?, FlockArg::LockExclusiveNonblock).or_else(|_| {
        eprintln!("another run changes this host: waiting until it has ended");
        Flock::lock(folder()?, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
    });
    locked.map_err(|error: io::Error| {
        io::Error::other(format!("{} cannot be locked: {error}", batches.display()))
    })
}

/// A run that was killed in the middle of an installation left the host so that no service starts.
fn clear_leftovers() {
    if let Err(error) = tools::clear_start_policy() {
        eprintln!("{}", explain(&error));
    }
}

/// A folder that is not there may be one that a package makes, with what else belongs into it: a
/// package that finds its folder made takes itself for configured. So nothing is put there before.
fn before_package(act: &Act, lacking: Option<&String>) -> Result<(), ActError> {
    let (Act::Copy { path, .. }, Some(package)) = (act, lacking) else {
        return Ok(());
    };
    match Path::new(path).parent().is_none_or(Path::is_dir) {
        true => Ok(()),
        false => Err(ActError::BeforePackage {
            path: path.clone(),
            package: package.clone(),
        }),
    }
}

fn perform(act: &Act, dir: &Path) -> Result<(), ActError> {
    match act {
        Act::Install { package, version } => tools::install(package, Some(version)),
        Act::Copy { path, fact } => files::copy(path, fact, dir).and_then(|()| tools::heed(path)),
        Act::Own { path, owner, group } => files::own(path, owner, group),
        Act::Mode { path, mode } => files::mode(path, *mode),
        Act::Parameter { name, value } => tools::parameter(name, value),
        Act::Limit { unit, name, value } => tools::limit(unit, name, value),
        Act::Unmask { unit } => tools::systemctl(&["unmask", unit]),
        Act::Enable { unit } => tools::systemctl(&["enable", unit]),
        Act::Disable { unit } => tools::systemctl(&["disable", unit]),
        Act::Start { unit } => tools::systemctl(&["start", unit]),
        Act::Reload { unit } => tools::systemctl(&["reload-or-restart", unit]),
        Act::Restart { unit } => tools::systemctl(&["restart", unit]),
        Act::Open {
            protocol,
            port,
            chain,
            ..
        } => filter::open(chain, *protocol, *port),
        Act::Warm { files, .. } => cache::warm(files),
    }
}

/// An error with all that led to it.
pub(crate) fn explain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| {
        format!("{text}: {source}")
    })
}

/// Where the content with this hash is in `dir`.
pub fn content_file(dir: &Path, hash: &ValueHash) -> PathBuf {
    dir.join(format!("content-{hash}"))
}

/// The journal of `dir`; a line that was cut off is none.
///
/// # Errors
/// It cannot be read.
pub fn journal(dir: &Path) -> io::Result<Vec<Entry>> {
    let file = match File::open(dir.join(JOURNAL)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let lines = BufReader::new(file).lines();
    let mut entries = Vec::new();
    for line in lines {
        if let Ok(entry) = serde_json::from_str(&line?) {
            entries.push(entry);
        }
    }
    Ok(entries)
}

struct Journal(File);

impl Journal {
    fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(JOURNAL);
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        // After a line that was cut off a new one begins.
        if fs::read(&path)?.last().is_some_and(|last| *last != b'\n') {
            file.write_all(b"\n")?;
        }
        Ok(Self(file))
    }

    /// On the disk before it is done.
    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry).map_err(io::Error::other)?;
        line.push(b'\n');
        self.0.write_all(&line)?;
        self.0.sync_data()
    }
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
