//! Writes the history: appends, saves the state, and keeps the files within their bounds.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{self, Head, Kind};
use super::index::{self, Index, Level, NEW, STATE, Segment, Shared, failed};
use super::merge::Sum;
use super::read::Reader;
use super::record::{self, Packer};
use super::{Damage, FOLDER, HistoryError};
use crate::config::settings::HistorySettings;
use crate::facts::{AggregateState, Observation};

/// A file with more bytes is ended.
const SEGMENT_BYTES: u64 = 4 << 20;
/// A file whose first record is this much older than its last is ended, ms.
const SEGMENT_MS: i64 = 10 * 60_000;
/// Records that are read after a saved state; it is saved far more often.
const CATCH_UP: usize = 1_000;
const MINUTE_MS: i64 = 60_000;

/// What an earlier daemon left.
#[derive(Debug, Default)]
pub struct Restored {
    /// The totals as they were saved last.
    pub state: AggregateState,
    /// What was observed after that, oldest first.
    pub records: Vec<Observation>,
}

/// The one who writes.
pub struct Writer {
    shared: Arc<Shared>,
    settings: HistorySettings,
    boot: String,
    packer: Packer,
    /// The number of the next record.
    next: u64,
    /// The file that grows, and the number it begins with.
    pub(super) live: Option<(u64, File)>,
}

