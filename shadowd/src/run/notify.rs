//! Tells hooks and alerts what happens: drives the core, carries out what it wants told, remembers
//! what was told. Runs beside everything else; nothing waits for it but the end of the daemon, for
//! some seconds.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tracing::error;

use super::board::Board;
use super::deliver::{Attempt, Target};
use super::record::Recorder;
use super::tap::{TestAnswer, Word};
use crate::act::hooks::Hooks;
use crate::config::settings::Settings;
use crate::decide::notify::{Delivery, Notifier, Now, Outcome};
use crate::facts::{BootTime, EventKind, LastNotice, Name, Notice, ReceiverStatus, Topic};
use crate::observe::sys::boot_time;
use crate::serve::protocol::{Code, Refusal};

/// Without anything to do it looks again after so long.
const IDLE: Duration = Duration::from_secs(60);
/// What the end of the daemon waits for what is being told. A command goes on without it.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// What ended: whom, what, when it began, how.
type Ended = (usize, Notice, BootTime, Attempt);

/// The running task.
pub struct Notifying {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Notifying {
    /// Tells what is still to be told at once, and ends.
    pub async fn finish(self) {
        // A task that has ended needs no word.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// Starts to tell what arrives as `words`; without words there is nobody to tell, and what was told
/// is forgotten.
///
/// # Errors
/// The store cannot be read.
pub async fn start(
    settings: &Settings,
    recorder: Recorder,
    board: Arc<Board>,
    words: Option<mpsc::Receiver<Word>>,
) -> anyhow::Result<Option<Notifying>> {
    let targets: Vec<Arc<Target>> = Target::all(&settings.notify)
        .into_iter()
        .map(Arc::new)
        .collect();
    let known = targets.iter().map(|target| target.id()).collect();
    let reading = recorder.clone();
    let told = tokio::task::spawn_blocking(move || reading.told(known)).await??;
    let Some(words) = words else {
        return Ok(None);
    };
    let receivers = targets.iter().map(|target| target.receiver()).collect();
    let host = settings.host.name.clone();
    let teller = Teller {
        core: Notifier::new(host, receivers, &told, boot_time()),
        last: targets.iter().map(|_| None).collect(),
        tests: targets.iter().map(|_| None).collect(),
        targets,
        hooks: Arc::default(),
        running: JoinSet::new(),
        recorder,
        board,
    };
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(teller.run(words, stopped));
    Ok(Some(Notifying { stop, task }))
}

struct Teller {
    core: Notifier,
    targets: Vec<Arc<Target>>,
    last: Vec<Option<LastNotice>>,
    tests: Vec<Option<TestAnswer>>,
    hooks: Arc<Hooks>,
    running: JoinSet<Ended>,
    recorder: Recorder,
    board: Arc<Board>,
}

impl Teller {
    async fn run(mut self, mut words: mpsc::Receiver<Word>, mut stopped: oneshot::Receiver<()>) {
        let mut until: Option<Instant> = None;
        loop {
            self.turn().await;
            let now = boot_time();
            let over = until.is_some_and(|until| Instant::now() >= until);
            if over || (until.is_some() && self.core.is_idle(now)) {
                return;
            }
            let due = self.core.next_deadline();
            let mut wait = due.map_or(IDLE, |due| due.since(now)).min(IDLE);
            if let Some(until) = until {
                wait = wait.min(until.saturating_duration_since(Instant::now()));
            }
            tokio::select! {
                biased;
                Some(word) = words.recv() => self.hear(word),
                Some(ended) = self.running.join_next() => match ended {
                    Ok(ended) => self.on_end(ended),
                    Err(error) => error!(%error, "telling a hook or an alert failed"),
                },
                _ = &mut stopped, if until.is_none() => {
                    until = Some(Instant::now() + STOP_WITHIN);
                    while let Ok(word) = words.try_recv() {
                        self.hear(word);
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// What is due is told, what was told is remembered, and people can see both.
    async fn turn(&mut self) {
        self.core.on_timer(now());
        let mut deliveries = Vec::new();
        while let Some(delivery) = self.core.poll(boot_time()) {
            deliveries.push(delivery);
        }
        // First remembered, then told: whatever becomes of this process.
        while let Some(told) = self.core.poll_told() {
            let recorder = self.recorder.clone();
            let written = tokio::task::spawn_blocking(move || recorder.set_told(&told)).await;
            if let Ok(Err(cause)) = written {
                let cause = format!("{:#}", anyhow::Error::from(cause));
                error!(
                    cause,
                    "what was told is not stored: a restart tells it again"
                );
            }
        }
        for delivery in deliveries {
            self.tell(delivery);
        }
        self.board.publish_receivers(self.status());
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::Event(event) => self.core.on_event(&event, now()),
            Word::Sighting(sighting) => self.core.on_sighting(sighting, now()),
            Word::Test(name, answer) => self.test(&name, answer),
        }
    }

    fn test(&mut self, name: &Name, answer: TestAnswer) {
        let Some(number) = self.targets.iter().position(|target| target.name() == name) else {
            let message = format!("there is no hook or alert {name}");
            let remedy = "see `shadowctl hooks` for their names";
            // Whoever asked may have left.
            let _ = answer.send(Err(Refusal::new(Code::UnknownReceiver, message, remedy)));
            return;
        };
        if self.core.test(number, now()) {
            self.tests[number] = Some(answer);
        } else {
            let message = format!("another test of {name} waits");
            let _ = answer.send(Err(Refusal::new(Code::Busy, message, "try again later")));
        }
    }

    fn tell(&mut self, delivery: Delivery) {
        let Delivery { receiver, notice } = delivery;
        let target = Arc::clone(&self.targets[receiver]);
        let hooks = Arc::clone(&self.hooks);
        self.running.spawn(async move {
            let began = boot_time();
            let attempt = target.tell(&hooks, &notice).await;
            (receiver, notice, began, attempt)
        });
    }

    fn on_end(&mut self, (receiver, notice, began, attempt): Ended) {
        let at = boot_time();
        // The low bits of a clock that no other host shares are dice enough.
        let dice = (at.as_nanos() >> 4) as u32;
        self.core.on_done(receiver, attempt.outcome, at, dice);
        let took_ms = u64::try_from(at.since(began).as_millis()).unwrap_or(u64::MAX);
        let last = LastNotice {
            event: notice.event,
            group: notice.group.clone(),
            epoch: notice.epoch,
            wall_ms: now().wall_ms,
            took_ms,
            ok: attempt.outcome == Outcome::Delivered,
            result: attempt.result,
        };
        self.record(receiver, &notice, &last, attempt.outcome);
        if notice.event == Topic::Test
            && let Some(answer) = self.tests[receiver].take()
        {
            // Whoever asked may have left.
            let _ = answer.send(Ok(last.clone()));
        }
        self.last[receiver] = Some(last);
    }

    /// Tries in vain that end alike are recorded once, not each minute.
    fn record(&self, receiver: usize, notice: &Notice, last: &LastNotice, outcome: Outcome) {
        let before = self.last[receiver].as_ref();
        let again = before.is_some_and(|before| before.result == last.result && !before.ok);
        if outcome == Outcome::Unreached && again {
            return;
        }
        let target = &self.targets[receiver];
        let kind = if last.ok {
            EventKind::Notified
        } else {
            EventKind::NoticeFailed
        };
        let skipped = match notice.skipped {
            0 => String::new(),
            skipped => format!(", {skipped} skipped before it"),
        };
        let detail = format!(
            "{} {}: {}: {} after {} ms{skipped}",
            target.kind(),
            target.name(),
            notice.event,
            last.result,
            last.took_ms
        );
        let group = notice.group.as_ref().map(|group| (group, notice.epoch));
        self.recorder.notice(kind, group, boot_time(), detail);
    }

    fn status(&self) -> Vec<ReceiverStatus> {
        let all = self.targets.iter().zip(&self.last).enumerate();
        all.filter_map(|(number, (target, last))| {
            let progress = self.core.progress(number)?;
            Some(ReceiverStatus {
                name: target.name().clone(),
                kind: target.kind(),
                events: target.events().to_vec(),
                groups: target.groups().to_vec(),
                running: progress.running,
                waiting: u64::try_from(progress.waiting).unwrap_or(u64::MAX),
                counts: progress.counts,
                last: last.clone(),
            })
        })
        .collect()
    }
}

fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Now {
        boot: boot_time(),
        wall_ms: u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
    }
}
