//! What each feature saw and lost since capture began, and how much it tells per second.

use std::collections::BTreeMap;

use crate::facts::{Losses, ProbeLosses, Protocol, Sample};

/// The running totals of every feature.
#[derive(Debug, Default)]
pub struct Tally {
    features: BTreeMap<String, ProbeLosses>,
    told_per_second: BTreeMap<String, f64>,
}

impl Tally {
    /// Adds what a sample tells, and sets what each feature has lost since it was loaded (the sum
    /// of all entries of one name) and what the kernel left out; writes the totals into the sample.
    pub fn add(&mut self, sample: &mut Sample, dropped: &[(&str, u64)], missed: &[(&str, u64)]) {
        let seconds = sample.interval.as_secs_f64();
        let told = happenings(sample);
        for (feature, count) in &told {
            let entry = self.features.entry((*feature).to_owned()).or_default();
            entry.seen = entry.seen.saturating_add(*count);
        }
        for (feature, count) in by_name(dropped) {
            self.features.entry(feature.to_owned()).or_default().dropped = count;
        }
        for (feature, count) in by_name(missed) {
            self.features.entry(feature.to_owned()).or_default().missed = count;
        }
        self.told_per_second = self
            .features
            .keys()
            .map(|name| {
                let count = told.get(name.as_str()).copied().unwrap_or(0);
                let rate = if seconds > 0.0 {
                    count as f64 / seconds
                } else {
                    0.0
                };
                (name.clone(), rate)
            })
            .collect();
        sample.losses = sum(&self.features);
        sample.probe_losses.clone_from(&self.features);
    }

    /// What each feature told of per second in the last sample.
    pub fn told_per_second(&self) -> &BTreeMap<String, f64> {
        &self.told_per_second
    }
}

fn by_name<'a>(counts: &[(&'a str, u64)]) -> BTreeMap<&'a str, u64> {
    let mut sums = BTreeMap::new();
    for (name, count) in counts {
        *sums.entry(*name).or_default() += count;
    }
    sums
}

/// The sum of all features.
fn sum(features: &BTreeMap<String, ProbeLosses>) -> Losses {
    let mut losses = Losses::default();
    for feature in features.values() {
        losses.seen = losses.seen.saturating_add(feature.seen);
        losses.dropped = losses.dropped.saturating_add(feature.dropped);
        losses.unattributed = losses.unattributed.saturating_add(feature.unattributed);
    }
    losses
}

/// Happenings in a sample by feature: calls, changes of connections, datagrams, requests, files,
/// process events. The aggregator counts in the same units what it cannot attribute.
fn happenings(sample: &Sample) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::<&'static str, u64>::new();
    let mut add = |feature, count| {
        let entry = counts.entry(feature).or_default();
        *entry = u64::saturating_add(*entry, count);
    };
    for delta in &sample.syscalls {
        add("syscalls", delta.counts.calls);
    }
    for delta in &sample.flows {
        let feature = match delta.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        add(feature, delta.happenings());
    }
    for delta in &sample.block {
        add("block", delta.counts.operations);
    }
    for delta in &sample.files {
        add("files", delta.happenings());
    }
    add("opens", sample.opens.len() as u64);
    add("dns", sample.dns_answers);
    add("processes", sample.lifecycle.len() as u64);
    counts.retain(|_, count| *count > 0);
    counts
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::facts::{SyscallCounts, SyscallDelta};

    fn sample(calls: u64) -> Sample {
        Sample {
            interval: Duration::from_secs(2),
            syscalls: vec![SyscallDelta {
                counts: SyscallCounts {
                    calls,
                    ..SyscallCounts::default()
                },
                ..SyscallDelta::default()
            }],
            ..Sample::default()
        }
    }

    #[test]
    fn totals_are_the_sums_of_the_features() {
        let mut tally = Tally::default();
        let mut first = sample(10);
        tally.add(&mut first, &[("tcp", 2), ("tcp", 1), ("syscalls", 0)], &[]);
        let mut second = sample(6);
        tally.add(
            &mut second,
            &[("tcp", 4), ("syscalls", 5)],
            &[("tcp", 1), ("tcp", 1)],
        );
        assert_eq!(second.probe_losses["syscalls"].seen, 16);
        assert_eq!(first.probe_losses["tcp"].dropped, 3, "two sources of one");
        assert_eq!(second.losses.seen, 16);
        assert_eq!(second.losses.dropped, 9);
        assert_eq!(second.probe_losses["tcp"].missed, 2, "two programs of one");
        assert_eq!(tally.told_per_second()["syscalls"], 3.0);
        let mut third = sample(0);
        tally.add(&mut third, &[], &[]);
        assert_eq!(tally.told_per_second()["syscalls"], 0.0);
        assert_eq!(third.losses, second.losses, "totals never go back");
    }
}
