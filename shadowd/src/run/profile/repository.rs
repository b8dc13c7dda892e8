//! The central repository: a thread that talks to it, and what a keeper does with what it says.
//!
//! The thread does what it is handed, at most one thing for each group, and reports. It may hang on
//! a disk or a network without holding up the keepers, or the end of the daemon.

use std::io;

use tokio::sync::mpsc;
use tracing::info;

use super::keeper::Keeper;
use crate::config::settings::RepositorySettings;
use crate::decide::profile::repository::{Failure, Found, Note, Operation, Task};
use crate::facts::{BootTime, Epoch, EventKind, Listing, Name, Place, Signed, Version, VersionId};
use crate::store::repository::{Object, Opened, RepositoryError, RepositoryStore};

/// Jobs that wait, of all groups: a host has at most 16.
const JOBS: usize = 32;
/// Threads that wait for the disk.
const BLOCKING: usize = 4;
/// Nice value of the thread (setpriority(2)).
const PRIORITY: i32 = 10;
/// Letters of a reason that are shown.
const WHY_MAX: usize = 300;

/// What the thread is to do.
pub(super) struct Job {
    keeper: usize,
    token: u64,
    group: Name,
    work: Work,
}

enum Work {
    List {
        from: u64,
    },
    Put {
        place: Place,
        signed: Signed,
        replace: bool,
    },
    Get(Place),
}

/// How that ended.
pub(super) struct Report {
    /// Which keeper asked.
    pub keeper: usize,
    token: u64,
    end: Result<End, (Failure, String)>,
}

enum End {
    Listing(Listing),
    Put,
    Got(Place, Object),
}

/// Starts the thread, which ends when nobody has the sender any more.
///
/// # Errors
/// There is no thread to be had.
pub(super) fn start(
    settings: &RepositorySettings,
) -> io::Result<(mpsc::Sender<Job>, mpsc::Receiver<Report>)> {
    let (jobs, mut waiting) = mpsc::channel::<Job>(JOBS);
    let (reports, ended) = mpsc::channel(JOBS);
    let mut store = RepositoryStore::new(settings.place.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING)
        .build()?;
    let work = move || {
        let _ = rustix::process::setpriority_process(None, PRIORITY);
        runtime.block_on(async {
            while let Some(job) = waiting.recv().await {
                let opened = store.open();
                tokio::spawn(report(opened, job, reports.clone()));
            }
        });
        // What hangs is left behind.
        runtime.shutdown_background();
    };
    std::thread::Builder::new()
        .name("repository".to_owned())
        .spawn(work)?;
    Ok((jobs, ended))
}

async fn report(opened: Result<Opened, RepositoryError>, job: Job, reports: mpsc::Sender<Report>) {
    let Job {
        keeper,
        token,
        group,
        work,
    } = job;
    let end = match opened {
        Ok(opened) => carry_out(&opened, &group, work).await,
        Err(error) => Err(error),
    };
    let end = end.map_err(|error| {
        let failure = match error.is_silence() {
            true => Failure::Unreached,
            false => Failure::Refused,
        };
        (failure, in_words(&error))
    });
    let report = Report { keeper, token, end };
    // Nobody waits for it once the daemon ends.
    let _ = reports.send(report).await;
}

async fn carry_out(store: &Opened, group: &Name, work: Work) -> Result<End, RepositoryError> {
    Ok(match work {
        Work::List { from } => End::Listing(store.list(group, from).await?),
        Work::Put {
            place,
            signed,
            replace,
        } => {
            store.put(group, place, &signed, replace).await?;
            End::Put
        }
        Work::Get(place) => End::Got(place, store.get(group, place).await?),
    })
}

/// An error and its root, in one line that is not too long: what lies between repeats both.
fn in_words(error: &RepositoryError) -> String {
    let first = std::error::Error::source(error);
    let root = std::iter::successors(first, |error| error.source()).last();
    let text = match root {
        Some(root) => format!("{error}: {root}"),
        None => error.to_string(),
    };
    let plain = text.chars().map(|letter| match letter.is_control() {
        true => ' ',
        false => letter,
    });
    plain.take(WHY_MAX).collect()
}

impl Keeper {
    /// What is due is asked for; what has happened is told.
    pub(super) fn sync(&mut self, now: BootTime) {
        let (Some(repository), Some(jobs)) = (&mut self.repository, self.common.jobs.clone())
        else {
            return;
        };
        repository.on_timer(now);
        if let Some(Task { token, operation }) = repository.poll_action(now) {
            match self.work(operation) {
                Some(work) => {
                    let job = Job {
                        keeper: self.number,
                        token,
                        group: self.group.name.clone(),
                        work,
                    };
                    if jobs.try_send(job).is_err() {
                        let why = "its thread is busy, or does not run".to_owned();
                        self.failed(token, Failure::Unreached, why, now);
                    }
                }
                None => self.lost(token),
            }
        }
        self.tell_notes(now);
    }

