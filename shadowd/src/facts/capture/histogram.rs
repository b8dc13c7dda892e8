//! Times counted in powers of two.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many buckets there are.
const BUCKETS: usize = 32;
/// Bucket 0 holds what took less than 2^(FIRST + 1) ns.
const FIRST: u32 = 7;

/// Times by powers of two: bucket `i` counts those from 2^(i+7) ns to below 2^(i+8) ns.
///
/// Bucket 0 also counts all that is shorter (below 256 ns), the last one (from 275 s) all that is
/// longer. Written as the list of its counts without the zeros at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
}

impl Histogram {
    /// How many buckets there are.
    pub const BUCKETS: usize = BUCKETS;

    /// The bucket that counts a time of `nanos`.
    pub const fn bucket(nanos: u64) -> usize {
        let Some(log) = nanos.checked_ilog2() else {
            return 0;
        };
        let bucket = log.saturating_sub(FIRST) as usize;
        if bucket < BUCKETS {
            bucket
        } else {
            BUCKETS - 1
        }
    }

    /// The shortest time above bucket `index`: 2^(index + 8) ns; saturates.
    pub const fn upper_ns(index: usize) -> u64 {
        let shift = FIRST + 1 + index as u32;
        if shift < u64::BITS {
            1 << shift
        } else {
            u64::MAX
        }
    }

    /// A histogram of given counts; those past the last bucket are added to it.
    pub fn from_counts(counts: impl IntoIterator<Item = u64>) -> Self {
        let mut histogram = Self::default();
        for (index, count) in counts.into_iter().enumerate() {
            let bucket = &mut histogram.buckets[index.min(BUCKETS - 1)];
            *bucket = bucket.saturating_add(count);
        }
        histogram
    }

    /// The counts, shortest times first.
    pub const fn counts(&self) -> &[u64; BUCKETS] {
        &self.buckets
    }

    /// Counts `count` times of `nanos`.
    pub fn record(&mut self, nanos: u64, count: u64) {
        let bucket = &mut self.buckets[Self::bucket(nanos)];
        *bucket = bucket.saturating_add(count);
    }

    /// Adds all that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, more) in self.buckets.iter_mut().zip(other.buckets) {
            *mine = mine.saturating_add(more);
        }
    }

    /// Times counted.
    pub fn count(&self) -> u64 {
        self.buckets
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.buckets.iter().all(|count| *count == 0)
    }

    /// The time that a share of `quantile` (0 to 1) stayed below, interpolated within its bucket;
    /// at most a factor of two from the truth. None when nothing was counted.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let wanted = quantile.clamp(0.0, 1.0) * total as f64;
        let mut below = 0.0;
        for (index, count) in self.buckets.iter().enumerate() {
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                let low = if index == 0 {
                    0.0
                } else {
                    Self::upper_ns(index - 1) as f64
                };
                let high = Self::upper_ns(index) as f64;
                let inside = ((wanted - below) / count).clamp(0.0, 1.0);
                return Some(Duration::from_nanos((low + (high - low) * inside) as u64));
            }
            below += count;
        }
        None
    }
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let used = self
            .buckets
            .iter()
            .rposition(|count| *count != 0)
            .map_or(0, |last| last + 1);
        serializer.collect_seq(&self.buckets[..used])
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<u64>::deserialize(deserializer).map(Self::from_counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_lands_between_the_bounds_of_its_bucket() {
        assert_eq!(Histogram::bucket(0), 0);
        assert_eq!(Histogram::bucket(255), 0);
        assert_eq!(Histogram::bucket(256), 1);
        assert_eq!(Histogram::bucket(u64::MAX), Histogram::BUCKETS - 1);
        for nanos in [300, 1_000, 1_000_000, 2_000_000_000] {
            let bucket = Histogram::bucket(nanos);
            assert!(nanos < Histogram::upper_ns(bucket));
            assert!(nanos >= Histogram::upper_ns(bucket - 1));
        }
    }

    #[test]
    fn a_quantile_is_within_a_factor_of_two() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        histogram.record(1_000, 90);
        histogram.record(1_000_000, 10);
        let median = histogram.quantile(0.5).expect("there are times").as_nanos();
        let tail = histogram
            .quantile(0.99)
            .expect("there are times")
            .as_nanos();
        assert!((500..2_000).contains(&median), "{median}");
        assert!((500_000..2_000_000).contains(&tail), "{tail}");
    }

    #[test]
    fn it_is_written_without_the_zeros_at_the_end_and_read_back() {
        let mut histogram = Histogram::default();
        histogram.record(600, 3);
        let text = serde_json::to_string(&histogram).expect("it is written");
        assert_eq!(text, "[0,0,3]");
        assert_eq!(
            serde_json::from_str::<Histogram>(&text).expect("it is read"),
            histogram
        );
        let long = format!("[{}1]", "0,".repeat(100));
        let read: Histogram = serde_json::from_str(&long).expect("it is read");
        assert_eq!(read.count(), 1);
    }
}
