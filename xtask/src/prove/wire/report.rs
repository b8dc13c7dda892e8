//! What the proof found, as tables, and what keeps it from being one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::answer::Kind as Answered;
use super::capture::Seen;
use super::fault::Kind;
use super::judge::{Transition, Verdict, Wrong};
use super::round::Round;

/// What the client did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// Frames with questions.
    pub frames: u64,
    /// Frames that the client's interface refused.
    pub refused: u64,
    /// Pages asked for over HTTP.
    pub pages: u64,
    /// Pages that came.
    pub good: u64,
}

/// The whole of a proof.
#[derive(Debug)]
pub struct Report {
    /// What gives the same faults again.
    pub seed: u64,
    /// How many faults were wanted.
    pub wanted: usize,
    /// Names of the hosts, by number.
    pub hosts: Vec<String>,
    /// The rounds.
    pub rounds: Vec<Round>,
    /// What all frames show.
    pub verdict: Verdict,
    /// What was captured.
    pub seen: Seen,
    /// What was asked.
    pub asked: Asked,
    /// What stopped it early.
    pub stopped: Option<String>,
}

impl Report {
    /// Rounds whose fault happened.
    pub fn done(&self) -> impl Iterator<Item = &Round> {
        self.rounds.iter().filter(|round| round.refused.is_none())
    }

    /// Why this proves nothing, or proves the contrary; empty when it holds.
    pub fn objections(&self) -> Vec<String> {
        let mut found = Vec::new();
        found.extend(self.stopped.clone());
        let done = self.done().count();
        if done < self.wanted {
            found.push(format!("{done} faults of {} happened", self.wanted));
        }
        let count = self.verdict.violations.len();
        if count > 0 {
            found.push(format!("{count} violations, seed {}", self.seed));
        }
        if self.seen.drops > 0 {
            found.push(format!("the capture lost {} frames", self.seen.drops));
        }
        if self.seen.doubtful > 0 {
            let doubtful = self.seen.doubtful;
            found.push(format!(
                "{doubtful} frames have no time or a foreign sender"
            ));
        }
        if !self.seen.clock.is_some_and(super::clock::Clock::stood) {
            found.push("the wall clock was set meanwhile".to_owned());
        }
        for (kind, count) in self.answers_by_kind() {
            if count == 0 {
                found.push(format!("nobody ever answered by {}", kind.name()));
            }
        }
        let silent = |round: &&Round| {
            round.taken && round.step.kind.leaves_addresses() && round.asked_beside == 0
        };
        let unasked = self.done().filter(silent).count();
        if unasked > 0 {
            found.push(format!(
                "nobody asked beside the successor in {unasked} stops"
            ));
        }
        found
    }

    /// How many violations are of two hosts that answer, and in how many frames.
    pub fn overlaps(&self) -> (usize, u64) {
        let overlaps = self.verdict.violations.iter();
        let overlaps = overlaps.filter(|found| found.wrong == Wrong::Overlaps);
        let frames: Vec<u64> = overlaps.map(|found| found.frames).collect();
        (frames.len(), frames.iter().sum())
    }

