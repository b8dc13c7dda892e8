//! Which files the units of a group have in memory: the kernel keeps what was read (its page cache).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// How much of a file is in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotFile {
    /// Its length, bytes.
    pub size: u64,
    /// Its pieces, the first in bit 0: set for those that are in memory, at least half of each.
    pub pieces: u64,
}

/// What the owner's units keep in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hot {
    /// Paths of each unit: programs and libraries, what it has open, what it was configured by.
    pub units: BTreeMap<String, BTreeSet<String>>,
    /// The files, by absolute path.
    pub files: BTreeMap<String, HotFile>,
}

impl HotFile {
    /// So many pieces has a file, fewer if it is short.
    pub const PIECES: u32 = 64;
    /// A piece is a multiple of this (bytes), whatever the pages of a host are.
    const STEP: u64 = 4_096;

    /// The length of a piece of a file of this length, bytes.
    pub const fn piece(size: u64) -> u64 {
        let piece = size.div_ceil(Self::PIECES as u64);
        match piece {
            0 => Self::STEP,
            piece => piece.div_ceil(Self::STEP) * Self::STEP,
        }
    }

    /// Offset and length (bytes) of each piece that is in memory.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let (size, pieces, piece) = (self.size, self.pieces, Self::piece(self.size));
        (0..Self::PIECES).filter_map(move |number| {
            let offset = piece.checked_mul(u64::from(number))?;
            let there = pieces >> number & 1 == 1 && offset < size;
            there.then(|| (offset, piece.min(size - offset)))
        })
    }

    /// Bytes that are in memory, by whole pieces.
    pub fn bytes(&self) -> u64 {
        self.ranges()
            .fold(0, |sum, (_, length)| sum.saturating_add(length))
    }

    /// What of this is not in `here`.
    pub const fn without(&self, here: u64) -> Self {
        Self {
            size: self.size,
            pieces: self.pieces & !here,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_file_has_few_pieces_and_the_last_ends_with_it() {
        let all = |size| HotFile {
            size,
            pieces: u64::MAX,
        };
        assert_eq!(all(0).bytes(), 0);
        assert_eq!(all(1).ranges().collect::<Vec<_>>(), [(0, 1)]);
        let two = all(5_000).ranges().collect::<Vec<_>>();
        assert_eq!(two, [(0, 4_096), (4_096, 904)]);
        let part = all(64 << 20).without(u64::MAX << 1);
        assert_eq!(part.ranges().collect::<Vec<_>>(), [(0, 1 << 20)]);
    }

    proptest! {
        #[test]
        fn all_pieces_together_are_the_file(size in any::<u64>(), some in any::<u64>()) {
            let all = HotFile { size, pieces: u64::MAX };
            prop_assert_eq!(all.bytes(), size);
            let part = HotFile { size, pieces: some };
            prop_assert_eq!(part.bytes().checked_add(all.without(some).bytes()), Some(size));
            prop_assert_eq!(HotFile::piece(size) % 4_096, 0);
        }
    }
}
