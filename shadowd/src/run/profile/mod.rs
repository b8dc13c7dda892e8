//! The thread of the profiles: learns from what is captured, keeps versions with the other members,
//! compares this host with them. Nothing waits for it, and it waits for disks, tools and peers.

mod answers;
mod archive;
mod batches;
#[cfg(test)]
mod bench;
mod beside;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
pub(crate) mod fuzz;
mod here;
mod keeper;
mod letter;
#[cfg(test)]
mod line_tests;
mod look;
mod programs;
#[cfg(test)]
mod proof_tests;
mod provisioner;
mod repository;
mod restore;
mod versions;
mod words;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error};

use self::keeper::{Common, Keeper};
use self::letter::Letter;
use self::repository::{Job, Report};
use super::board::Board;
use super::failover::Input;
use super::parts::ended;
use super::record::Recorder;
use crate::config::settings::Settings;
use crate::facts::{
    BootTime, Name, Observation, ProfileAccuracy, ProfileStatus, Readiness, ReadinessSummary,
    RepositoryStatus, VersionId,
};
use crate::link::{Identity, Letter as Received, Post};
use crate::observe::sys::boot_time;
use crate::serve::protocol::{Code, GroupReady, Ready, Refusal};
use crate::serve::{Answers as _, ProfileAnswer, ProfileQuestion};
use crate::store::profiles::ProfileStore;

/// The thread turns this often.
const TURN: Duration = Duration::from_millis(500);
/// The end of the daemon waits for it so long.
const END_WITHIN: Duration = Duration::from_secs(2);
/// Questions that wait.
const QUESTIONS: usize = 16;
/// A repository that was not reached for so long is told of in `status`.
const SILENT_FOR: Duration = Duration::from_secs(600);
/// Nice value of the thread (setpriority(2)): whatever it does can wait.
const PRIORITY: i32 = 10;

/// A question, and where its answer goes.
type Asked = (
    Name,
    ProfileQuestion,
    oneshot::Sender<Result<ProfileAnswer, Refusal>>,
);

/// What is known of a group's profile.
#[derive(Clone, Debug)]
struct View {
    group: Name,
    owner: Option<Name>,
    owned_here: bool,
    version: Option<(u64, VersionId)>,
    readiness: Option<(BootTime, Readiness)>,
    repository: Option<RepositoryStatus>,
    accuracy: ProfileAccuracy,
}

/// What others see of the thread.
pub struct Profiles {
    views: RwLock<Vec<View>>,
    questions: mpsc::Sender<Asked>,
    /// Until the thread takes them.
    asked: Mutex<Option<mpsc::Receiver<Asked>>>,
}

impl Profiles {
    /// Before the thread runs.
    pub fn new() -> Arc<Self> {
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let profiles = Self {
            views: RwLock::default(),
            questions,
            asked: Mutex::new(Some(asked)),
        };
        Arc::new(profiles)
    }

    fn views(&self) -> Vec<View> {
        let views = self.views.read().unwrap_or_else(PoisonError::into_inner);
        views.clone()
    }

    /// Whether this host could take its groups over.
    pub fn ready(&self) -> Ready {
        let groups = self.views().into_iter().map(|view| {
            let (at, readiness) = view.readiness.unzip();
            GroupReady {
                group: view.group,
                owner: view.owner,
                owned_here: view.owned_here,
                version: view.version,
                at,
                score: readiness.as_ref().map_or(0.0, Readiness::score),
                readiness,
            }
        });
        Ready {
            now: boot_time(),
            groups: groups.collect(),
        }
    }

    /// The same in short.
    pub fn status(&self) -> Vec<ProfileStatus> {
        let status = self.views().into_iter().map(|view| ProfileStatus {
            group: view.group,
            version: view.version,
            readiness: view
                .readiness
                .map(|(at, readiness)| in_short(at, &readiness)),
            repository: view.repository,
            accuracy: view.accuracy,
        });
        status.collect()
    }

    /// What an operator should know: the central repository was not reached for long.
    pub fn warnings(&self) -> Vec<String> {
        let now = boot_time();
        let silent = self.views().into_iter().filter_map(|view| {
            let repository = view.repository?;
            let silent = now.since(repository.silent_since?);
            let why = repository.error.as_deref().unwrap_or("nobody answers");
            (silent >= SILENT_FOR).then(|| {
                let (group, url) = (view.group, &repository.url);
                let minutes = silent.as_secs() / 60;
                format!("group {group}: profiles do not reach {url} for {minutes} min: {why}")
            })
        });
        silent.collect()
    }

