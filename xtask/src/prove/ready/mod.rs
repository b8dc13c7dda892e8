//! No healthy state is called broken: a shadow is made ready from a bare image by its policy alone, and
//! then says that it is ready, each time it is asked, while everything happens that happens on healthy
//! hosts.

pub mod activity;
pub mod files;
pub mod scene;
pub mod upstream;

mod load;
mod watch;

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::build;
use crate::lab::{Lab, Options, interrupt};
use activity::{Act, ROUND};
use load::Load;
use scene::{Scene, readiness};
use watch::Watch;

/// The shadow is asked this often.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// What is going on is told this often.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// A bare host is ready after so long, or never.
const READY_WITHIN: Duration = Duration::from_secs(420);
/// What is not known yet is stirred this often: a unit needs time to read its files.
pub const STIR_EVERY: Duration = Duration::from_secs(5);
/// Events that a healthy state never makes.
const ALARMING: [&str; 2] = ["not_ready", "provisioned"];

/// Arguments of `cargo xtask prove ready`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// How long it is watched, once it is ready
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// Take the binaries that are there
    #[arg(long)]
    no_build: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Needs root. Boots two members, a witness and a client in namespaces of their own. What was seen is
printed also when it is interrupted. Fails when a healthy state was called broken, or cannot be told.

  cargo xtask prove ready                 an hour
  cargo xtask prove ready --minutes 5     a look";

/// What came of it.
struct Report {
    /// From the first start of the bare host's daemon until it was ready.
    ready_after: Duration,
    /// How long it was watched.
    watched: Duration,
    watch: Watch,
    /// What was done to the hosts, how often.
    done: Vec<(Act, u64)>,
    /// Answers that clients got and did not get.
    answers: (u64, u64),
    /// What ended it early.
    stopped: Option<String>,
}

/// Runs the proof on a lab of its own.
///
/// # Errors
/// The proof does not hold, or the lab leaves something behind.
pub fn run(arguments: &Args) -> Result<()> {
    if !arguments.no_build {
        build::run(build::Args { release: true })?;
    }
    interrupt::install()?;
    let lab = Lab::up(&Options::witnessed()?)?;
    eprintln!("lab {} is up", lab.state().id);
    let shown = on(&lab, Duration::from_secs(arguments.minutes * 60));
    let left = lab.down()?;
    let report = shown?;
    match arguments.json {
        true => println!("{}", report.json()),
        false => println!("\n{}", report.text()),
    }
    if !left.is_empty() {
        bail!("left behind: {}", left.join(", "));
    }
    let mut objections = report.watch.objections();
    objections.extend(report.stopped.clone());
    if !objections.is_empty() {
        bail!("not shown: {}", objections.join("; "));
    }
    let (judged, minutes) = (report.watch.judged, report.watched.as_secs() / 60);
    eprintln!("0 false alarms in {judged} judgements over {minutes} minutes");
    Ok(())
}

fn on(lab: &Lab, length: Duration) -> Result<Report> {
    let active = lab.converge(Duration::from_secs(60))?;
    let mut names = lab.state().members().map(|host| host.name.clone());
    let shadow = names.find(|name| *name != active);
    let shadow = shadow.context("the lab has one host only")?;
    let mut scene = Scene::begin(lab, &active)?;
    scene.strip(&shadow)?;
    scene.configure(&active, |text| patient(text, "apply"))?;
    eprintln!("host {active} has all that the group needs, host {shadow} is bare");
    let ready_after = wait_ready(lab, &scene, (&active, &shadow))?;
    eprintln!(
        "host {shadow} is ready after {:.0} s",
        ready_after.as_secs_f64()
    );
    let load = Load::start(lab.client()?)?;
    let mut report = watch(lab, &scene, length)?;
    let tally = &load.tally;
    report.answers = (
        tally.good.load(Ordering::Relaxed),
        tally.bad.load(Ordering::Relaxed),
    );
    report.ready_after = ready_after;
    load.finish()?;
    Ok(report)
}

/// The lab's configuration with the scene's tables, for hosts that share a machine with others: they
/// stand still for longer than the lab's heartbeats allow.
pub fn patient(text: &str, policy: &str) -> String {
    let quick = "heartbeat = \"10ms\"\nsuspect_after = \"27ms\"";
    let slow = "heartbeat = \"100ms\"\nsuspect_after = \"2s\"";
    // A witness has the group without its units, but for the names.
    format!("{}\n{}", text.replace(quick, slow), files::tables(policy))
}

/// Waits until the bare host is ready, of a version that has everything; gives how long it took.
///
/// # Errors
/// It does not get ready; the message names what it lacks.
pub fn wait_ready(
    lab: &Lab,
    scene: &Scene<'_>,
    (active, shadow): (&str, &str),
) -> Result<Duration> {
    let begin = Instant::now();
    let (mut lacks, mut stirred) = (Vec::new(), None::<Instant>);
    let waited = lab.wait(READY_WITHIN, "the bare host to be ready", || {
        let unknown = scene.unknown(shadow)?;
        if !unknown.is_empty() {
            if stirred.is_none_or(|at| at.elapsed() >= STIR_EVERY) {
                scene.stir(active)?;
                stirred = Some(Instant::now());
            }
            lacks = unknown;
            return Ok(false);
        }
        let items = readiness(lab, shadow)?.1.unwrap_or_default();
        lacks = items
            .iter()
            .filter(|item| !item.is_well())
            .map(|item| format!("{} {}: {}", item.kind, item.subject, item.cause))
            .collect();
        Ok(!items.is_empty() && lacks.is_empty())
    });
    waited.with_context(|| {
        let said = [active, shadow].map(|host| scene::said(lab, host));
        format!("it lacks {lacks:?}\n{}", said.concat())
    })?;
    Ok(begin.elapsed())
}

