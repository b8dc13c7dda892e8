//! The batches of acts of a group that are kept: each in a folder of its own, by number.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::act::provision::{ALLOWED, Allowed, Entry, PLAN, Undo, content_file, journal};
use crate::facts::{Act, ActKind, Name, ValueHash};

/// The file that says that an operator wants nothing more to be done.
const HELD: &str = "held";
/// Batches whose journals are kept.
pub(super) const KEPT: usize = 64;
/// Of these, such that only read files.
pub(super) const KEPT_PASSING: usize = 4;

/// Where they are.
pub(super) struct Batches {
    folder: PathBuf,
}

impl Batches {
    pub fn new(group: &Name, state_dir: &Path) -> Self {
        Self {
            folder: state_dir.join("provision").join(group.as_str()),
        }
    }

    /// The folder of one.
    pub fn dir(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string())
    }

    /// Whether an operator undid something and wants nothing more to be done.
    pub fn is_held(&self) -> bool {
        self.folder.join(HELD).exists()
    }

    /// Does nothing by itself until [`Self::resume`].
    ///
    /// # Errors
    /// That cannot be noted.
    pub fn hold(&self) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        fs::write(self.folder.join(HELD), "")
    }

    /// Goes on after an undo or a restore.
    ///
    /// # Errors
    /// The note that it is held cannot be removed.
    pub fn resume(&self) -> io::Result<()> {
        match fs::remove_file(self.folder.join(HELD)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Their numbers, in order.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn numbers(&self) -> io::Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The batches that are kept, oldest first, with their journals.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn list(&self) -> io::Result<Vec<(u64, Vec<Entry>)>> {
        let numbers = self.numbers()?.into_iter();
        let batches = numbers.map(|number| {
            let entries = journal(&self.dir(number))?;
            Ok((number, entries))
        });
        batches.collect()
    }

    /// Whether there is nothing in a batch to take back: files are read again and again, and must not
    /// take the room of what can be undone.
    fn is_passing(&self, number: u64) -> bool {
        let entries = journal(&self.dir(number)).unwrap_or_default();
        let begun = entries.iter().filter_map(|entry| match entry {
            Entry::Begin { act, .. } => Some(act.kind()),
            Entry::End { .. } | Entry::Undone { .. } => None,
        });
        let kinds: Vec<ActKind> = begun.collect();
        !kinds.is_empty() && kinds.iter().all(|kind| *kind == ActKind::Cache)
    }

    /// Plan and contents of a new batch, in a folder of its own; the oldest go.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(
        &self,
        acts: &[Act],
        allowed: &Allowed,
        found: &BTreeMap<ValueHash, Vec<u8>>,
    ) -> io::Result<PathBuf> {
        let numbers = self.numbers()?;
        let passing = numbers
            .iter()
            .rev()
            .filter(|number| self.is_passing(**number));
        let passing: BTreeSet<u64> = passing.skip(KEPT_PASSING - 1).copied().collect();
        let rest = numbers
            .iter()
            .rev()
            .filter(|number| !passing.contains(number));
        for old in rest.skip(KEPT - 1).chain(&passing) {
            fs::remove_dir_all(self.dir(*old))?;
        }
        let next = numbers.last().map_or(1, |last| last + 1);
        let dir = self.dir(next);
        // Contents of configuration are nobody's business.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)?;
        for (hash, bytes) in found {
            keep(&content_file(&dir, hash), bytes)?;
        }
        let json = |written: serde_json::Result<Vec<u8>>| written.map_err(io::Error::other);
        keep(&dir.join(ALLOWED), &json(serde_json::to_vec(allowed))?)?;
        keep(&dir.join(PLAN), &json(serde_json::to_vec(acts))?)?;
        for folder in [&dir, &self.folder] {
            fs::File::open(folder)?.sync_all()?;
        }
        Ok(dir)
    }
}

/// On the disk before anything is done: what undoes it could not be read else after a power cut.
fn keep(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A sentence for each act, of what was written after `known` lines.
pub(super) fn told(entries: &[Entry], known: usize) -> Vec<String> {
    let acts = entries.iter().filter_map(|entry| match entry {
        Entry::Begin { number, act, undo } => Some((*number, (act.to_string(), undo))),
        _ => None,
    });
    let acts: BTreeMap<usize, (String, &Option<Undo>)> = acts.collect();
    let act = |number: &usize| acts.get(number);
    let name = |number: &usize| act(number).map_or("", |(name, _)| name.as_str());
    let undone = |number: &usize| match act(number) {
        Some((name, Some(Undo::Nothing))) => format!("nothing to take back: {name}"),
        _ => format!("undone: {}", name(number)),
    };
    let ends = entries.iter().skip(known).filter_map(|entry| match entry {
        Entry::Begin { .. } => None,
        Entry::End {
            number,
            failed: None,
        } => Some(format!("done: {}", name(number))),
        Entry::Undone {
            number,
            failed: None,
        } => Some(undone(number)),
        Entry::End {
            number,
            failed: Some(why),
        } => Some(format!("failed: {}: {why}", name(number))),
        Entry::Undone {
            number,
            failed: Some(why),
        } => Some(format!("not undone: {}: {why}", name(number))),
    });
    ends.collect()
}
