//! What units need over days, and clocks that are set.

use super::tests::{BEGIN, Bench, UNIT};
use super::*;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

impl Bench {
    /// Days of readings of five minutes each: `cpu` by the second of the day.
    fn live(&mut self, seconds: u64, cpu: impl Fn(u64) -> f64) {
        let end = self.now + seconds;
        while self.now < end {
            let value = cpu(self.now % DAY);
            self.digest.uses.insert(ResourceKind::Cpu, value);
            self.pass_by(300, 300);
        }
    }

    /// One that has known for days what is needed.
    fn settled(cpu: impl Fn(u64) -> f64) -> Self {
        let mut bench = Self::begun();
        bench.live(6 * DAY, cpu);
        // What is seen of the first hours, and what two days have shown.
        let versions = bench.versions();
        let known = "cpu of app.service is known: median ";
        let is_known =
            |why: &Option<String>| why.as_ref().is_some_and(|why| why.starts_with(known));
        assert!(
            versions.len() <= 2 && versions.iter().all(is_known),
            "{versions:?}"
        );
        let need = bench.learner.profile().needs[&(UNIT.to_owned(), ResourceKind::Cpu)];
        assert!(!need.cold && need.median < 0.2, "{need:?}");
        bench
    }
}

/// A little noise of an even kind.
fn steady(at: u64) -> f64 {
    0.1 + (at / 300 % 7) as f64 * 0.002
}

#[test]
fn a_lasting_change_of_use_makes_one_version_with_its_numbers() {
    let mut bench = Bench::settled(steady);
    bench.live(DAY, |at| steady(at) + 0.3);
    let versions = bench.versions();
    let [Some(why)] = &versions[..] else {
        panic!("{versions:?}");
    };
    assert!(why.starts_with("cpu of app.service: median 0.1"), "{why}");
    assert!(why.contains(" -> 0.4"), "{why}");
    let need = bench.learner.profile().needs[&(UNIT.to_owned(), ResourceKind::Cpu)];
    assert!((0.35..0.5).contains(&need.median), "{need:?}");
    bench.live(3 * DAY, |at| steady(at) + 0.3);
    assert!(bench.versions().len() <= 1, "it has settled");
}

#[test]
fn a_passing_spike_is_an_event_only() {
    let mut bench = Bench::settled(steady);
    bench.told.clear();
    bench.live(2 * HOUR, |at| steady(at) + 3.0);
    bench.live(5 * DAY, steady);
    let anomaly = |one: &&Output| matches!(one, Output::Anomaly { .. });
    assert!(bench.told.iter().any(|one| anomaly(&one)));
    let versions = bench.versions();
    assert!(versions.is_empty(), "a spike made a version: {versions:?}");
}

#[test]
fn a_season_is_no_change() {
    let day = |at: u64| {
        if (8 * HOUR..18 * HOUR).contains(&at) {
            0.8
        } else {
            0.1
        }
    };
    let mut bench = Bench::begun();
    bench.live(10 * DAY, day);
    bench.told.clear();
    bench.live(6 * DAY, day);
    let versions = bench.versions();
    assert!(versions.is_empty(), "{versions:?}");
}

#[test]
fn what_changes_all_the_time_makes_no_storm() {
    let mut bench = Bench::settled(steady);
    for turn in 0..28_u32 {
        let more = if turn.is_multiple_of(2) { 0.9 } else { 0.0 };
        bench.live(6 * HOUR, |at| steady(at) + more);
    }
    let versions = bench.versions().len();
    assert!(versions <= 14, "{versions} versions in a week");
}

#[test]
fn a_clock_that_is_set_back_an_hour_forgets_nothing() {
    let mut bench = Bench::begun();
    bench.pass_by(3 * DAY, 600);
    let series = bench.learner.series.len();
    bench.now -= HOUR + 600;
    bench.pass_by(3 * HOUR, 600);
    let profile = bench.learner.profile();
    assert_eq!(
        (profile.unit_hours.len(), profile.dependency_hours.len()),
        (1, 1)
    );
    assert_eq!(bench.learner.series.len(), series);
    let last = profile.observed.last().expect("hours were noted");
    let seen = (0..72).filter(|back| profile.unit_hours[UNIT].at(Hour(last.0 - back)));
    assert!(seen.count() > 70);
}

#[test]
fn a_clock_that_was_years_ahead_costs_what_it_taught_and_no_more() {
    let mut bench = Bench::begun();
    let right = bench.now;
    bench.now = BEGIN + 40 * 365 * DAY;
    bench.pass_by(2 * HOUR, 600);
    bench.now = right;
    bench.pass_by(3 * DAY, 600);
    let profile = bench.learner.profile();
    let now = Hour(u32::try_from(bench.now / HOUR).unwrap());
    assert_eq!(profile.observed.last(), Some(now));
    assert!(profile.unit_hours[UNIT].at(Hour(now.0 - 20)));
    let expected = bench.learner.forecasts(bench.now).count();
    assert_eq!(expected, 1, "readings are taken in again");
    let told = |one: &Output| matches!(one, Output::Passed(what) if what.contains("far ahead"));
    assert_eq!(bench.told.iter().filter(|one| told(one)).count(), 1);
}