/// Asks the shadow, whoever that is, while things happen to both.
fn watch(lab: &Lab, scene: &Scene<'_>, length: Duration) -> Result<Report> {
    let begin = Instant::now();
    let ((running, over), last) = (channel(), Mutex::new("nothing".to_owned()));
    let mut events = Events::begin(lab)?;
    let mut watch = Watch::default();
    let mut told = begin;
    let (done, stopped) = std::thread::scope(|scope| {
        let last = &last;
        let acting = scope.spawn(move || happen(lab, scene, &over, last));
        while begin.elapsed() < length && !acting.is_finished() && !interrupt::requested() {
            let after = last.lock().map(|last| last.clone()).unwrap_or_default();
            ask(lab, begin.elapsed(), &mut watch, &after);
            events.read(lab, begin.elapsed(), &mut watch, &after);
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                let (minutes, judged) = (begin.elapsed().as_secs() / 60, watch.judged);
                let alarms = watch.alarms().count();
                eprintln!("{minutes:>4} min  {judged} judgements, {alarms} false alarms; {after}");
            }
            std::thread::sleep(ASK_EVERY);
        }
        drop(running);
        acting.join().unwrap_or_else(|_| {
            let panicked = "what happens to the hosts panicked".to_owned();
            (Vec::new(), Some(panicked))
        })
    });
    Ok(Report {
        ready_after: Duration::ZERO,
        watched: begin.elapsed(),
        watch,
        done,
        answers: (0, 0),
        stopped,
    })
}

/// What happens to the hosts, one thing after the other, until nobody holds the other end of `over`; why
/// it ended early, if it did.
fn happen(
    lab: &Lab,
    scene: &Scene<'_>,
    over: &Receiver<()>,
    last: &Mutex<String>,
) -> (Vec<(Act, u64)>, Option<String>) {
    let mut done: Vec<(Act, u64)> = Vec::new();
    for act in ROUND.into_iter().cycle() {
        if over.recv_timeout(activity::EVERY) != Err(RecvTimeoutError::Timeout) {
            return (done, None);
        }
        if let Ok(mut last) = last.lock() {
            *last = act.to_string();
        }
        if let Err(error) = activity::perform(act, scene, lab) {
            return (done, Some(format!("{act}: {error:#}")));
        }
        match done.iter_mut().find(|(one, _)| *one == act) {
            Some((_, times)) => *times += 1,
            None => done.push((act, 1)),
        }
    }
    (done, None)
}

/// Asks every member; who does not own the group judges itself.
fn ask(lab: &Lab, at: Duration, watch: &mut Watch, after: &str) {
    let mut judged = false;
    for host in lab.state().members() {
        let Ok((owner, Some(items))) = readiness(lab, &host.name) else {
            continue;
        };
        if owner.as_ref() != Some(&host.name) {
            watch.note(at, &host.name, Some(&items), after);
            judged = true;
        }
    }
    if !judged {
        watch.note(at, "", None, after);
    }
}

/// What the members told since the begin, as far as it was read.
struct Events(Vec<(String, u64)>);

impl Events {
    fn begin(lab: &Lab) -> Result<Self> {
        let hosts = lab.state().members();
        let newest = hosts.map(|host| Ok((host.name.clone(), lab.newest_event(&host.name)?)));
        newest.collect::<Result<_>>().map(Self)
    }

    fn read(&mut self, lab: &Lab, at: Duration, watch: &mut Watch, after: &str) {
        for (host, since) in &mut self.0 {
            // A daemon that restarts is asked again.
            let Ok(events) = lab.events(host, *since) else {
                continue;
            };
            for event in events {
                *since = event["seq"].as_u64().unwrap_or(*since).max(*since);
                let kind = event["kind"].as_str().unwrap_or_default();
                if ALARMING.contains(&kind) {
                    let detail = event["detail"].as_str().unwrap_or_default();
                    watch.note_event(at, host, kind, detail, after);
                }
            }
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let mut text = format!(
            "ready from a bare image after {:.0} s; watched for {:.1} min; {} questions, {} \
             judgements of {} items; without a judgement for {:.0} s at most\n",
            self.ready_after.as_secs_f64(),
            self.watched.as_secs_f64() / 60.0,
            self.watch.asked,
            self.watch.judged,
            self.watch.items,
            self.watch.silent_longest.as_secs_f64(),
        );
        for (act, times) in &self.done {
            text.push_str(&format!("  {times:>4} times {act}\n"));
        }
        let (good, bad) = self.answers;
        text.push_str(&format!("  {good} answers to clients, {bad} lost\n"));
        text.push_str(&self.watch.text());
        text
    }

    fn json(&self) -> Value {
        let done = self.done.iter();
        let done = done.map(|(act, times)| (act.to_string(), json!(times)));
        json!({
            "ready_after_s": self.ready_after.as_secs_f64(),
            "watched_s": self.watched.as_secs_f64(),
            "watch": self.watch.json(),
            "done": done.collect::<serde_json::Map<String, Value>>(),
            "answers": self.answers.0,
            "lost": self.answers.1,
            "stopped": self.stopped,
        })
    }
}