    fn work(&self, operation: Operation) -> Option<Work> {
        Some(match operation {
            Operation::List { from } => Work::List { from },
            Operation::Put { place, replace } => Work::Put {
                place,
                signed: self.stored(&place.id)?.0,
                replace,
            },
            Operation::Get(place) => Work::Get(place),
        })
    }

    /// The thread has done something. What it brings is believed as little as a letter.
    pub fn on_report(&mut self, report: Report, now: BootTime) {
        let token = report.token;
        match report.end {
            Ok(End::Listing(listing)) => {
                if let Some(repository) = &mut self.repository {
                    repository.on_listing(token, &listing, now);
                }
            }
            Ok(End::Put) => {
                if let Some(repository) = &mut self.repository {
                    repository.on_put_done(token, now);
                }
            }
            Ok(End::Got(place, object)) => self.got(token, place, object, now),
            Err((failure, why)) => self.failed(token, failure, why, now),
        }
        // The next at once: who lost everything has much to fetch.
        self.sync(now);
    }

    fn got(&mut self, token: u64, place: Place, object: Object, now: BootTime) {
        let found = match object {
            Object::Gone => Found::Gone,
            Object::Bad(why) => Found::Bad(why.to_owned()),
            Object::Signed(signed) => match self.here(place) {
                Some(ours) if ours == signed => Found::Good,
                Some(_) => Found::Bad("it bears another signature than here".to_owned()),
                None => match self.placed(&signed, place, now) {
                    Err(why) => Found::Bad(why),
                    Ok(version) => match self.take(&signed, &version, now) {
                        Err(why) => return self.failed(token, Failure::Refused, why, now),
                        Ok(()) => Found::Good,
                    },
                },
            },
        };
        if let Some(repository) = &mut self.repository {
            repository.on_got(token, found, now);
        }
    }

    /// What this host has of a version: an author that is no member any more was one when it came.
    fn here(&self, place: Place) -> Option<Signed> {
        let repository = self.repository.as_ref();
        let known = repository.is_some_and(|repository| repository.has(place));
        known
            .then(|| self.stored(&place.id))?
            .map(|(signed, _)| signed)
    }

    /// A member's version of this group, in its own place.
    fn placed(&mut self, signed: &Signed, place: Place, now: BootTime) -> Result<Version, String> {
        let version = self.believed(signed)?;
        if version.number != place.number {
            return Err(format!("it is version {}", version.number));
        }
        self.in_line(version.number, self.is_owners(version.author), now)?;
        Ok(version)
    }

    fn take(&mut self, signed: &Signed, version: &Version, now: BootTime) -> Result<(), String> {
        let id = self.keep(signed, version, now)?;
        let (group, number) = (&self.group.name, version.number);
        info!(%group, number, version = %id.short(), "version from the repository");
        if let Some(repository) = &mut self.repository {
            repository.on_taken();
        }
        Ok(())
    }

    fn failed(&mut self, token: u64, failure: Failure, why: String, now: BootTime) {
        if let Some(repository) = &mut self.repository {
            repository.on_failure(token, failure, why, now);
        }
    }

    fn lost(&mut self, token: u64) {
        if let Some(repository) = &mut self.repository {
            repository.on_lost(token);
        }
    }

    /// A version is not whole any more: it is wanted again, from whoever has it.
    pub(super) fn damaged(&mut self, id: VersionId, now: BootTime) {
        self.replica.on_damage(id, now);
        if let Some(repository) = &mut self.repository {
            repository.on_need(id, now);
        }
    }

    /// The golden version is wanted however old it is.
    pub(super) fn want_golden(&mut self, now: BootTime) {
        let current = self.current.as_ref();
        let golden = current.and_then(|(_, version)| version.golden);
        let missing = golden.filter(|id| self.stored(id).is_none());
        if let (Some(id), Some(repository)) = (missing, &mut self.repository) {
            repository.on_need(id, now);
        }
    }

    fn tell_notes(&mut self, now: BootTime) {
        let Some(repository) = &mut self.repository else {
            return;
        };
        let url = repository.status().url;
        let group = &self.group.name;
        while let Some(note) = repository.poll_note() {
            let named = |place: &Place| format!("version {}, {}", place.number, place.id.short());
            let detail = match &note {
                Note::Reached => format!("{url} is reached"),
                Note::Unreached(why) => format!("{url} is not reached: {why}"),
                Note::Refused(why) => format!("{url}: {why}"),
                Note::Bad(place, why) => format!("{url}: {} is refused: {why}", named(place)),
                Note::Mended(place) => {
                    format!("{url}: {} was written again from here", named(place))
                }
            };
            let of = Some((group, Epoch::NONE));
            let recorder = &self.common.recorder;
            recorder.note(EventKind::Repository, of, now, detail);
        }
    }
}

#[cfg(test)]
mod tests;
