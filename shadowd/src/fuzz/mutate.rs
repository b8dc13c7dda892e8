//! Damages valid encodings. The same seed gives the same inputs, on any machine.

/// Longest input; decoders that take more are bounded elsewhere.
const LONGEST: usize = 8 * 1024;
/// Numbers at which lengths, counts and signs go wrong.
const ODD: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.roll() as u8).collect()
    }

    /// Somewhere in `length` bytes: where it begins and ends.
    fn part(&mut self, length: usize) -> (usize, usize) {
        let from = self.below(length + 1);
        let longest = if self.below(4) == 0 {
            length - from
        } else {
            16.min(length - from)
        };
        (from, from + self.below(longest + 1))
    }

    /// The next input: one of `seeds`, mostly damaged.
    pub(super) fn input(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        if seeds.is_empty() || self.below(16) == 0 {
            return self.bytes(256);
        }
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..self.below(6) {
            let other = &seeds[self.below(seeds.len())];
            self.damage(&mut bytes, other);
        }
        bytes.truncate(LONGEST);
        bytes
    }

    fn damage(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let (from, to) = self.part(bytes.len());
        match self.below(9) {
            0 => bytes.truncate(from),
            1 => drop(bytes.drain(from..to)),
            2 => drop(bytes.splice(from..from, self.bytes(12))),
            3 => {
                let (begin, end) = self.part(other.len());
                drop(bytes.splice(from..to, other[begin..end].iter().copied()));
            }
            4 => bytes.extend_from_within(from..to),
            5 => {
                let again = bytes[from..to].repeat(1 + self.below(40));
                drop(bytes.splice(from..to, again));
            }
            6 => {
                let number = ODD[self.below(ODD.len())].wrapping_add(self.below(3) as u64);
                let width = 1 << self.below(4);
                let mut eight = number.to_le_bytes();
                if self.below(2) == 0 {
                    eight[..width].reverse();
                }
                for (byte, new) in bytes.iter_mut().skip(from).zip(&eight[..width]) {
                    *byte = *new;
                }
            }
            7 => {
                if let Some(byte) = bytes.get_mut(from) {
                    *byte = self.roll() as u8;
                }
            }
            _ => {
                if let Some(byte) = bytes.get_mut(from) {
                    *byte ^= 1 << self.below(8);
                }
            }
        }
    }
}
