//! Which files there are, from when to when, and what in them is broken.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::frame::{self, Broken, HEAD, Head, Kind};
use super::{Damage, HistoryError, Range};

/// Name of the saved state.
pub const STATE: &str = "state";
/// Ending of a file that is not complete yet.
pub const NEW: &str = "new";

/// How fine the records of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As observed.
    Full,
    /// One for each minute.
    Minutes,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub path: PathBuf,
    pub level: Level,
    pub bytes: u64,
    pub records: u64,
    /// Number of the last record.
    pub last: u64,
    /// From the begin of the earliest interval to the end of the latest; none without records.
    pub span: Option<(i64, i64)>,
    /// End of the first interval.
    pub first_end: Option<i64>,
    /// Every content was held against its checksum.
    pub checked: bool,
    /// Places that are broken.
    pub broken: BTreeSet<u64>,
}

impl Segment {
    pub fn new(path: PathBuf, level: Level) -> Self {
        Self {
            path,
            level,
            bytes: 0,
            records: 0,
            last: 0,
            span: None,
            first_end: None,
            checked: true,
            broken: BTreeSet::new(),
        }
    }

    /// Takes the next frame into account.
    pub fn note(&mut self, head: &Head) {
        self.bytes += head.frame_length() as u64;
        if head.kind == Kind::Record {
            self.records += 1;
            self.last = head.number;
            let (begin, end) = (head.begin_ms(), head.wall_ms);
            let (from, to) = self.span.unwrap_or((begin, end));
            self.span = Some((from.min(begin), to.max(end)));
            self.first_end = self.first_end.or(Some(end));
        }
    }

    /// Whether an interval of it may touch `from..=to`.
    pub fn touches(&self, from: i64, to: i64) -> bool {
        self.span
            .is_some_and(|(begin, end)| begin <= to && end >= from)
    }
}

/// Path of the file whose first record has `number`.
pub fn path(folder: &Path, number: u64, level: Level) -> PathBuf {
    let ending = match level {
        Level::Full => "full",
        Level::Minutes => "minutes",
    };
    folder.join(format!("{number:016x}.{ending}"))
}

pub(super) fn parse(name: &str) -> Option<(u64, Level)> {
    let (number, ending) = name.split_once('.')?;
    let level = match ending {
        "full" => Level::Full,
        "minutes" => Level::Minutes,
        _ => return None,
    };
    let number = u64::from_str_radix(number, 16).ok()?;
    (name.len() == ending.len() + 17).then_some((number, level))
}

/// What the writer and the readers share.
#[derive(Debug)]
pub struct Shared {
    pub folder: PathBuf,
    pub max_bytes: u64,
    index: Mutex<Index>,
}

/// Every file, by the number of its first record.
#[derive(Debug, Default)]
pub struct Index {
    pub segments: BTreeMap<u64, Segment>,
    /// Broken places that nobody was told of.
    pub untold: Vec<Damage>,
    /// Broken places of files that are gone stay counted.
    pub broken_before: u64,
}

impl Shared {
    pub fn new(folder: PathBuf, max_bytes: u64, index: Index) -> Self {
        let index = Mutex::new(index);
        Self {
            folder,
            max_bytes,
            index,
        }
    }

    pub fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The good records of the segment that begins with `first`, in order; broken places are noted.
    /// Empty when the file is gone: it grew too old.
    pub fn read(&self, first: u64) -> Result<Vec<u8>, HistoryError> {
        let (path, bytes) = match self.index().segments.get(&first) {
            Some(segment) => (segment.path.clone(), segment.bytes),
            None => return Ok(Vec::new()),
        };
        let mut content = match fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed("read", &path, source)),
        };
        // What lies beyond is being written at this moment.
        content.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(content)
    }

    /// Notes what is broken in `content`, all of the segment that begins with `first`.
    pub fn check(&self, first: u64, content: &[u8]) {
        let mut damages = Vec::new();
        let mut after = None;
        for frame in frame::scan(content) {
            match frame {
                Ok((head, _)) if head.kind == Kind::Record => after = Some(head.number),
                Ok(_) => {}
                Err(broken) => damages.push((broken, after)),
            }
        }
        let mut index = self.index();
        let index = &mut *index;
        let Some(segment) = index.segments.get_mut(&first) else {
            return;
        };
        segment.checked = true;
        for (Broken { offset, head }, after) in damages {
            if segment.broken.insert(offset as u64) {
                // Its head was counted as a record.
                if head.is_some_and(|head| head.kind == Kind::Record) {
                    segment.records = segment.records.saturating_sub(1);
                }
                index.untold.push(Damage {
                    path: segment.path.clone(),
                    offset: offset as u64,
                    record: head.map(|head| (head.number, head.wall_ms)),
                    after,
                });
            }
        }
    }
}

