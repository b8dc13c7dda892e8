//! The history thread: records what capture observed, off the path of everything else.
//!
//! Capture hands observations over and never waits; what a full queue refuses is counted. A
//! history that cannot be opened or written is a warning, never a reason not to run.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing::{info, warn};

use crate::config::settings::HistorySettings;
use crate::decide::aggregate::caught_up;
use crate::facts::{AggregateState, HistoryStatus, Observation};
use crate::serve::protocol::{
    AtQuery, Code, Record, Recorded, RecordedSum, Records, RecordsQuery, Refusal, SumQuery,
};
use crate::store::history::{HistoryError, Reader, Writer};

/// Observations that wait to be written.
const QUEUE: usize = 16;
/// A sum that takes longer is cut; less than a request may take.
const SUM_WITHIN: Duration = Duration::from_secs(3);
/// Nice value of the thread (setpriority(2)): what it does can wait.
const PRIORITY: i32 = 5;
/// Tells one boot of the host from the next (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

enum Entry {
    Observed(Arc<Observation>),
    /// The totals after the observation before.
    Totals(Box<AggregateState>),
    Stop,
}

/// Hands observations to the history thread, and reads what was recorded.
#[derive(Clone)]
pub struct History {
    queue: Option<Sender<Entry>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    reader: OnceLock<Reader>,
    dropped: AtomicU64,
    failure: Mutex<Option<String>>,
}

/// Where the totals of the daemon before this one arrive.
pub type Totals = Receiver<AggregateState>;

impl History {
    /// A history that records nothing.
    pub fn off() -> Self {
        Self {
            queue: None,
            shared: Arc::default(),
        }
    }

    /// Starts the thread, which opens the history in the state directory `dir` and first of all
    /// sends the totals that are recorded there.
    pub fn start(
        dir: &Path,
        settings: HistorySettings,
    ) -> std::io::Result<(Self, Totals, std::thread::JoinHandle<()>)> {
        let (queue, entries) = bounded(QUEUE);
        let (totals, restored) = bounded(1);
        let history = Self {
            queue: Some(queue),
            shared: Arc::default(),
        };
        let (dir, shared) = (dir.to_owned(), Arc::clone(&history.shared));
        let thread = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || work(&dir, &settings, &entries, &totals, &shared))?;
        Ok((history, restored, thread))
    }

    /// Hands an observation over, and the totals after it when they are to be saved.
    pub fn offer(&self, observation: &Arc<Observation>, totals: Option<AggregateState>) {
        let Some(queue) = &self.queue else {
            return;
        };
        if queue
            .try_send(Entry::Observed(Arc::clone(observation)))
            .is_err()
        {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(totals) = totals {
            // What a full queue refuses is sent again in a minute; until then, more is read at a
            // start.
            let _ = queue.try_send(Entry::Totals(Box::new(totals)));
        }
    }

    /// Writes what waits, saves the totals, and ends the thread.
    pub fn finish(&self, totals: AggregateState) {
        if let Some(queue) = &self.queue {
            // A queue that stays full means a disk that no longer takes anything.
            let patience = Duration::from_secs(2);
            let _ = queue.send_timeout(Entry::Totals(Box::new(totals)), patience);
        }
        self.stop();
    }

    /// Ends the thread once it has written what waits; may be said again.
    pub fn stop(&self) {
        if let Some(queue) = &self.queue {
            let _ = queue.send_timeout(Entry::Stop, Duration::from_secs(2));
        }
    }

    fn reader(&self) -> Result<&Reader, Refusal> {
        self.shared.reader.get().ok_or_else(|| {
            let (message, remedy) = match &self.queue {
                None => ("nothing is recorded", "set record = true in [history]"),
                Some(_) => ("the history is not open", "see `shadowctl status`"),
            };
            Refusal::new(Code::NothingRecorded, message, remedy)
        })
    }

    /// What was observed at a moment.
    pub fn recorded_at(&self, query: AtQuery) -> Result<Recorded, Refusal> {
        let reader = self.reader()?;
        let found = reader.at(query.wall_ms).map_err(unreadable)?;
        let observation = found.ok_or_else(|| nothing(reader))?;
        Ok(Recorded { observation })
    }

    /// Records between two moments.
    pub fn records(&self, query: RecordsQuery) -> Result<Records, Refusal> {
        let reader = self.reader()?;
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let page = reader.page(query.from_ms, query.to_ms, query.after, limit);
        let page = page.map_err(unreadable)?;
        if page.records.is_empty() && query.after == 0 {
            return Err(nothing(reader));
        }
        let record = |(number, observation)| Record {
            number,
            observation,
        };
        Ok(Records {
            records: page.records.into_iter().map(record).collect(),
            more: page.more,
        })
    }

    /// The sum of what was observed between two moments.
    pub fn recorded_sum(&self, query: SumQuery) -> Result<RecordedSum, Refusal> {
        let reader = self.reader()?;
        let summed = reader.sum(query.from_ms, query.to_ms, SUM_WITHIN);
        let summed = summed.map_err(unreadable)?;
        if summed.records == 0 && !summed.cut {
            return Err(nothing(reader));
        }
        Ok(RecordedSum {
            observation: summed.sum,
            records: summed.records,
            from_ms: summed.from_ms,
            cut: summed.cut,
        })
    }

    /// Counts, bounds, and what went wrong.
    pub fn status(&self) -> HistoryStatus {
        let shared = &self.shared;
        let failure = shared
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        HistoryStatus {
            recording: self.queue.is_some() && failure.is_none(),
            dropped: shared.dropped.load(Ordering::Relaxed),
            failure: failure.clone(),
            ..shared.reader.get().map(Reader::status).unwrap_or_default()
        }
    }
}

