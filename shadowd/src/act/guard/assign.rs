//! Which slot an address has: one that was guarded before keeps its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use shadowd_common::guard::VIPS_MAX;
use shadowd_common::{Address, MAPPED};

/// What to change so that exactly the wanted addresses have a slot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Addresses to forget, with the slots that they leave.
    pub released: Vec<(Address, u32)>,
    /// Addresses to guard from now on, with slots that nobody had.
    pub added: Vec<(Address, u32)>,
}

/// Compares what the maps hold with what is wanted. `None` when the map cannot be believed: two
/// addresses share a slot, or one has none, and so one's deadline would open the other.
pub(super) fn changes(
    held: &BTreeMap<Address, u32>,
    wanted: &BTreeSet<Address>,
) -> Option<Changes> {
    let taken: BTreeSet<u32> = held.values().copied().collect();
    if taken.len() < held.len() || taken.last().is_some_and(|last| *last >= VIPS_MAX) {
        return None;
    }
    let released: Vec<(Address, u32)> = held
        .iter()
        .filter(|(address, _)| !wanted.contains(*address))
        .map(|(address, slot)| (*address, *slot))
        .collect();
    // A slot that was just left goes last: the kernel side may still be counting in it.
    let free = (0..VIPS_MAX).filter(|slot| !taken.contains(slot));
    let mut free = free.chain(released.iter().map(|(_, slot)| *slot));
    let added = wanted
        .iter()
        .filter(|address| !held.contains_key(*address))
        .map(|address| Some((*address, free.next()?)))
        .collect::<Option<_>>()?;
    Some(Changes { released, added })
}

/// An address as the kernel side compares it.
pub(super) fn key(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => [0, 0, MAPPED, u32::from_ne_bytes(address.octets())],
        IpAddr::V6(address) => {
            let bytes = address.octets();
            let word = |at: usize| {
                u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
            };
            [word(0), word(4), word(8), word(12)]
        }
    }
}

/// The address of a [`key`].
pub(super) fn address(key: Address) -> IpAddr {
    let [a, b, c, d] = key.map(u32::to_ne_bytes);
    let bytes: Vec<u8> = [a, b, c, d].concat();
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes);
    IpAddr::from(octets).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: impl IntoIterator<Item = u32>) -> BTreeSet<Address> {
        last.into_iter().map(|last| [0, 0, MAPPED, last]).collect()
    }

    #[test]
    fn a_key_tells_its_address() {
        for text in ["192.0.2.10", "2001:db8::10"] {
            let wanted: IpAddr = text.parse().expect("an address");
            assert_eq!(address(key(wanted)), wanted);
        }
    }

    #[test]
    fn an_address_keeps_its_slot_and_new_ones_get_free_ones() {
        let held = BTreeMap::from([([0, 0, MAPPED, 1], 0), ([0, 0, MAPPED, 2], 2)]);
        let changes = changes(&held, &addresses([2, 3, 4])).expect("it is sane");
        assert_eq!(changes.released, [([0, 0, MAPPED, 1], 0)]);
        assert_eq!(
            changes.added,
            [([0, 0, MAPPED, 3], 1), ([0, 0, MAPPED, 4], 3)]
        );
    }

    #[test]
    fn nothing_changes_when_all_is_as_wanted() {
        let held = BTreeMap::from([([0, 0, MAPPED, 1], 5)]);
        assert_eq!(changes(&held, &addresses([1])), Some(Changes::default()));
    }

    #[test]
    fn a_full_table_can_be_exchanged_and_no_more_fit() {
        let held: BTreeMap<_, _> = addresses(0..VIPS_MAX).into_iter().zip(0..).collect();
        let others = addresses(VIPS_MAX..2 * VIPS_MAX);
        let exchanged = changes(&held, &others).expect("each takes the place of one");
        let slots: BTreeSet<u32> = exchanged.added.iter().map(|(_, slot)| *slot).collect();
        assert_eq!(slots.len(), VIPS_MAX as usize);
        assert_eq!(changes(&held, &addresses(0..=VIPS_MAX)), None);
    }

    #[test]
    fn a_spoilt_map_is_not_believed() {
        let shared = BTreeMap::from([([0, 0, MAPPED, 1], 7), ([0, 0, MAPPED, 2], 7)]);
        assert_eq!(changes(&shared, &addresses([1])), None);
        let beyond = BTreeMap::from([([0, 0, MAPPED, 1], VIPS_MAX)]);
        assert_eq!(changes(&beyond, &addresses([1])), None);
    }

    #[test]
    fn keys_are_in_network_order() {
        let bytes = |text: &str| -> Vec<u8> {
            let key = key(text.parse().expect("an address"));
            key.iter().flat_map(|word| word.to_ne_bytes()).collect()
        };
        assert_eq!(
            bytes("192.0.2.10"),
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 10]
        );
        assert_eq!(
            bytes("2001:db8::10"),
            [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10]
        );
    }
}