    /// Asks the thread.
    ///
    /// # Errors
    /// Its refusal, or that it is busy or has ended.
    pub async fn ask(
        &self,
        group: Name,
        question: ProfileQuestion,
    ) -> Result<ProfileAnswer, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.questions
            .try_send((group, question, reply))
            .map_err(|_| {
                let message = "the thread of the profiles is busy, or does not run";
                Refusal::new(
                    Code::Busy,
                    message,
                    "try again; see `journalctl -u shadowd`",
                )
            })?;
        answer.await.unwrap_or_else(|_| {
            let message = "the daemon is stopping";
            Err(Refusal::new(
                Code::Stopping,
                message,
                "try again when it runs",
            ))
        })
    }
}

fn in_short(at: BootTime, readiness: &Readiness) -> ReadinessSummary {
    use crate::facts::Verdict::{CannotTell, NotReady, Ready};
    let worst = readiness.items.iter().filter(|item| item.verdict != Ready);
    ReadinessSummary {
        at,
        score: readiness.score(),
        ready: readiness.count(Ready),
        not_ready: readiness.count(NotReady),
        unknown: readiness.count(CannotTell),
        worst: worst.take(ReadinessSummary::WORST).cloned().collect(),
    }
}

/// The thread, as who starts it sees it.
pub struct Profiling {
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Profiling {
    /// Lets the thread end and waits for what it stores, but not for long: what it may hang on, a
    /// disk or a peer, is nothing that an end of the daemon waits for.
    pub async fn end(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            ended(&thread, END_WITHIN).await;
        }
    }
}

/// What the thread works with.
pub struct ProfileStart {
    /// The configuration.
    pub settings: Settings,
    /// This host's key: versions are signed.
    pub identity: Identity,
    /// The record.
    pub recorder: Recorder,
    /// The state, for what is observed and who owns.
    pub board: Arc<Board>,
    /// The way to the other members.
    pub post: Arc<Post>,
    /// What the others sent.
    pub letters: mpsc::Receiver<Received>,
    /// The way into the failover loop, which has to know whether this host is ready.
    pub inputs: mpsc::Sender<Input>,
    /// Where it is shown, and asked.
    pub profiles: Arc<Profiles>,
}

impl ProfileStart {
    /// Starts the thread.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(self) -> io::Result<Profiling> {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("profile".to_owned())
            .spawn(move || self.work(stopped))?;
        Ok(Profiling {
            running: Some((stop, thread)),
        })
    }

    fn work(self, stopped: oneshot::Receiver<()>) {
        let _ = rustix::process::setpriority_process(None, PRIORITY);
        let store = match open(&self.settings.host.state_dir) {
            Ok(store) => store,
            Err(refused) => {
                error!(error = %refused, "profiles are neither learned nor compared");
                let sentence = format!("profiles are neither learned nor compared: {refused}");
                return self.board.note(sentence);
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.run(store, stopped)),
            Err(error) => error!(%error, "profiles are neither learned nor compared"),
        }
    }

    async fn run(mut self, store: ProfileStore, stopped: oneshot::Receiver<()>) {
        let (jobs, mut reports) = self.central();
        let common = Arc::new(Common::new(
            self.settings.clone(),
            self.identity.clone(),
            self.recorder.clone(),
            (Arc::clone(&self.post), self.inputs.clone()),
            jobs,
            store,
        ));
        let groups = 0..self.settings.groups.len();
        let now = boot_time();
        let keepers = groups.map(|number| Keeper::new(Arc::clone(&common), number, now));
        let mut thread = Thread {
            keepers: keepers.collect(),
            seen: Arc::default(),
        };
        let asked = self
            .profiles
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut asked) = asked else { return };
        let mut turns = interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                _ = turns.tick() => thread.turn(&self.board).await,
                Some(letter) = self.letters.recv() => thread.take(&letter),
                Some(report) = reports.recv() => thread.report(report),
                Some((group, question, reply)) = asked.recv() => {
                    let _ = reply.send(thread.answer(&group, question));
                }
            }
            thread.show(&self.profiles);
        }
        for keeper in &mut thread.keepers {
            keeper.save();
        }
    }

    /// The way to the thread of the central repository, and what it reports; a host that only
    /// witnesses needs none.
    fn central(&self) -> (Option<mpsc::Sender<Job>>, mpsc::Receiver<Report>) {
        let nothing = || (None, mpsc::channel(1).1);
        let settings = self.settings.repository.as_ref();
        let Some(settings) = settings.filter(|_| !self.settings.groups.is_empty()) else {
            return nothing();
        };
        match repository::start(settings) {
            Ok((jobs, reports)) => (Some(jobs), reports),
            Err(error) => {
                error!(%error, "the repository of profiles is not used");
                let sentence = format!("the repository of profiles is not used: {error}");
                self.board.note(sentence);
                nothing()
            }
        }
    }
}

