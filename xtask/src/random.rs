//! Random moments from a seed: the same seed gives the same moments again.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to spread faults over a phase.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Begins with this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A time from zero up to, not including, `end`, which is at most some seconds.
    pub fn below(&mut self, end: Duration) -> Duration {
        let end_ns = u64::try_from(end.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(self.next() % end_ns)
    }

    /// A number from zero up to, not including, `end`, which is small beside 2^64.
    pub fn number(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_published_generator() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn times_fall_on_every_part_of_the_phase() {
        let mut random = Random::new(7);
        let mut parts = [0; 10];
        for _ in 0..1000 {
            let time = random.below(Duration::from_millis(10));
            parts[time.as_millis() as usize] += 1;
        }
        assert!(parts.iter().all(|count| *count > 50), "{parts:?}");
    }
}