    /// All tables.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.faults(&mut text);
        self.answers(&mut text);
        self.stops(&mut text);
        self.conditions(&mut text);
        text
    }

    fn faults(&self, text: &mut String) {
        let by_kind = self.transitions_by_kind();
        let _ = writeln!(
            text,
            "{:<22} {:>6} {:>11} {:>15} {:>15}",
            "fault", "faults", "transitions", "least gap, ms", "median gap, ms"
        );
        for kind in Kind::ALL {
            let count = self.done().filter(|round| round.step.kind == kind).count();
            let moved = by_kind.get(&kind).map(Vec::as_slice).unwrap_or_default();
            let gaps: Vec<f64> = moved
                .iter()
                .map(|moved| moved.gap_ns() as f64 / 1e6)
                .collect();
            let (least, median) = (told(least(&gaps)), told(median(&gaps)));
            let _ = writeln!(
                text,
                "{:<22} {count:>6} {:>11} {least:>15} {median:>15}",
                kind.name(),
                moved.len()
            );
        }
        let second = self
            .done()
            .filter(|round| round.step.second.is_some())
            .count();
        let _ = writeln!(
            text,
            "{:<22} {:>6} {:>11}   of them with a second fault: {second}\n",
            "all",
            self.done().count(),
            self.verdict.transitions.len()
        );
    }

    fn answers(&self, text: &mut String) {
        let _ = write!(text, "{:<22}", "answers of host");
        for kind in Answered::ALL {
            let _ = write!(text, " {:>14}", kind.name());
        }
        let _ = writeln!(text);
        for (number, name) in self.hosts.iter().enumerate() {
            let _ = write!(text, "{name:<22}");
            for kind in Answered::ALL {
                let of_host = self.seen.answers.iter();
                let count = of_host
                    .filter(|answer| usize::from(answer.host) == number && answer.kind == kind)
                    .count();
                let _ = write!(text, " {count:>14}");
            }
            let _ = writeln!(text);
        }
        let _ = writeln!(text);
    }

    /// What happened to hosts whose daemon was stopped while it owned the group.
    fn stops(&self, text: &mut String) {
        let stopped = |round: &&Round| round.step.kind.leaves_addresses() && round.taken;
        let rounds: Vec<&Round> = self.done().filter(stopped).collect();
        let both = rounds
            .iter()
            .filter(|round| round.both_held == Some(true))
            .count();
        let asked: usize = rounds.iter().map(|round| round.asked_beside).sum();
        let _ = writeln!(
            text,
            "SIGSTOP and freeze of the active: {} takeovers; in {both} the stopped host's kernel had \
             both addresses beside its\nsuccessor's; everybody was asked {asked} times meanwhile",
            rounds.len()
        );
        for kind in [Kind::StopActive, Kind::FreezeActive] {
            let by_kind = self.transitions_by_kind();
            let moved = by_kind.get(&kind).map(Vec::as_slice).unwrap_or_default();
            let silences: Vec<f64> = moved
                .iter()
                .filter_map(|moved| Some(moved.announced_ns? as f64 - moved.last_ns as f64))
                .map(|ns| ns / 1e6)
                .collect();
            let _ = writeln!(
                text,
                "{}: from the last answer of the old owner to the first announcement of the new \
                 one: least {} ms, median {} ms ({} times)",
                kind.name(),
                told(least(&silences)),
                told(median(&silences)),
                silences.len()
            );
        }
    }

    fn conditions(&self, text: &mut String) {
        let questions = &self.seen.questions;
        let pauses = questions
            .windows(2)
            .map(|pair| pair[1].saturating_sub(pair[0]));
        let longest = pauses.max().unwrap_or_default() as f64 / 1e6;
        let moved = self.seen.clock.map_or(0, super::clock::Clock::moved_ns) as f64 / 1e3;
        let Asked {
            frames,
            refused,
            pages,
            good,
        } = self.asked;
        let _ = writeln!(
            text,
            "\nclient: {frames} questions sent ({refused} refused by its interface), everybody asked \
             {} times, longest pause {longest:.1} ms;\n{good} of {pages} pages came\n\
             capture: {} frames, {} lost, {} doubtful; stamps in nanoseconds; the two clocks moved \
             apart by up to {moved:.1} us",
            questions.len(),
            self.seen.frames,
            self.seen.drops,
            self.seen.doubtful,
        );
        for round in self.rounds.iter().filter(|round| round.refused.is_some()) {
            let why = round.refused.as_deref().unwrap_or_default();
            let _ = writeln!(text, "did not happen: {}: {why}", round.step);
        }
    }

    fn answers_by_kind(&self) -> BTreeMap<Answered, usize> {
        let mut counts: BTreeMap<_, _> = Answered::ALL.into_iter().map(|kind| (kind, 0)).collect();
        for answer in &self.seen.answers {
            *counts.entry(answer.kind).or_default() += 1;
        }
        counts
    }

    /// Each transition belongs to the last fault before it.
    fn transitions_by_kind(&self) -> BTreeMap<Kind, Vec<Transition>> {
        let mut by_kind = BTreeMap::<Kind, Vec<Transition>>::new();
        for transition in &self.verdict.transitions {
            let before = self
                .done()
                .take_while(|round| round.at_ns <= transition.first_ns);
            if let Some(round) = before.last() {
                by_kind
                    .entry(round.step.kind)
                    .or_default()
                    .push(*transition);
            }
        }
        by_kind
    }
}

fn least(values: &[f64]) -> Option<f64> {
    values.iter().copied().min_by(f64::total_cmp)
}

fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn told(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty(wanted: usize) -> Report {
        Report {
            seed: 7,
            wanted,
            hosts: vec!["a".to_owned()],
            rounds: Vec::new(),
            verdict: Verdict::default(),
            seen: Seen::default(),
            asked: Asked::default(),
            stopped: None,
        }
    }

    #[test]
    fn a_proof_that_saw_nothing_is_none() {
        let objections = empty(200).objections().join("; ");
        for part in [
            "0 faults of 200",
            "wall clock",
            "nobody ever answered by SYN-ACK",
        ] {
            assert!(objections.contains(part), "{objections}");
        }
        let lost = Report {
            seen: Seen {
                drops: 1,
                ..Seen::default()
            },
            ..empty(0)
        };
        assert!(lost.objections().join("; ").contains("lost 1 frames"));
        assert!(lost.text().contains("1 lost"));
    }

    #[test]
    fn the_median_of_nothing_is_not_a_number() {
        assert_eq!(told(median(&[])), "-");
        assert_eq!(told(median(&[3.0, 1.0, 2.0])), "2.000");
        assert_eq!(told(least(&[3.0, -1.5])), "-1.500");
    }
}