fn open(state_dir: &Path) -> Result<ProfileStore, String> {
    ProfileStore::open(state_dir).map_err(|error| {
        let sources =
            std::iter::successors(std::error::Error::source(&error), |error| error.source());
        sources.fold(error.to_string(), |text, source| {
            format!("{text}: {source}")
        })
    })
}

struct Thread {
    keepers: Vec<Keeper>,
    seen: Arc<Observation>,
}

impl Thread {
    async fn turn(&mut self, board: &Board) {
        let owners: BTreeMap<Name, Option<Name>> = board.owners().into_iter().collect();
        let observation = board.observation();
        let is_new = observation.at != self.seen.at;
        for keeper in &mut self.keepers {
            // The one before may have taken long.
            let now = boot_time();
            keeper.on_owner(owners.get(keeper.name()).cloned().flatten());
            if is_new {
                keeper.on_observation(&observation, local_second(&observation), now);
            }
            keeper.on_turn(&observation, now).await;
        }
        self.seen = observation;
    }

    /// What is no letter, or says what it may not, changes nothing.
    fn take(&mut self, received: &Received) {
        let Received { from, bytes } = received;
        let taken = Letter::from_bytes(bytes).map_err(|error| error.to_string());
        let taken = taken.and_then(|letter| {
            let keeper = self
                .keepers
                .iter_mut()
                .find(|keeper| *keeper.name() == letter.group);
            let keeper = keeper.ok_or_else(|| format!("no member of group {}", letter.group))?;
            keeper.on_letter(from, letter.body, boot_time())
        });
        if let Err(why) = taken {
            debug!(%from, why, "a letter was refused");
        }
    }

    fn report(&mut self, report: Report) {
        if let Some(keeper) = self.keepers.get_mut(report.keeper) {
            keeper.on_report(report, boot_time());
        }
    }

    fn answer(
        &mut self,
        group: &Name,
        question: ProfileQuestion,
    ) -> Result<ProfileAnswer, Refusal> {
        let keeper = self
            .keepers
            .iter_mut()
            .find(|keeper| keeper.name() == group);
        let keeper = keeper.ok_or_else(|| {
            let message = format!("this host is no member of group {group}");
            Refusal::new(
                Code::UnknownGroup,
                message,
                "see `shadowctl status` for its groups",
            )
        })?;
        keeper.answer(question, boot_time())
    }

    fn show(&self, profiles: &Profiles) {
        let views = self.keepers.iter().map(Keeper::view).collect();
        *profiles
            .views
            .write()
            .unwrap_or_else(PoisonError::into_inner) = views;
    }
}

/// Carries out the acts planned in `dir`; systemd starts this.
///
/// # Errors
/// The plan cannot be read, or what is done not be recorded.
pub fn provision(dir: &Path) -> anyhow::Result<()> {
    Ok(crate::act::provision::provision(dir)?)
}

/// Undoes the acts done in `dir`; systemd starts this.
///
/// # Errors
/// What was done cannot be read, or what is undone not be recorded.
pub fn undo(dir: &Path) -> anyhow::Result<()> {
    Ok(crate::act::provision::undo(dir)?)
}

/// The end of an observation in local time, seconds since the Unix epoch: habits are of people.
fn local_second(observation: &Observation) -> u64 {
    local(observation.wall_ms)
}

/// A moment (ms since 1970) in local time, seconds since the Unix epoch.
fn local(wall_ms: i64) -> u64 {
    let zone = jiff::tz::TimeZone::system();
    let Ok(moment) = jiff::Timestamp::from_millisecond(wall_ms) else {
        return 0;
    };
    let offset = i64::from(zone.to_offset(moment).seconds());
    u64::try_from(wall_ms / 1_000 + offset).unwrap_or_default()
}

#[cfg(test)]
mod tests;
