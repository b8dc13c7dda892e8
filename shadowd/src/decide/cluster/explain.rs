//! A decision in sentences: what led to it, and what came of it, from its window.
//!
//! The core runs once more beside the entries, for what only it knows: who owned the group, how
//! long silence is allowed. Nothing here judges whether the decision was a good one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::action::{Action, Done, Record};
use super::group::Group;
use super::journal::{Entry, Input, Window};
use super::replay::UnreadableWindow;
use crate::facts::{Body, BootTime, Epoch, EventKind, GroupMessage, Name};

/// What was longer before the decision is not told.
const BEFORE: Duration = Duration::from_secs(10);
/// The sentences nearest to the decision; more say nothing new.
const LINES_MAX: usize = 64;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Line {
    /// When.
    pub at: BootTime,
    /// What.
    pub text: String,
}

/// A decision in sentences.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Explanation {
    /// Whose decision it was.
    pub host: String,
    /// All of it in one sentence.
    pub summary: String,
    /// What happened, oldest first.
    pub lines: Vec<Line>,
}

/// Tells a window.
///
/// # Errors
/// An entry does not decode.
pub fn explain(window: &Window) -> Result<Explanation, UnreadableWindow> {
    let mut story = Story {
        core: window.checkpoint.clone(),
        at: window.decision.at,
        now: BootTime::default(),
        lines: Vec::new(),
        heard: BTreeMap::new(),
        owner: None,
        asked: None,
        promised: BTreeSet::new(),
        kernel: BTreeMap::new(),
        evidence: None,
    };
    for entry in window.entries() {
        match entry? {
            Entry::Input(now, input) => story.input(now, input),
            Entry::Action(action) => story.action(&action),
        }
    }
    Ok(story.told(window))
}

struct Story {
    core: Box<Group>,
    /// When it was decided.
    at: BootTime,
    /// The time of the last input.
    now: BootTime,
    lines: Vec<Line>,
    /// When each host was last heard before the decision.
    heard: BTreeMap<Name, BootTime>,
    /// Who owned the group before, and in which epoch.
    owner: Option<(Name, u64)>,
    /// The last epoch that was asked for, and whom.
    asked: Option<(Epoch, BTreeSet<Name>)>,
    promised: BTreeSet<Name>,
    /// Since its last word: how often each kernel was asked, from when, and how often it answered.
    kernel: BTreeMap<Name, (BootTime, u32, u32)>,
    /// What was found of a silent owner.
    evidence: Option<String>,
}

impl Story {
    fn line(&mut self, at: BootTime, text: String) {
        let known = self.lines.last();
        if known.is_none_or(|last| last.text != text) {
            self.lines.push(Line { at, text });
        }
    }

    fn before(&self) -> bool {
        self.now <= self.at
    }

    fn input(&mut self, now: BootTime, input: Input<'_>) {
        self.now = now;
        if self.before()
            && let Some(owner) = self.core.active()
        {
            self.owner = Some((owner.clone(), self.core.newest_epoch().counter));
        }
        match &input {
            Input::Message { from, message, .. } => self.message(from, message),
            Input::KernelAnswer(from) => {
                if let Some((_, _, answers)) = self.kernel.get_mut(&**from) {
                    *answers += 1;
                }
            }
            Input::KernelRefusal(from) => {
                let said = format!("{from}'s kernel said that nobody listens where its daemon did");
                self.line(now, said);
            }
            Input::PeerBegan(from) => {
                self.line(now, format!("the daemon of {from} has started anew"))
            }
            Input::Starved(true) => {
                let me = &self.core.me.name;
                let text =
                    format!("{me} was starved of processor time: slower to call others dead");
                self.line(now, text);
            }
            Input::Starved(false) => {
                let text = format!("{} was starved no more", self.core.me.name);
                self.line(now, text);
            }
            Input::Readiness(true) if self.core.unready => {
                let text = format!("{} was ready for the group again", self.core.me.name);
                self.line(now, text);
            }
            Input::Readiness(false) => {
                let text = format!("{} was not ready for the group", self.core.me.name);
                self.line(now, text);
            }
            Input::Done(done) => self.done(done),
            Input::Order(_) => self.line(now, "an operator's order arrived".to_owned()),
            Input::HandOver(Some(to)) => {
                self.line(now, format!("a handover to {to} was asked for"))
            }
            Input::HandOver(None) => self.line(now, "a handover was asked for".to_owned()),
            Input::Pause(_) => self.line(now, "the daemon was asked to restart".to_owned()),
            Input::Stop => self.line(now, "the daemon was asked to stop".to_owned()),
            Input::Timer
            | Input::Readiness(true)
            | Input::Unit { .. }
            | Input::Serving { .. }
            | Input::Carrier(_)
            | Input::LinkAddress(_)
            | Input::AddressLost(_)
            | Input::Claim { .. }
            | Input::FailbackWindow(_) => {}
        }
        self.core.hear(input, now);
        // What it wants now is in the journal already.
        self.core.actions.clear();
    }

