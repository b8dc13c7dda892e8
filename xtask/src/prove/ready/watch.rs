//! What the shadow said of itself, every time it was asked: a healthy state that it calls broken is a
//! false alarm, whatever the reason. No I/O and no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::scene::Item;

/// Without a judgement for longer the proof is blind.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// Of all questions so many have to be answered with a judgement.
const JUDGED_LEAST: f64 = 0.8;
/// The false alarms that are listed.
const LISTED: usize = 50;

/// A false alarm: what was said, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// The host that said it of itself.
    pub host: String,
    /// `not_ready` or `cannot_tell`, or `event` for what was told between two questions.
    pub verdict: String,
    /// Kind and subject.
    pub what: String,
    /// Why, in the host's words.
    pub cause: String,
}

/// When and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Since the begin.
    pub first: Duration,
    /// How many times.
    pub times: u64,
    /// What had happened to the hosts last.
    pub after: String,
}

/// All that was said so far.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Questions.
    pub asked: u64,
    /// Answers with a judgement.
    pub judged: u64,
    /// Items of these.
    pub items: u64,
    /// The longest time without a judgement.
    pub silent_longest: Duration,
    judged_at: Duration,
    alarms: BTreeMap<Alarm, Seen>,
}

impl Watch {
    /// At `at` the shadow `host` said this of itself, or nothing; `after` is what happened last.
    pub fn note(&mut self, at: Duration, host: &str, items: Option<&[Item]>, after: &str) {
        self.asked += 1;
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            let silent = at.saturating_sub(self.judged_at);
            self.silent_longest = self.silent_longest.max(silent);
            return;
        };
        self.silent_longest = self.silent_longest.max(at.saturating_sub(self.judged_at));
        self.judged_at = at;
        self.judged += 1;
        self.items += items.len() as u64;
        for item in items.iter().filter(|item| !item.is_well()) {
            let what = format!("{} {}", item.kind, item.subject);
            self.alarm(at, host, (&item.verdict, what, &item.cause), after);
        }
    }

    /// An event of a host says that something is not ready, or that something was done about it.
    pub fn note_event(&mut self, at: Duration, host: &str, kind: &str, detail: &str, after: &str) {
        self.alarm(at, host, ("event", kind.to_owned(), detail), after);
    }

    fn alarm(
        &mut self,
        at: Duration,
        host: &str,
        (verdict, what, cause): (&str, String, &str),
        after: &str,
    ) {
        let alarm = Alarm {
            host: host.to_owned(),
            verdict: verdict.to_owned(),
            what,
            cause: cause.to_owned(),
        };
        let seen = self.alarms.entry(alarm).or_insert_with(|| Seen {
            first: at,
            times: 0,
            after: after.to_owned(),
        });
        seen.times += 1;
    }

    /// The false alarms so far.
    pub fn alarms(&self) -> impl Iterator<Item = (&Alarm, &Seen)> {
        self.alarms.iter()
    }

    /// Why nothing is shown; empty when it is.
    pub fn objections(&self) -> Vec<String> {
        let mut objections = Vec::new();
        let alarms = self.alarms.len();
        if alarms > 0 {
            objections.push(format!("{alarms} false alarms"));
        }
        if (self.judged as f64) < self.asked as f64 * JUDGED_LEAST || self.judged == 0 {
            let (judged, asked) = (self.judged, self.asked);
            objections.push(format!("{judged} judgements for {asked} questions"));
        }
        if self.silent_longest > SILENT_MAX {
            let longest = self.silent_longest.as_secs();
            objections.push(format!("no judgement for {longest} s"));
        }
        objections
    }

    /// The false alarms, one a line.
    pub fn text(&self) -> String {
        let lines = self.alarms.iter().take(LISTED).map(|(alarm, seen)| {
            let (host, verdict, what, cause) =
                (&alarm.host, &alarm.verdict, &alarm.what, &alarm.cause);
            let (first, times, after) = (seen.first.as_secs(), seen.times, &seen.after);
            format!(
                "  FALSE {verdict} on {host}, {times} times from second {first} on, after {after}: \
                 {what}: {cause}\n"
            )
        });
        lines.collect()
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let alarms = self.alarms.iter().map(|(alarm, seen)| {
            json!({
                "host": alarm.host, "verdict": alarm.verdict, "what": alarm.what,
                "cause": alarm.cause, "first_s": seen.first.as_secs(), "times": seen.times,
                "after": seen.after,
            })
        });
        json!({
            "asked": self.asked, "judged": self.judged, "items": self.items,
            "silent_longest_s": self.silent_longest.as_secs_f64(),
            "alarms": alarms.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: &str, verdict: &str) -> Item {
        Item {
            kind: kind.into(),
            subject: "x".into(),
            verdict: verdict.into(),
            cause: "why".into(),
        }
    }

    fn second(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn what_is_well_all_the_time_is_shown() {
        let mut watch = Watch::default();
        let items = [item("file", "ready"), item("clock", "cannot_tell")];
        for number in 0..100 {
            watch.note(second(2 * number), "b", Some(&items), "nothing");
        }
        assert!(watch.objections().is_empty(), "{:?}", watch.objections());
        assert_eq!((watch.asked, watch.judged, watch.items), (100, 100, 200));
    }

    #[test]
    fn each_false_alarm_counts_and_is_listed_once() {
        let mut watch = Watch::default();
        for number in 0..10 {
            let bad = [item("file", "not_ready"), item("unit", "cannot_tell")];
            watch.note(second(number), "b", Some(&bad), "a reload of a");
        }
        watch.note_event(second(11), "a", "provisioned", "done: x", "a handover");
        assert_eq!(watch.objections(), ["3 false alarms"]);
        let text = watch.text();
        assert!(text.contains("10 times from second 0 on, after a reload of a: file x: why"));
        assert_eq!(watch.json()["alarms"].as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn silence_shows_nothing() {
        let mut watch = Watch::default();
        assert_eq!(watch.objections(), ["0 judgements for 0 questions"]);
        let items = [item("file", "ready")];
        for number in 0..100 {
            watch.note(second(number), "b", Some(&items), "nothing");
        }
        watch.note(second(170), "b", None, "nothing");
        assert_eq!(watch.objections(), ["no judgement for 71 s"]);
        for number in 0..100 {
            watch.note(second(171 + number), "b", Some(&[]), "nothing");
        }
        assert_eq!(watch.objections().len(), 2, "{:?}", watch.objections());
    }
}