fn nothing(reader: &Reader) -> Refusal {
    let shown = |wall_ms: i64| {
        let since = Duration::from_millis(u64::try_from(wall_ms).unwrap_or(0));
        humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
    };
    let remedy = match reader.range() {
        Some(range) => format!(
            "ask for a time between {} and {}",
            shown(range.oldest_ms),
            shown(range.newest_ms)
        ),
        None => "wait: nothing is recorded yet".to_owned(),
    };
    Refusal::new(
        Code::NothingRecorded,
        "nothing is recorded at that time",
        remedy,
    )
}

fn unreadable(error: HistoryError) -> Refusal {
    let why = format!(
        "the history cannot be read: {:#}",
        anyhow::Error::from(error)
    );
    Refusal::new(Code::Failed, why, "see `journalctl -u shadowd`")
}

impl Shared {
    /// Notes how a piece of work ended; a failure is logged when it is another than before.
    fn note<T>(&self, result: Result<T, HistoryError>) -> Option<T> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(value) => {
                if failure.take().is_some() {
                    info!("the history is written again");
                }
                Some(value)
            }
            Err(error) => {
                let cause = format!("{:#}", anyhow::Error::from(error));
                if failure.as_ref() != Some(&cause) {
                    warn!(cause, "history not written");
                }
                *failure = Some(cause);
                None
            }
        }
    }
}