    fn message(&mut self, from: &Name, message: &GroupMessage) {
        let now = self.now;
        if self.before() {
            self.heard.insert(from.clone(), now);
            self.kernel.remove(from);
        }
        match &message.body {
            Body::Resign { cause } => self.line(now, format!("{from} gave the group up: {cause}")),
            Body::Transfer { .. } => self.line(now, format!("{from} handed the group on")),
            Body::Offer { .. } => self.line(now, format!("{from} offered the group")),
            Body::Ready { .. } => self.line(now, format!("{from} was ready to take over")),
            Body::Pause { .. } => self.line(now, format!("{from} said that its daemon restarts")),
            Body::Refuse { wait } if self.asked.is_some() && self.before() => {
                let text = format!("{from} did not promise: not for {}", ms(*wait));
                self.line(now, text);
            }
            Body::Promise { .. } => {
                let asked = self.asked.as_ref().map(|(epoch, _)| *epoch);
                if asked == Some(message.epoch) && self.promised.insert(from.clone()) {
                    let epoch = message.epoch.counter;
                    self.line(now, format!("{from} promised epoch {epoch}"));
                }
            }
            Body::Beat { .. } | Body::Ask { .. } | Body::Refuse { .. } | Body::Withdraw => {}
        }
    }

    fn done(&mut self, done: &Done) {
        let text = match done {
            Done::VipsTaken { .. } => "the virtual IPs were there and announced".to_owned(),
            Done::VipsDropped { .. } => "the virtual IPs were gone".to_owned(),
            Done::UnitsStarted { .. } => "the cold units ran".to_owned(),
            Done::UnitsStopped { .. } => "the cold units were stopped".to_owned(),
            Done::PromiseKept(_) => "a promise was on the disk".to_owned(),
            Done::Provided { host, answer, .. } => {
                format!("the provider said of {host}: {}", answer.state)
            }
            Done::Failed { step, why, .. } => format!("{step}: {why}"),
        };
        self.line(self.now, text);
    }

    fn action(&mut self, action: &Action) {
        match action {
            Action::Record(record) => self.record(record),
            Action::Send {
                to,
                epoch,
                body: Body::Ask { .. },
            } => {
                let again = self.asked.as_ref().is_some_and(|(asked, _)| asked == epoch);
                if !again {
                    self.promised.clear();
                    self.asked = Some((*epoch, BTreeSet::new()));
                    let text = format!("asked the voters for epoch {}", epoch.counter);
                    self.line(self.now, text);
                }
                if let Some((_, voters)) = &mut self.asked {
                    voters.insert(to.clone());
                }
            }
            Action::Probe { member } if self.before() => {
                let asked = self.kernel.entry(member.clone());
                asked.or_insert((self.now, 0, 0)).1 += 1;
            }
            Action::StartUnits { .. } => {
                self.line(self.now, "began to start the cold units".into())
            }
            Action::StopUnits { .. } => self.line(self.now, "began to stop the cold units".into()),
            Action::Send { .. }
            | Action::Probe { .. }
            | Action::TakeVips { .. }
            | Action::Announce { .. }
            | Action::DropVips { .. }
            | Action::HandOn { .. }
            | Action::PassBack { .. }
            | Action::Provide(_)
            | Action::KeepPromise(_) => {}
        }
    }

