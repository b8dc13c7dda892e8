//! What undoes an act: written down before it is done.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{ActError, Allowed, Entry, Journal, explain, files, filter, journal, tools};
use crate::facts::{Act, FilterChain};

/// What undoes an act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "undo")]
pub enum Undo {
    /// Nothing was there: what is there now goes.
    Remove {
        /// Absolute.
        path: String,
    },
    /// A regular file comes back.
    Restore {
        /// Absolute.
        path: String,
        /// Where its content is kept, in the folder of the journal.
        kept: String,
        /// Its owner.
        user: u32,
        /// Its group.
        group: u32,
        /// Its mode.
        mode: u32,
    },
    /// A link comes back.
    Relink {
        /// Absolute.
        path: String,
        /// To where.
        target: String,
    },
    /// Owner and mode are as they were.
    Attributes {
        /// Absolute.
        path: String,
        /// Its owner.
        user: u32,
        /// Its group.
        group: u32,
        /// Its mode.
        mode: u32,
    },
    /// A kernel parameter is as it was.
    Parameter {
        /// As sysctl has it.
        name: String,
        /// Its value.
        value: String,
    },
    /// A package is as it was.
    Package {
        /// Its name.
        package: String,
        /// Its version; none when it was not installed.
        version: Option<String>,
    },
    /// The rules with this comment go.
    Rule {
        /// Where they are.
        chain: FilterChain,
        /// Their comment.
        comment: String,
    },
    /// Nothing was changed that could be taken back: the kernel drops what it needs no more.
    Nothing,
    /// `systemctl` with these words.
    Systemctl {
        /// The words.
        words: Vec<String>,
    },
    /// `systemctl` with these words, once all else is undone: a unit reads what came back.
    Reread {
        /// The words.
        words: Vec<String>,
    },
}

impl Undo {
    /// The path that it brings back.
    pub(super) fn path(&self) -> Option<&str> {
        match self {
            Self::Remove { path }
            | Self::Restore { path, .. }
            | Self::Relink { path, .. }
            | Self::Attributes { path, .. } => Some(path),
            Self::Parameter { .. }
            | Self::Package { .. }
            | Self::Rule { .. }
            | Self::Nothing
            | Self::Systemctl { .. }
            | Self::Reread { .. } => None,
        }
    }
}

/// What will undo `act`; what it replaces is kept in `dir`.
pub(super) fn before(act: &Act, dir: &Path, number: usize) -> Result<Option<Undo>, ActError> {
    Ok(match act {
        Act::Install { package, .. } => Some(Undo::Package {
            package: package.clone(),
            version: installed(package),
        }),
        Act::Copy { path, .. } => Some(whole(path, dir, number)?),
        Act::Own { path, .. } | Act::Mode { path, .. } => {
            let at = Path::new(path);
            let meta = fs::symlink_metadata(at).map_err(|source| files::failed(at, source))?;
            Some(Undo::Attributes {
                path: path.clone(),
                user: meta.uid(),
                group: meta.gid(),
                mode: meta.mode() & 0o7777,
            })
        }
        Act::Parameter { name, .. } => {
            let file = tools::parameter_file(name);
            let at = Path::new(&file);
            let value = fs::read_to_string(at).map_err(|source| files::failed(at, source))?;
            Some(Undo::Parameter {
                name: name.clone(),
                value: value.trim().to_owned(),
            })
        }
        Act::Limit { unit, .. } => Some(whole(&tools::limits_file(unit), dir, number)?),
        Act::Unmask { unit } => systemctl(&["mask", unit]),
        Act::Enable { unit } => systemctl(&["disable", unit]),
        Act::Disable { unit } => systemctl(&["enable", unit]),
        Act::Start { unit } => systemctl(&["stop", unit]),
        Act::Open {
            protocol,
            port,
            chain,
            ..
        } => Some(Undo::Rule {
            chain: chain.clone(),
            comment: filter::comment(*protocol, *port),
        }),
        // What a unit reads is brought back by other acts. One that does not run any more stays so.
        Act::Reload { unit } => reread(&["try-reload-or-restart", unit]),
        Act::Restart { unit } => reread(&["try-restart", unit]),
        Act::Warm { .. } => Some(Undo::Nothing),
    })
}

fn systemctl(words: &[&str]) -> Option<Undo> {
    let words = owned(words);
    Some(Undo::Systemctl { words })
}

fn reread(words: &[&str]) -> Option<Undo> {
    let words = owned(words);
    Some(Undo::Reread { words })
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// All that is at a path.
fn whole(path: &str, dir: &Path, number: usize) -> Result<Undo, ActError> {
    let at = Path::new(path);
    let failed = |source| files::failed(at, source);
    let meta = match fs::symlink_metadata(at) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = path.to_owned();
            return Ok(Undo::Remove { path });
        }
        Err(error) => return Err(failed(error)),
    };
    let (path, mode) = (path.to_owned(), meta.mode() & 0o7777);
    let (user, group) = (meta.uid(), meta.gid());
    if meta.is_symlink() {
        let target = fs::read_link(at).map_err(failed)?;
        let target = target.to_string_lossy().into_owned();
        return Ok(Undo::Relink { path, target });
    }
    if meta.is_file() {
        let kept = format!("kept-{number}");
        let bytes = fs::read(at).map_err(failed)?;
        // Nobody but root reads what was there, whatever its mode was.
        files::write(&dir.join(&kept), &bytes, (0, 0), 0o600)?;
        return Ok(Undo::Restore {
            path,
            kept,
            user,
            group,
            mode,
        });
    }
    Ok(Undo::Attributes {
        path,
        user,
        group,
        mode,
    })
}

