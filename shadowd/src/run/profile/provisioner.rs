//! Makes this host ready, as far as its policy goes: fetches contents, has systemd run the acts,
//! tells what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::warn;

use super::batches::{Batches, told};
use crate::act::hooks::{End, Hooks, Run};
use crate::act::provision::{Allowed, Entry, journal};
use crate::config::pattern::Glob;
use crate::config::settings::{CommandSettings, ProfileSettings};
use crate::decide::profile::hot::Pace;
use crate::decide::profile::provision::{BATCH_BYTES, contents, plan};
use crate::facts::{Act, ActKind, BootTime, Name, Readiness, ValueHash};
use crate::run::drill::program;

/// A batch is ended after so long: packages have to be fetched and configured.
const WITHIN: Duration = Duration::from_secs(900);
/// Contents that do not come are waited for so long.
const CONTENTS_WITHIN: Duration = Duration::from_secs(20);
/// They are asked for again after this.
const ASK_EVERY: Duration = Duration::from_secs(4);
/// Contents that are asked for at once.
const ASKED_MAX: usize = 4;
/// Between two batches, and between two tries of one that failed: the first, doubling, to the last.
const REST: Duration = Duration::from_secs(5);
const RETRY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));
/// The same while an operator waits. No closer: each try is a batch, and only so many are kept.
const ORDERED_RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// What a turn came to.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing to do, or something is under way.
    Wait,
    /// These contents are wanted from the other members, who were asked so often before.
    Ask(Vec<(String, ValueHash)>, u32),
    /// A batch has ended: a sentence for each act.
    Done(Vec<String>),
}

/// One group's provisioner.
pub(super) struct Provisioner {
    group: Name,
    /// Where batches are kept.
    pub batches: Batches,
    hooks: Arc<Hooks>,
    gathering: Option<Gathering>,
    running: Option<Running>,
    next_at: BootTime,
    retry: Duration,
    /// An operator asked for what is done: that it is held does not matter.
    ordered: bool,
    /// Contents that the last batch did without: nobody sent them.
    lost: BTreeSet<ValueHash>,
    /// When files are read into memory again.
    pace: Pace,
    /// The last batch: one that has to be done again has changed nothing.
    last: Vec<Act>,
}

/// A batch that systemd carries out, or takes back.
struct Running {
    dir: PathBuf,
    what: Work,
    /// Lines of its journal that were there before.
    known: usize,
    task: JoinHandle<Result<End, String>>,
}

/// What is done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Do,
    /// The same as before, which came to nothing.
    DoAgain,
    Undo,
}

/// A batch whose contents are not all here.
struct Gathering {
    acts: Vec<Act>,
    allowed: Allowed,
    wanted: BTreeSet<(String, ValueHash)>,
    found: BTreeMap<ValueHash, Vec<u8>>,
    /// Those that were asked for last.
    asked: BTreeSet<ValueHash>,
    until: BootTime,
    ask_at: BootTime,
    /// How often was asked.
    tries: u32,
}

impl Gathering {
    /// A version may say of its contents that they are shorter than they are.
    fn has_room(&self, more: usize) -> bool {
        let held: usize = self.found.values().map(Vec::len).sum();
        held == 0 || held.saturating_add(more) as u64 <= BATCH_BYTES
    }
}

impl Provisioner {
    pub fn new(group: Name, state_dir: &Path, now: BootTime) -> Self {
        Self {
            batches: Batches::new(&group, state_dir),
            group,
            hooks: Arc::default(),
            gathering: None,
            running: None,
            next_at: now,
            retry: RETRY.0,
            ordered: false,
            lost: BTreeSet::new(),
            pace: Pace::default(),
            last: Vec::new(),
        }
    }

    /// From now on what is to be done was asked for by an operator, or not any more. What was being
    /// gathered for the one is not done for the other.
    pub fn by_order(&mut self, ordered: bool, now: BootTime) {
        self.ordered = ordered;
        self.gathering = None;
        self.last.clear();
        self.lost.clear();
        self.next_at = now;
        self.retry = self.retries().0;
    }

    const fn retries(&self) -> (Duration, Duration) {
        match self.ordered {
            true => ORDERED_RETRY,
            false => RETRY,
        }
    }