impl Index {
    pub fn range(&self) -> Option<Range> {
        let spans = || self.segments.values().filter_map(|segment| segment.span);
        Some(Range {
            oldest_ms: self
                .segments
                .values()
                .filter_map(|segment| segment.first_end)
                .min()?,
            newest_ms: spans().map(|(_, end)| end).max()?,
        })
    }

    pub fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    pub fn broken(&self) -> u64 {
        let now: u64 = self
            .segments
            .values()
            .map(|segment| segment.broken.len() as u64)
            .sum();
        self.broken_before + now
    }

    /// Removes a file.
    pub fn remove(&mut self, first: u64) -> Result<(), HistoryError> {
        let Some(segment) = self.segments.remove(&first) else {
            return Ok(());
        };
        self.broken_before += segment.broken.len() as u64;
        match fs::remove_file(&segment.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &segment.path, source))
            }
            _ => Ok(()),
        }
    }

    /// Reads which files there are, and their heads. What an interrupted merge left is removed.
    pub fn open(folder: &Path) -> Result<Self, HistoryError> {
        let list = |source| failed("read", folder, source);
        let mut index = Self::default();
        for entry in fs::read_dir(folder).map_err(list)? {
            let entry = entry.map_err(list)?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(&format!(".{NEW}")) {
                fs::remove_file(&path).map_err(|source| failed("remove", &path, source))?;
            } else if let Some((first, level)) = parse(&name) {
                let segment = heads(path, level)?;
                let Some(other) = index.segments.remove(&first) else {
                    index.segments.insert(first, segment);
                    continue;
                };
                // The file of minutes was completed, the one it was made of not removed yet.
                let (kept, gone) = match other.level {
                    Level::Minutes => (other, segment),
                    Level::Full => (segment, other),
                };
                fs::remove_file(&gone.path)
                    .map_err(|source| failed("remove", &gone.path, source))?;
                index.segments.insert(first, kept);
            }
        }
        Ok(index)
    }
}

/// The segment at `path` by its heads. What follows a broken head is found when it is checked, so
/// a file with one is read as a whole.
fn heads(path: PathBuf, level: Level) -> Result<Segment, HistoryError> {
    let wrap = |source| failed("read", &path, source);
    let file = File::open(&path).map_err(wrap)?;
    let length = file.metadata().map_err(wrap)?.len();
    let mut segment = Segment::new(path.clone(), level);
    let mut bytes = [0; HEAD];
    while segment.bytes < length {
        let whole = file.read_exact_at(&mut bytes, segment.bytes).is_ok();
        match Head::decode(&bytes).filter(|_| whole) {
            Some(head) if segment.bytes + head.frame_length() as u64 <= length => {
                segment.note(&head);
            }
            _ => {
                let content = fs::read(&path).map_err(wrap)?;
                segment = Segment::new(path.clone(), level);
                for found in frame::scan(&content) {
                    // A broken content is found again, and taken off, when the file is checked.
                    match found {
                        Ok((head, _))
                        | Err(Broken {
                            head: Some(head), ..
                        }) => segment.note(&head),
                        Err(Broken { head: None, .. }) => {}
                    }
                }
                break;
            }
        }
    }
    segment.bytes = length;
    segment.checked = false;
    Ok(segment)
}

pub fn failed(what: &'static str, path: &Path, source: io::Error) -> HistoryError {
    HistoryError::File {
        what,
        path: path.to_owned(),
        source,
    }
}