    fn record(&mut self, record: &Record) {
        let detail = &record.detail;
        let cause = record.cause.map(|cause| format!(" because of {cause}"));
        let cause = cause.unwrap_or_default();
        let text = match record.kind {
            EventKind::Claimed => format!("claimed {detail}{cause}"),
            EventKind::Released => format!("gave up {detail}{cause}"),
            EventKind::RoleChanged => format!("role {detail}{cause}"),
            EventKind::PeerSuspected => self.suspected(detail),
            EventKind::PeerHeard => format!("{detail} was heard"),
            kind => format!("{kind}: {detail}{cause}"),
        };
        self.line(record.at, text);
    }

    /// How long it may have been silent, and what its kernel said.
    fn suspected(&mut self, detail: &str) -> String {
        let members = &self.core.members;
        let named = |name: &Name| detail.split(' ').next() == Some(name.as_str());
        let Some(index) = members.iter().position(|member| named(&member.name)) else {
            return detail.to_owned();
        };
        let name = members[index].name.clone();
        let allowed = ms(self.core.patience(index));
        let kernel = match self.kernel.get(&name) {
            Some((_, asked, 0)) => format!("; its kernel was asked {asked} times: no answer"),
            Some((_, asked, answers)) => {
                format!("; its kernel was asked {asked} times and answered {answers}")
            }
            None => String::new(),
        };
        let text = format!("{detail}, {allowed} are allowed{kernel}");
        if self.owner.as_ref().is_some_and(|(owner, _)| *owner == name) {
            self.evidence = Some(text.clone());
        }
        text
    }

    fn told(mut self, window: &Window) -> Explanation {
        let owner = self.owner.clone();
        let me = self.core.me.name.clone();
        if let Some((owner, _)) = owner.filter(|(owner, _)| *owner != me)
            && let Some(at) = self.heard.get(&owner)
        {
            let text = format!("the last word of {owner} before the decision arrived");
            self.lines.push(Line { at: *at, text });
        }
        for (name, (at, asked, _)) in std::mem::take(&mut self.kernel) {
            let text = format!("began to ask the kernel of {name} ({asked} questions)");
            self.lines.push(Line { at, text });
        }
        let summary = self.summary(window);
        let from = self.at.as_nanos().saturating_sub(nanos(BEFORE));
        self.lines.retain(|line| line.at.as_nanos() >= from);
        let away = |line: &Line| line.at.as_nanos().abs_diff(self.at.as_nanos());
        self.lines.sort_by_key(away);
        self.lines.truncate(LINES_MAX);
        self.lines.sort_by_key(|line| line.at);
        Explanation {
            host: me.to_string(),
            summary,
            lines: self.lines,
        }
    }

    fn summary(&self, window: &Window) -> String {
        let decision = &window.decision;
        let me = &self.core.me.name;
        let cause = decision.cause.map(|cause| format!(" because of {cause}"));
        let cause = cause.unwrap_or_default();
        let epoch = decision.epoch;
        let mut text = match decision.kind {
            EventKind::Claimed => format!("{me} claimed epoch {epoch}{cause}"),
            EventKind::Released => format!("{me} gave up epoch {epoch}{cause}"),
            EventKind::LeaseLapsed => format!("the lease of {me} lapsed in epoch {epoch}{cause}"),
            _ => format!("the role of {me} changed in epoch {epoch}{cause}"),
        };
        if let Some((owner, owned)) = &self.owner {
            text.push_str(&format!(
                "; before, {owner} owned the group in epoch {owned}"
            ));
        } else {
            text.push_str("; before, nobody was known to own the group");
        }
        if let Some(evidence) = &self.evidence {
            text.push_str(&format!("; {evidence}"));
        }
        if let Some((asked, voters)) = &self.asked
            && asked.counter == epoch
        {
            // Its own vote is one of them.
            let (promised, voters) = (self.promised.len() + 1, voters.len() + 1);
            text.push_str(&format!("; {promised} of {voters} voters promised"));
        }
        text
    }
}

fn ms(span: Duration) -> String {
    format!("{:.1} ms", span.as_secs_f64() * 1e3)
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