    /// Whether acts are being done or undone.
    pub const fn is_at_work(&self) -> bool {
        self.running.is_some()
    }

    /// Contents that nobody sent.
    pub const fn lost(&self) -> &BTreeSet<ValueHash> {
        &self.lost
    }

    /// Contents that are gathered and not here yet.
    pub fn missing(&self) -> BTreeSet<(String, ValueHash)> {
        let gathering = self.gathering.iter();
        let missing = gathering.flat_map(|gathering| {
            let wanted = gathering.wanted.iter();
            wanted.filter(move |(_, hash)| !gathering.found.contains_key(hash))
        });
        missing.cloned().collect()
    }

    /// A content came. One that nobody asked for is dropped.
    pub fn on_content(&mut self, bytes: Vec<u8>) {
        let hash = ValueHash::from(blake3::hash(&bytes));
        if let Some(gathering) = &mut self.gathering
            && gathering.has_room(bytes.len())
            && gathering.wanted.iter().any(|(_, wanted)| *wanted == hash)
        {
            gathering.found.insert(hash, bytes);
            // When all that was asked for is here, the next ones are asked for at once.
            let mut asked = gathering.asked.iter();
            if asked.all(|hash| gathering.found.contains_key(hash)) {
                gathering.ask_at = BootTime::default();
            }
        }
    }

    /// Goes on; `readiness` is what this host lacks, `is_member` knows the group's units.
    pub async fn on_turn(
        &mut self,
        readiness: Option<&Readiness>,
        (rules, is_member): (&ProfileSettings, &dyn Fn(&str) -> bool),
        now: BootTime,
    ) -> Step {
        if let Some(running) = &self.running {
            return match running.task.is_finished() {
                true => self.finish(now).await,
                false => Step::Wait,
            };
        }
        let gathering = self.gathering.take();
        // A host that was promoted meanwhile is left as it is.
        let Some(readiness) = readiness else {
            return Step::Wait;
        };
        if let Some(gathering) = gathering {
            return self.gather(gathering, now);
        }
        if now < self.next_at || (self.batches.is_held() && !self.ordered) {
            return Step::Wait;
        }
        let mut acts = plan(readiness, rules, is_member);
        if !self.pace.is_due(now) {
            acts.retain(|act| act.kind() != ActKind::Cache);
        }
        if acts.is_empty() {
            return Step::Wait;
        }
        let gathering = Gathering {
            wanted: contents(&acts),
            acts,
            allowed: allowed(rules),
            found: BTreeMap::new(),
            asked: BTreeSet::new(),
            until: now.after(CONTENTS_WITHIN),
            ask_at: now,
            tries: 0,
        };
        self.gather(gathering, now)
    }

    fn gather(&mut self, mut gathering: Gathering, now: BootTime) -> Step {
        let missing = gathering.wanted.iter();
        let missing = missing.filter(|(_, hash)| !gathering.found.contains_key(hash));
        let missing: Vec<(String, ValueHash)> = missing.take(ASKED_MAX).cloned().collect();
        if missing.is_empty() || now >= gathering.until {
            return self.begin(gathering, now);
        }
        let (due, tries) = (now >= gathering.ask_at, gathering.tries);
        if due {
            gathering.ask_at = now.after(ASK_EVERY);
            gathering.tries = tries.saturating_add(1);
            gathering.asked = missing.iter().map(|(_, hash)| *hash).collect();
        }
        self.gathering = Some(gathering);
        match due {
            true => Step::Ask(missing, tries),
            false => Step::Wait,
        }
    }

    fn begin(&mut self, gathering: Gathering, now: BootTime) -> Step {
        let Gathering {
            acts,
            allowed,
            found,
            wanted,
            ..
        } = gathering;
        let lost = wanted.into_iter().map(|(_, hash)| hash);
        self.lost = lost.filter(|hash| !found.contains_key(hash)).collect();
        let has_content = |act: &Act| {
            let needed = contents(std::slice::from_ref(act));
            needed.iter().all(|(_, hash)| found.contains_key(hash))
        };
        let acts: Vec<Act> = acts.into_iter().filter(has_content).collect();
        if acts.is_empty() {
            self.fall_back(now);
            return Step::Wait;
        }
        let dir = match self.batches.write(&acts, &allowed, &found) {
            Ok(dir) => dir,
            Err(error) => {
                warn!(group = %self.group, %error, "a batch of acts cannot be written");
                self.fall_back(now);
                return Step::Wait;
            }
        };
        if acts.iter().any(|act| act.kind() == ActKind::Cache) {
            self.pace.read(now);
        }
        let again = acts == self.last;
        self.last = acts;
        self.start(dir, if again { Work::DoAgain } else { Work::Do });
        Step::Wait
    }

