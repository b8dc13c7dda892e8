//! Which of an owner's heartbeats the voters answered, and how many get lost.
//!
//! A heartbeat is lost once a later one was answered: voters answer in order. Until then it may
//! only be late, as with a voter that does not get to run for a while and answers all at once. That
//! is no loss, and a longer lease would be the wrong lesson: it keeps a successor waiting. TCP
//! tells loss from delay in the same way (RFC 6675, section 2).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::facts::BootTime;

/// Heartbeats that may still be answered. Older ones teach nothing: nobody answers at all.
const OPEN_MAX: usize = 64;
/// More than so many lost in a row are an outage, which says nothing of the link before and after it:
/// also where half of all get lost that is one run in 250.
const RUN_MAX: usize = 8;
/// The share of lost heartbeats is a mean over so many of them.
const REMEMBERED: u32 = 32;

/// The heartbeats of a time as owner.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Answers {
    /// Those that no majority answered yet, and no later one either.
    open: VecDeque<Beat>,
    /// Those that got lost, of a million.
    lost: u32,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Beat {
    sent: BootTime,
    /// Who answered: a bit for each voter.
    by: u32,
}

impl Answers {
    /// A heartbeat is about to leave.
    pub fn beat(&mut self, now: BootTime) {
        if self.open.len() == OPEN_MAX {
            self.open.pop_front();
        }
        self.open.push_back(Beat { sent: now, by: 0 });
    }

    /// A voter answers what left at `sent`, and `needed` others make a majority with this member.
    /// Gives the share of lost heartbeats, of 1,000, when it has changed.
    pub fn on_answer(&mut self, voter: usize, sent: BootTime, needed: usize) -> Option<u32> {
        let at = self.open.iter().rposition(|beat| beat.sent <= sent)?;
        let beat = &mut self.open[at];
        beat.by |= 1u32.checked_shl(u32::try_from(voter).ok()?)?;
        if (beat.by.count_ones() as usize) < needed {
            return None;
        }
        let run = if at > RUN_MAX { 1 } else { at };
        for lost in (0..=run).map(|earlier| earlier < run) {
            let miss = if lost { 1_000_000 / REMEMBERED } else { 0 };
            self.lost = self.lost - self.lost / REMEMBERED + miss;
        }
        self.open.drain(..=at);
        Some(self.lost / 1_000)
    }

    /// A voter says no: it hears this member, whatever it answers to.
    pub fn on_refusal(&mut self, voter: usize, needed: usize) -> Option<u32> {
        let open: Vec<BootTime> = self.open.iter().map(|beat| beat.sent).collect();
        let answered = open.into_iter();
        answered.fold(None, |share, sent| {
            self.on_answer(voter, sent, needed).or(share)
        })
    }

    /// This member does not own the group any more; what was learnt of its link stays.
    pub fn end(&mut self) {
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(beat: u64) -> BootTime {
        BootTime::from_nanos(beat * 10_000_000)
    }

    /// The share after these heartbeats, each answered at once or never.
    fn share(beats: impl IntoIterator<Item = bool>) -> u32 {
        let mut answers = Answers::default();
        let mut share = 0;
        for (number, answered) in (1..).zip(beats) {
            answers.beat(at(number));
            if answered {
                share = answers.on_answer(0, at(number), 1).unwrap_or(share);
            }
        }
        share
    }

    #[test]
    fn the_share_of_lost_heartbeats_is_found() {
        assert_eq!(share([true; 500]), 0);
        // Spread evenly: 37 has no common factor with 100.
        for lost in [10, 30, 50] {
            let found = share((0..1_000).map(|number| number * 37 % 100 >= lost));
            let lost = u32::try_from(lost * 10).unwrap();
            assert!(found.abs_diff(lost) <= 60, "{lost}: {found}");
        }
    }

    #[test]
    fn an_outage_is_one_loss() {
        let mut answers = Answers::default();
        for number in 1..=30 {
            answers.beat(at(number));
        }
        assert_eq!(answers.on_answer(2, at(30), 1), Some(30));
    }

    #[test]
    fn answers_that_come_late_all_at_once_are_no_loss() {
        let mut answers = Answers::default();
        for number in 1..=20 {
            answers.beat(at(number));
        }
        for number in 1..=20 {
            assert_eq!(answers.on_answer(2, at(number), 1), Some(0));
        }
        // One that is missing among them is one.
        answers.beat(at(21));
        answers.beat(at(22));
        assert_eq!(answers.on_answer(2, at(22), 1), Some(30));
    }

    #[test]
    fn a_majority_answers_a_heartbeat_and_one_voter_counts_once() {
        let mut answers = Answers::default();
        answers.beat(at(1));
        assert_eq!(answers.on_answer(0, at(1), 2), None);
        assert_eq!(answers.on_answer(0, at(1), 2), None);
        assert_eq!(answers.on_answer(3, at(1), 2), Some(0));
        assert_eq!(answers.on_answer(1, at(1), 2), None, "it is settled");
    }

    #[test]
    fn what_nobody_asked_for_or_nobody_knows_changes_nothing() {
        let mut answers = Answers::default();
        answers.beat(at(5));
        assert_eq!(answers.on_answer(0, at(4), 1), None, "before it");
        assert_eq!(answers.on_answer(32, at(5), 1), None, "no such voter");
        answers.end();
        assert_eq!(answers.on_answer(0, at(5), 1), None, "not an owner");
    }

    #[test]
    fn silence_teaches_nothing_and_is_bounded() {
        let mut answers = Answers::default();
        for number in 1..=1_000 {
            answers.beat(at(number));
        }
        assert_eq!(answers.open.len(), OPEN_MAX);
        assert_eq!(answers.lost, 0);
    }

    #[test]
    fn a_voter_that_says_no_hears_this_member() {
        let mut answers = Answers::default();
        for number in 1..=8 {
            answers.beat(at(number));
        }
        assert_eq!(answers.on_refusal(1, 1), Some(0));
        assert!(answers.open.is_empty());
    }
}
