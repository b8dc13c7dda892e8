//! Captures and claims that were made up, with and without violations.

use super::*;

const A: u8 = 0;
const B: u8 = 1;

fn answer(at_ns: u64, host: u8) -> Answer {
    Answer {
        at_ns,
        host,
        vip: Vip::V4,
        kind: Kind::Neighbour,
    }
}

fn answers(list: &[(u64, u8)]) -> Vec<Answer> {
    list.iter().map(|(at, host)| answer(*at, *host)).collect()
}

/// Claims as (time, host, epoch).
fn record(claims: &[(u64, u8, u64)]) -> Record {
    let mark = |(at_ns, host, epoch): &(u64, u8, u64)| Mark {
        at_ns: *at_ns,
        host: *host,
        epoch: *epoch,
    };
    Record {
        claims: claims.iter().map(mark).collect(),
        ..Record::default()
    }
}

fn wrongs(answers: &[Answer], record: &Record) -> Vec<(Wrong, u8, u64)> {
    let violations = judge(answers, record).violations;
    let told = violations
        .iter()
        .map(|found| (found.wrong, found.host, found.frames));
    told.collect()
}

#[test]
fn owners_one_after_the_other_are_well_and_their_gaps_are_told() {
    let record = record(&[(10, A, 1), (100, B, 2), (200, A, 3)]);
    let seen = answers(&[(11, A), (50, A), (101, B), (150, B), (203, A)]);
    let verdict = judge(&seen, &record);
    assert_eq!(verdict.violations, []);
    let gaps: Vec<i64> = verdict.transitions.iter().map(Transition::gap_ns).collect();
    assert_eq!(gaps, [51, 53]);
    let ends: Vec<_> = verdict
        .transitions
        .iter()
        .map(|one| (one.from, one.to))
        .collect();
    assert_eq!(ends, [(A, B), (B, A)]);
}

#[test]
fn one_answer_of_the_old_owner_after_the_first_of_the_new_one_is_found() {
    let record = record(&[(10, A, 1), (100, B, 2)]);
    let mut seen = answers(&[(20, A), (101, B), (102, A), (103, B)]);
    assert_eq!(wrongs(&seen, &record), [(Wrong::Overlaps, A, 1)]);
    // The same nanosecond is the same instant.
    seen[2].at_ns = 101;
    assert_eq!(wrongs(&seen, &record), [(Wrong::Overlaps, A, 1)]);
    // The order of the queue does not matter.
    seen.swap(1, 2);
    seen[1].at_ns = 99;
    assert_eq!(wrongs(&seen, &record), []);
    assert!(judge(&seen, &record).transitions[0].gap_ns() > 0);
}

#[test]
fn an_overlap_has_a_negative_gap() {
    let record = record(&[(10, A, 1), (100, B, 2)]);
    let seen = answers(&[(20, A), (110, B), (120, A), (130, B), (140, A), (150, B)]);
    assert_eq!(wrongs(&seen, &record), [(Wrong::Overlaps, A, 2)]);
    assert_eq!(judge(&seen, &record).transitions[0].gap_ns(), -30);
}

#[test]
fn an_old_owner_may_answer_again_once_it_has_claimed_anew() {
    let seen = answers(&[(20, A), (110, B), (120, A), (130, A)]);
    let again = record(&[(10, A, 1), (100, B, 2), (115, A, 3)]);
    assert_eq!(wrongs(&seen, &again), []);
    // A claim in an epoch that is not newer changes nothing.
    let stale = record(&[(10, A, 1), (100, B, 3), (115, A, 2)]);
    assert_eq!(wrongs(&seen, &stale), [(Wrong::Overlaps, A, 2)]);
}

#[test]
fn the_owner_that_was_overtaken_is_found_also_when_the_newer_one_fell_silent() {
    let record = record(&[(10, A, 1), (100, B, 2), (200, B, 3), (300, A, 4)]);
    let seen = answers(&[(20, A), (110, B), (210, B), (250, A), (310, A)]);
    assert_eq!(wrongs(&seen, &record), [(Wrong::Overlaps, A, 1)]);
}

#[test]
fn an_answer_between_the_claim_and_the_first_answer_of_the_new_owner_is_found() {
    let record = record(&[(10, A, 1), (100, B, 2)]);
    let seen = answers(&[(20, A), (105, A), (110, B)]);
    assert_eq!(wrongs(&seen, &record), [(Wrong::AfterNewerClaim, A, 1)]);
    // A claimant that never answered took nothing from anybody.
    assert_eq!(wrongs(&seen[..2], &record), []);
}

#[test]
fn answers_without_a_claim_or_in_a_shared_epoch_are_found() {
    let seen = answers(&[(5, A), (20, A)]);
    assert_eq!(
        wrongs(&seen, &record(&[(10, A, 1)])),
        [(Wrong::Unclaimed, A, 1)]
    );
    assert_eq!(
        wrongs(&answers(&[(5, 7)]), &Record::default()),
        [(Wrong::Unclaimed, 7, 1)]
    );
    let shared = record(&[(10, A, 4), (12, B, 4)]);
    let found = wrongs(&answers(&[(20, A), (30, B)]), &shared);
    assert_eq!(
        found,
        [(Wrong::SharesEpoch, A, 1), (Wrong::SharesEpoch, B, 1)]
    );
}

#[test]
fn answers_after_the_release_and_after_the_deadline_are_found() {
    let mut record = record(&[(10, A, 1), (300, A, 2)]);
    record.releases.push(Mark {
        at_ns: 200,
        host: A,
        epoch: 1,
    });
    record.lapses.push(Lapse {
        host: A,
        from_ns: 50,
        until_ns: Some(100),
    });
    let seen = answers(&[
        (49, A),
        (50, A),
        (70, A),
        (100, A),
        (200, A),
        (201, A),
        (301, A),
    ]);
    let expected = [(Wrong::AfterRelease, A, 1), (Wrong::AfterDeadline, A, 1)];
    assert_eq!(wrongs(&seen, &record), expected);
}

#[test]
fn the_two_addresses_are_judged_apart() {
    let record = record(&[(10, A, 1), (100, B, 2)]);
    let mut seen = answers(&[(20, A), (101, B), (130, B)]);
    seen.push(Answer {
        vip: Vip::V6,
        ..answer(120, A)
    });
    // Nobody else answered for it; the claim alone tells.
    assert_eq!(wrongs(&seen, &record), []);
    seen.push(Answer {
        vip: Vip::V6,
        ..answer(110, B)
    });
    let violations = judge(&seen, &record).violations;
    assert_eq!(violations.len(), 1);
    assert_eq!(
        (violations[0].vip, violations[0].wrong),
        (Vip::V6, Wrong::Overlaps)
    );
}

#[test]
fn the_first_announcement_of_the_new_owner_is_told() {
    let record = record(&[(10, A, 1), (100, B, 2)]);
    let mut seen = answers(&[(20, A), (101, B), (105, B), (109, B)]);
    seen[2].kind = Kind::Announcement;
    seen[3].kind = Kind::Announcement;
    assert_eq!(judge(&seen, &record).transitions[0].announced_ns, Some(105));
}

#[test]
fn nothing_seen_shows_nothing() {
    assert_eq!(judge(&[], &Record::default()), Verdict::default());
}
