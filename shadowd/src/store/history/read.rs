//! Reads the history: what was at a time, what was between two, and sums over many intervals.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame::{self, Head, Kind};
use super::index::{Segment, Shared};
use super::merge::Sum;
use super::record::unpack;
use super::{HistoryError, Range};
use crate::facts::{HistoryStatus, Observation};

/// So much after its end, a record still stands for a moment that nothing covers, ms: the next one
/// is not written yet, or came late.
const NEAR_MS: i64 = 2_000;

/// Records of a page are not collected beyond this, unpacked bytes.
const PAGE_BYTES: usize = 4 << 20;

/// One who reads; cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// Some of the records between two times, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The records, each with its number.
    pub records: Vec<(u64, Observation)>,
    /// Whether there are more after these.
    pub more: bool,
}

/// The sum of the intervals between two times.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summed {
    /// All of them as one interval.
    pub sum: Observation,
    /// How many there were.
    pub records: u64,
    /// Begin of the first one, ms since 1970; later than asked for when reading took too long.
    pub from_ms: i64,
    /// Whether reading took too long, so that the oldest are missing.
    pub cut: bool,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// From when to when something is recorded; none when nothing is.
    pub fn range(&self) -> Option<Range> {
        self.shared.index().range()
    }

    /// Counts and bounds; whether recording goes on and what it dropped is for the caller to add.
    pub fn status(&self) -> HistoryStatus {
        let index = self.shared.index();
        let range = index.range();
        HistoryStatus {
            records: index.segments.values().map(|segment| segment.records).sum(),
            corrupt: index.broken(),
            bytes: index.bytes(),
            max_bytes: self.shared.max_bytes,
            oldest_ms: range.map(|range| range.oldest_ms),
            newest_ms: range.map(|range| range.newest_ms),
            ..HistoryStatus::default()
        }
    }

    /// The observation whose interval holds the moment `wall_ms`, or that ended shortly before it.
    /// None when there is none.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn at(&self, wall_ms: i64) -> Result<Option<Observation>, HistoryError> {
        let mut best: Option<(Fit, Observation)> = None;
        for first in self.segments(wall_ms.saturating_sub(NEAR_MS + 60_000), wall_ms) {
            let content = self.shared.read(first)?;
            let mut found: Option<(Fit, Head, &[u8])> = None;
            for (head, content) in records(&content) {
                if let Some(fit) = Fit::of(&head, wall_ms)
                    && found.as_ref().is_none_or(|(other, ..)| fit > *other)
                {
                    found = Some((fit, head, content));
                }
            }
            if let Some((fit, head, content)) = found
                && best.as_ref().is_none_or(|(other, _)| fit > *other)
                && let Some(observation) = unpack(&head, content)
            {
                best = Some((fit, observation));
            }
        }
        Ok(best.map(|(_, observation)| observation))
    }

    /// Up to `limit` of the records that ended between `from` and `to` (ms since 1970) and have a
    /// larger number than `after`.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn page(&self, from: i64, to: i64, after: u64, limit: usize) -> Result<Page, HistoryError> {
        let mut page = Page::default();
        let mut unpacked = 0;
        for first in self.segments(from, to) {
            if self
                .shared
                .index()
                .segments
                .get(&first)
                .is_some_and(|segment| segment.last <= after)
            {
                continue;
            }
            let content = self.shared.read(first)?;
            for (head, content) in records(&content) {
                if head.number <= after || head.wall_ms < from || head.wall_ms > to {
                    continue;
                }
                if page.records.len() >= limit.max(1) || unpacked > PAGE_BYTES {
                    page.more = true;
                    return Ok(page);
                }
                if let Some(observation) = unpack(&head, content) {
                    page.records.push((head.number, observation));
                    unpacked += head.unpacked;
                }
            }
        }
        Ok(page)
    }

    /// The sum of the intervals that ended between `from` and `to` (ms since 1970), the newest
    /// first, for at most `patience`.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn sum(&self, from: i64, to: i64, patience: Duration) -> Result<Summed, HistoryError> {
        let end = Instant::now() + patience;
        let mut summed = Summed::default();
        let mut segments = self.segments(from, to);
        segments.reverse();
        let mut sum = Sum::default();
        for first in segments {
            let content = self.shared.read(first)?;
            let mut frames: Vec<(Head, &[u8])> = records(&content).collect();
            frames.reverse();
            for (head, content) in frames {
                if head.wall_ms < from || head.wall_ms > to {
                    continue;
                }
                if Instant::now() > end {
                    summed.cut = true;
                    summed.sum = sum.observation();
                    return Ok(summed);
                }
                if let Some(observation) = unpack::<Observation>(&head, content) {
                    sum.add(&observation);
                    summed.records += 1;
                    summed.from_ms = head.begin_ms();
                }
            }
        }
        summed.sum = sum.observation();
        Ok(summed)
    }

    /// The segments that may hold something of `from..=to`, oldest first.
    fn segments(&self, from: i64, to: i64) -> Vec<u64> {
        let index = self.shared.index();
        let touched =
            |(first, segment): (&u64, &Segment)| segment.touches(from, to).then_some(*first);
        index.segments.iter().filter_map(touched).collect()
    }
}

/// How well a record tells of a moment: those that hold it are better than those before it, the
/// later better than the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    holds: bool,
    end: i64,
    number: u64,
}

impl Fit {
    fn of(head: &Head, wall_ms: i64) -> Option<Self> {
        let holds = head.begin_ms() < wall_ms && wall_ms <= head.wall_ms;
        let length = head.wall_ms.saturating_sub(head.begin_ms());
        let late = wall_ms.saturating_sub(head.wall_ms);
        let is_near = late >= 0 && late <= length.saturating_add(NEAR_MS);
        (holds || is_near).then_some(Self {
            holds,
            end: head.wall_ms,
            number: head.number,
        })
    }
}

fn records(content: &[u8]) -> impl Iterator<Item = (Head, &[u8])> {
    let frames = frame::scan(content).flatten();
    frames.filter(|(head, _)| head.kind == Kind::Record)
}