fn work(
    dir: &Path,
    settings: &HistorySettings,
    entries: &Receiver<Entry>,
    totals: &Sender<AggregateState>,
    shared: &Shared,
) {
    if let Err(error) = rustix::process::setpriority_process(None, PRIORITY) {
        warn!(%error, "the history is written at ordinary priority");
    }
    // Without an id every start is another boot: flows are forgotten, totals of units are not.
    let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    let opened = shared.note(Writer::open(dir, settings, boot.trim()));
    let (mut writer, restored) = match opened {
        Some((writer, reader, restored)) => {
            let _ = shared.reader.set(reader);
            (Some(writer), restored)
        }
        None => Default::default(),
    };
    let _ = totals.send(caught_up(restored.state, &restored.records));
    drop(restored.records);
    while let Ok(entry) = entries.recv() {
        let Some(writer) = &mut writer else {
            if matches!(entry, Entry::Stop) {
                return;
            }
            shared.dropped.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        match entry {
            Entry::Stop => return,
            Entry::Observed(observation) => {
                let written = writer.append(&observation);
                drop(observation);
                if shared.note(written).is_none() {
                    shared.dropped.fetch_add(1, Ordering::Relaxed);
                } else if let Some(damages) = shared.note(writer.tend()) {
                    for damage in damages {
                        warn!("history: {damage} cannot be read and is skipped");
                    }
                }
            }
            Entry::Totals(state) => {
                shared.note(writer.save(&state));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::aggregate::Aggregator;
    use crate::facts::{Sample, SyscallCounts, SyscallDelta};

    struct Scratch(std::path::PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn settings() -> HistorySettings {
        HistorySettings {
            record: true,
            max_bytes: 16 << 20,
            max_age: Duration::from_secs(3_600),
            full_resolution: Duration::from_secs(600),
        }
    }

    fn sample(second: u64) -> Sample {
        Sample {
            at: crate::facts::BootTime::from_nanos(second * 1_000_000_000),
            wall_ms: i64::try_from(second * 1_000).expect("it is small"),
            interval: Duration::from_secs(1),
            cgroups: vec![(9, "/system.slice/nginx.service".to_owned())],
            syscalls: vec![SyscallDelta {
                pid: 5,
                cgroup: 9,
                number: 0,
                counts: SyscallCounts {
                    calls: 10,
                    ..SyscallCounts::default()
                },
            }],
            ..Sample::default()
        }
    }

    /// Runs a daemon's life of `seconds`; it ends as told. Returns the first and the last totals.
    fn live(dir: &Path, seconds: std::ops::Range<u64>, clean: bool) -> (u64, u64) {
        let (history, totals, thread) =
            History::start(dir, settings()).expect("a thread can be had");
        let mut aggregator = Aggregator::default();
        let state = totals.recv().expect("the totals of before arrive");
        let calls = |state: &AggregateState| {
            let units = state.units.values();
            units.map(|total| total.syscalls.calls).sum::<u64>()
        };
        let first = calls(&state);
        aggregator.restore(state);
        for second in seconds {
            let observation = Arc::new(aggregator.absorb(sample(second)));
            // Every third second the totals are saved; in between, the records tell.
            let totals = (second % 3 == 0).then(|| aggregator.export());
            history.offer(&observation, totals);
        }
        let last = aggregator.export();
        if clean {
            history.finish(last.clone());
        }
        let status = history.status();
        assert_eq!((status.dropped, status.failure), (0, None));
        drop(history);
        thread.join().expect("it does not panic");
        (first, calls(&last))
    }

    #[test]
    fn totals_never_go_back_over_restarts() {
        let name = format!("shadowd-run-history-{}", std::process::id());
        let dir = Scratch(std::env::temp_dir().join(name));
        assert_eq!(live(&dir.0, 1..5, true), (0, 40));
        assert_eq!(live(&dir.0, 5..10, false), (40, 90), "killed");
        assert_eq!(live(&dir.0, 10..12, true), (90, 110));
        assert_eq!(live(&dir.0, 12..12, true), (110, 110));
    }

    #[test]
    fn a_history_that_cannot_be_opened_is_a_warning() {
        let name = format!("shadowd-run-history-file-{}", std::process::id());
        let dir = Scratch(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&dir.0).expect("a folder can be made");
        std::fs::write(dir.0.join(crate::store::history::FOLDER), b"in the way").expect("written");
        let (history, totals, thread) =
            History::start(&dir.0, settings()).expect("a thread can be had");
        let state = totals.recv().expect("empty totals arrive all the same");
        assert_eq!(state, AggregateState::default());
        history.offer(&Arc::new(Observation::default()), None);
        history.stop();
        thread.join().expect("it does not panic");
        let status = history.status();
        assert!(!status.recording && status.dropped == 1, "{status:?}");
        let failure = status.failure.expect("it is told");
        assert!(
            failure.contains("history") && failure.contains("check"),
            "{failure}"
        );
        let refusal = history
            .recorded_at(AtQuery { wall_ms: 0 })
            .expect_err("there is nothing");
        assert_eq!(refusal.code, Code::NothingRecorded);
    }
}