    fn start(&mut self, dir: PathBuf, what: Work) {
        let (hooks, group, at) = (Arc::clone(&self.hooks), self.group.clone(), dir.clone());
        let known = journal(&dir).map_or(0, |entries| entries.len());
        let task = tokio::spawn(async move { run(&hooks, &group, &at, what).await });
        self.running = Some(Running {
            dir,
            what,
            known,
            task,
        });
    }

    /// Takes a batch back, and does nothing more until [`Batches::resume`].
    ///
    /// # Errors
    /// There is no such batch, or another is at work: in words.
    pub fn undo(&mut self, number: u64) -> Result<(), String> {
        if self.running.is_some() {
            return Err("other acts are under way".to_owned());
        }
        let numbers = self.batches.numbers().map_err(|error| error.to_string())?;
        if !numbers.contains(&number) {
            return Err(format!("there is no batch {number}"));
        }
        self.batches.hold().map_err(|error| error.to_string())?;
        self.gathering = None;
        self.start(self.batches.dir(number), Work::Undo);
        Ok(())
    }

    fn fall_back(&mut self, now: BootTime) {
        self.next_at = now.after(self.retry);
        self.retry = (self.retry * 2).min(self.retries().1);
    }

    /// What came of the batch: in words, and when the next one may begin.
    async fn finish(&mut self, now: BootTime) -> Step {
        let Some(running) = self.running.take() else {
            return Step::Wait;
        };
        let Running {
            dir, what, known, ..
        } = running;
        let end = running
            .task
            .await
            .unwrap_or_else(|error| Err(error.to_string()));
        let entries = journal(&dir).unwrap_or_default();
        let mut told = told(&entries, known);
        let failed = !matches!(end, Ok(End::Exited(0)))
            || entries.iter().any(|entry| {
                matches!(
                    entry,
                    Entry::End {
                        failed: Some(_),
                        ..
                    }
                )
            });
        match end {
            Ok(End::Exited(0)) => {}
            Ok(end) => told.push(format!(
                "the acts in {} did not end well: {end}",
                dir.display()
            )),
            Err(why) => told.push(format!(
                "the acts in {} were not begun: {why}",
                dir.display()
            )),
        }
        if failed && what == Work::Do || what == Work::DoAgain {
            self.fall_back(now);
        } else {
            self.retry = self.retries().0;
            self.next_at = now.after(REST);
        }
        Step::Done(told)
    }
}

/// Where this host lets contents come to.
fn allowed(rules: &ProfileSettings) -> Allowed {
    let patterns = |globs: &[Glob]| globs.iter().map(|glob| glob.as_str().to_owned()).collect();
    Allowed {
        replicate: patterns(&rules.replicate),
        secret: patterns(&rules.secret),
    }
}

async fn run(hooks: &Hooks, group: &Name, dir: &Path, what: Work) -> Result<End, String> {
    let dir = dir.to_str().ok_or("the state directory is not UTF-8")?;
    let option = match what {
        Work::Do | Work::DoAgain => "--provision",
        Work::Undo => "--provision-undo",
    };
    let command = CommandSettings {
        command: vec![program()?, option.to_owned(), dir.to_owned()],
        user: None,
        deadline: WITHIN,
    };
    let run = Run {
        unit: format!("shadowd-provision-{group}.service"),
        description: format!("shadowd: makes this host ready for {group}"),
        command: &command,
        environment: Vec::new(),
        input: None,
        more: Vec::new(),
    };
    hooks
        .run(&run)
        .await
        .map_err(|error| crate::act::provision::explain(&error))
}

#[cfg(test)]
#[path = "provisioner_tests.rs"]
mod tests;