/// The version of a package; none when it is not installed.
fn installed(package: &str) -> Option<String> {
    let (program, words) = match Path::new("/usr/bin/dpkg-query").exists() {
        true => (
            "dpkg-query",
            ["-W", "-f=${db:Status-Status} ${Version}", package],
        ),
        false => (
            "rpm",
            ["-q", "--qf=installed %{VERSION}-%{RELEASE}", package],
        ),
    };
    let output = tools::output(program, &words).ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.strip_prefix("installed ").map(str::to_owned)
}

/// Undoes what the journal in `dir` says was begun; what was undone already stays so.
///
/// # Errors
/// The journal cannot be read or written.
pub fn undo(dir: &Path) -> io::Result<()> {
    let _alone = super::alone(dir)?;
    let entries = journal(dir)?;
    let allowed = Allowed::of(dir)?;
    let mut journal = Journal::open(dir)?;
    super::clear_leftovers();
    for (number, undo) in pending(&entries) {
        let taken = allowed.check_undo(undo).and_then(|()| {
            if let Some(path) = undo.path() {
                files::clear(Path::new(path));
            }
            take_back(undo, dir)
        });
        let failed = taken.err().map(|error| explain(&error));
        journal.write(&Entry::Undone { number, failed })?;
    }
    Ok(())
}

/// What is to be undone, the last act first, but units that read again after all that they read.
fn pending(entries: &[Entry]) -> Vec<(usize, &Undo)> {
    let undone: BTreeSet<usize> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Undone {
                number,
                failed: None,
            } => Some(*number),
            _ => None,
        })
        .collect();
    let begun = entries.iter().rev().filter_map(|entry| match entry {
        Entry::Begin {
            number,
            undo: Some(undo),
            ..
        } => Some((*number, undo)),
        _ => None,
    });
    let mut pending: Vec<_> = begun
        .filter(|(number, _)| !undone.contains(number))
        .collect();
    pending.sort_by_key(|(_, undo)| matches!(undo, Undo::Reread { .. }));
    pending
}

fn take_back(undo: &Undo, dir: &Path) -> Result<(), ActError> {
    match undo {
        Undo::Remove { path } => {
            let at = Path::new(path);
            let gone = match fs::symlink_metadata(at) {
                Ok(meta) if meta.is_dir() => fs::remove_dir(at),
                Ok(_) => fs::remove_file(at),
                Err(error) => Err(error),
            };
            match gone {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(files::failed(at, error))
                }
                _ => tools::heed(path),
            }
        }
        Undo::Restore {
            path,
            kept,
            user,
            group,
            mode,
        } => {
            let kept = dir.join(kept);
            let bytes = fs::read(&kept).map_err(|source| files::failed(&kept, source))?;
            files::write(Path::new(path), &bytes, (*user, *group), *mode)?;
            tools::heed(path)
        }
        Undo::Relink { path, target } => {
            files::link(Path::new(path), target, (0, 0))?;
            tools::heed(path)
        }
        Undo::Attributes {
            path,
            user,
            group,
            mode,
        } => {
            let at = Path::new(path);
            lchown(at, Some(*user), Some(*group)).map_err(|source| files::failed(at, source))?;
            match at.is_symlink() {
                true => Ok(()),
                false => files::mode(path, *mode),
            }
        }
        Undo::Parameter { name, value } => tools::parameter(name, value),
        Undo::Package { package, version } => match version {
            Some(version) => tools::install(package, Some(version)),
            None => tools::remove(package),
        },
        Undo::Rule { chain, comment } => filter::close(chain, comment),
        Undo::Nothing => Ok(()),
        Undo::Systemctl { words } | Undo::Reread { words } => {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            tools::systemctl(&words)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(number: usize, act: Act) -> Entry {
        let undo = before(&act, Path::new("/nonexistent"), number).unwrap();
        Entry::Begin { number, act, undo }
    }

    /// A unit that is told before its files are back would go on with what it has.
    #[test]
    fn units_read_again_once_their_files_are_back() {
        let unit = "nginx.service".to_owned();
        let path = "/nonexistent/nginx.conf".to_owned();
        let link = crate::facts::FileFact {
            kind: crate::facts::FileKind::Link { target: "x".into() },
            owner: "root".into(),
            group: "root".into(),
            mode: 0o777,
        };
        let mut entries = vec![
            begin(0, Act::Copy { path, fact: link }),
            begin(1, Act::Reload { unit: unit.clone() }),
            begin(2, Act::Enable { unit: unit.clone() }),
            begin(3, Act::Restart { unit }),
        ];
        let order = |entries: &[Entry]| -> Vec<usize> {
            pending(entries).iter().map(|(number, _)| *number).collect()
        };
        assert_eq!(order(&entries), [2, 0, 3, 1]);
        let (number, failed) = (0, None);
        entries.push(Entry::Undone { number, failed });
        let (number, failed) = (3, Some("it failed".to_owned()));
        entries.push(Entry::Undone { number, failed });
        assert_eq!(order(&entries), [2, 3, 1], "what failed is tried again");
        let told = pending(&entries)[2].1;
        assert_eq!(
            *told,
            reread(&["try-reload-or-restart", "nginx.service"]).unwrap()
        );
    }
}