impl Writer {
    /// Opens the history in the state directory `dir`; makes it when it is missing. `boot` tells
    /// one boot of the host from the next: flows do not outlast it, totals of units do.
    ///
    /// # Errors
    /// When the folder cannot be made or read. Damage is no error.
    pub fn open(
        dir: &Path,
        settings: &HistorySettings,
        boot: &str,
    ) -> Result<(Self, Reader, Restored), HistoryError> {
        let folder = dir.join(FOLDER);
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder);
        made.map_err(|source| failed("create", &folder, source))?;
        let index = Index::open(&folder)?;
        let recorded = index.segments.values().map(|segment| segment.last).max();
        let shared = Arc::new(Shared::new(folder, settings.max_bytes, index));
        let (number, restored) = restore(&shared, boot)?;
        let begun = shared.index().segments.keys().max().copied().unwrap_or(0);
        let writer = Self {
            shared: Arc::clone(&shared),
            settings: settings.clone(),
            boot: boot.to_owned(),
            packer: Packer::new()?,
            next: recorded.unwrap_or(0).max(number).max(begun) + 1,
            live: None,
        };
        Ok((writer, Reader::new(shared), restored))
    }

    /// Records what was active in `observation`.
    ///
    /// # Errors
    /// It was not recorded; the files are as before.
    pub fn append(&mut self, observation: &Observation) -> Result<(), HistoryError> {
        let number = self.next;
        let frame = self.packer.frame(number, &record::recorded(observation))?;
        if self.live.is_none() {
            self.live = Some(self.begin(number)?);
        }
        let Some((first, file)) = &mut self.live else {
            return Ok(());
        };
        let first = *first;
        if let Err(source) = file.write_all(&frame) {
            let path = index::path(&self.shared.folder, first, Level::Full);
            self.give_up(first);
            return Err(failed("write", &path, source));
        }
        self.next += 1;
        let mut index = self.shared.index();
        if let (Some(segment), Some(head)) = (index.segments.get_mut(&first), Head::decode(&frame))
        {
            segment.note(&head);
            let aged = segment
                .first_end
                .is_some_and(|end| head.wall_ms.saturating_sub(end).saturating_abs() >= SEGMENT_MS);
            if segment.bytes >= SEGMENT_BYTES.min(self.settings.max_bytes / 16) || aged {
                self.live = None;
            }
        }
        Ok(())
    }

    /// Saves the totals as they are after the last record.
    ///
    /// # Errors
    /// The state that was saved before stands.
    pub fn save(&mut self, state: &AggregateState) -> Result<(), HistoryError> {
        let content = self.packer.pack(&(&self.boot, state))?;
        let unpacked = self.packer.unpacked();
        let head = Head::new(Kind::Record, self.next - 1, &content, unpacked);
        if let Some((_, file)) = &self.live {
            // First the records, then the state that counts on them.
            let sync = file.sync_data();
            sync.map_err(|source| failed("write", &self.shared.folder, source))?;
        }
        let path = self.shared.folder.join(STATE);
        replace(&path, &[&record::joined(&head, &content)])
    }

    /// Removes what is too old or too much, and does one piece of the work that can wait: merges a
    /// file into minutes, or checks one. Returns what was found broken since the last time.
    ///
    /// # Errors
    /// When a file cannot be removed or merged; it is tried again.
    pub fn tend(&mut self) -> Result<Vec<Damage>, HistoryError> {
        self.expire()?;
        if !self.check_one()? {
            self.merge_one()?;
        }
        Ok(std::mem::take(&mut self.shared.index().untold))
    }

    /// Begins the file whose first record has `number`.
    fn begin(&self, number: u64) -> Result<(u64, File), HistoryError> {
        let path = index::path(&self.shared.folder, number, Level::Full);
        let wrap = |source| failed("create", &path, source);
        let mut options = File::options();
        let made = options
            .create_new(true)
            .append(true)
            .mode(0o600)
            .open(&path);
        let mut file = made.map_err(wrap)?;
        let begin = record::begin(number, &self.boot);
        if let Err(source) = file.write_all(&begin) {
            let _ = fs::remove_file(&path);
            return Err(wrap(source));
        }
        let mut segment = Segment::new(path.clone(), Level::Full);
        segment.bytes = begin.len() as u64;
        self.shared.index().segments.insert(number, segment);
        Ok((number, file))
    }

    /// The live file could not be written: half a frame is cut off, and the next record begins a
    /// new file.
    fn give_up(&mut self, first: u64) {
        let Some((_, file)) = self.live.take() else {
            return;
        };
        let mut index = self.shared.index();
        let Some(segment) = index.segments.get_mut(&first) else {
            return;
        };
        // When this fails too, the rest is found broken and skipped.
        let _ = file.set_len(segment.bytes);
        if segment.records == 0 {
            let _ = index.remove(first);
            // Its number named the file; the next one is another, in case it could not be removed.
            self.next += 1;
        }
    }

    fn is_live(&self, first: u64) -> bool {
        self.live.as_ref().is_some_and(|(live, _)| *live == first)
    }

    fn expire(&mut self) -> Result<(), HistoryError> {
        let max_age = i64::try_from(self.settings.max_age.as_millis()).unwrap_or(i64::MAX);
        loop {
            let mut index = self.shared.index();
            let newest = index.range().map(|range| range.newest_ms);
            let Some((&first, oldest)) = index.segments.iter().next() else {
                return Ok(());
            };
            let ended = oldest.span.map(|(_, end)| end);
            let is_old = match (newest, ended) {
                (Some(newest), Some(end)) => newest.saturating_sub(end) > max_age,
                _ => false,
            };
            if !(is_old || index.bytes() > self.settings.max_bytes) || self.is_live(first) {
                return Ok(());
            }
            index.remove(first)?;
        }
    }

    fn check_one(&mut self) -> Result<bool, HistoryError> {
        let unchecked = |(first, segment): (&u64, &Segment)| (!segment.checked).then_some(*first);
        let first = self.shared.index().segments.iter().find_map(unchecked);
        let Some(first) = first else {
            return Ok(false);
        };
        let content = self.shared.read(first)?;
        self.shared.check(first, &content);
        Ok(true)
    }

    /// Puts minutes in place of the records of the oldest file that is old enough.
    fn merge_one(&mut self) -> Result<(), HistoryError> {
        let full = i64::try_from(self.settings.full_resolution.as_millis()).unwrap_or(i64::MAX);
        let old = {
            let index = self.shared.index();
            let newest = index.range().map_or(0, |range| range.newest_ms);
            let is_old = |segment: &Segment| {
                let age = segment.span.map(|(_, end)| newest.saturating_sub(end));
                segment.level == Level::Full && age.is_some_and(|age| age > full)
            };
            let mut segments = index.segments.iter();
            segments.find_map(|(first, segment)| is_old(segment).then_some(*first))
        };
        match old {
            Some(first) if !self.is_live(first) => self.merge(first),
            _ => Ok(()),
        }
    }

    fn merge(&mut self, first: u64) -> Result<(), HistoryError> {
        let content = self.shared.read(first)?;
        self.shared.check(first, &content);
        let mut frames = Vec::new();
        let mut minute: Option<(i64, u64, Sum)> = None;
        let mut boot = self.boot.clone();
        for (head, content) in frame::scan(&content).flatten() {
            if head.kind == Kind::Begin {
                boot = String::from_utf8_lossy(content).into_owned();
                continue;
            }
            let Some(observation) = record::unpack::<Observation>(&head, content) else {
                continue;
            };
            let this = head.wall_ms.div_euclid(MINUTE_MS);
            if let Some((_, number, sum)) = minute.take_if(|(other, ..)| *other != this) {
                frames.push(self.packer.frame(number, &sum.observation())?);
            }
            let (_, number, sum) = minute.get_or_insert_with(|| (this, 0, Sum::default()));
            *number = head.number;
            sum.add(&observation);
        }
        if let Some((_, number, sum)) = minute {
            frames.push(self.packer.frame(number, &sum.observation())?);
        }
        let path = index::path(&self.shared.folder, first, Level::Minutes);
        let begin = record::begin(first, &boot);
        let parts: Vec<&[u8]> = std::iter::once(&begin)
            .chain(&frames)
            .map(|part| &part[..])
            .collect();
        replace(&path, &parts)?;
        let mut segment = Segment::new(path, Level::Minutes);
        parts
            .iter()
            .filter_map(|part| Head::decode(part))
            .for_each(|head| segment.note(&head));
        let mut index = self.shared.index();
        index.remove(first)?;
        index.segments.insert(first, segment);
        Ok(())
    }
}

/// Puts a file of `parts` at `path`, whole or not at all.
fn replace(path: &Path, parts: &[&[u8]]) -> Result<(), HistoryError> {
    let new: PathBuf = {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{NEW}"));
        name.into()
    };
    let written = || -> io::Result<()> {
        let mut options = File::options();
        let mut file = options
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_data()?;
        fs::rename(&new, path)
    };
    written().map_err(|source| failed("write", path, source))
}

/// What was saved last, and what was recorded after it. What is damaged is left out.
fn restore(shared: &Shared, boot: &str) -> Result<(u64, Restored), HistoryError> {
    let path = shared.folder.join(STATE);
    let content = match fs::read(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(failed("read", &path, source)),
    };
    let saved = frame::scan(&content).flatten().next();
    let saved = saved.and_then(|(head, content)| {
        let (of, state) = record::unpack::<(String, AggregateState)>(&head, content)?;
        Some((head.number, of, state))
    });
    let (number, of, mut state) = saved.unwrap_or_default();
    if of != boot {
        state.flows.clear(); // their processes are gone, and their times were another boot's
    }
    let after: Vec<u64> = {
        let index = shared.index();
        let after = |segment: &Segment| segment.last > number && segment.level == Level::Full;
        let segments = index
            .segments
            .iter()
            .rev()
            .filter(|(_, segment)| after(segment));
        segments.map(|(first, _)| *first).collect()
    };
    let mut records = BTreeMap::new();
    for first in after {
        let content = shared.read(first)?;
        let mut of = String::new();
        for (head, content) in frame::scan(&content).flatten() {
            if head.kind == Kind::Begin {
                of = String::from_utf8_lossy(content).into_owned();
            } else if head.number > number
                && let Some(mut record) = record::unpack::<Observation>(&head, content)
            {
                if of != boot {
                    record.flows.clear();
                }
                records.insert(head.number, record);
            }
        }
        if records.len() >= CATCH_UP {
            break;
        }
    }
    let records = records.into_values().collect();
    Ok((number, Restored { state, records }))
}
