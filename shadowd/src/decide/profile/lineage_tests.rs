//! Lines of versions, made in any order of orders, told in any order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::codec::encode;
use super::super::replica::Replica;
use super::*;
use crate::facts::BootTime;

fn made(reason: Reason, wall_ms: i64) -> Made {
    Made {
        group: "web".parse().unwrap(),
        author: HostId::from_bytes([1; 32]),
        wall_ms,
        reason,
        profile: Profile::default(),
    }
}

/// Versions, oldest first, with their identities.
type Line = Vec<(Place, Version)>;

/// The orders that are given, by a number each; those that name a version name an earlier one.
fn line(orders: &[u8]) -> Line {
    let mut line: Line = Vec::new();
    for (at, order) in orders.iter().enumerate() {
        let earlier = line.get(usize::from(*order) % line.len().max(1));
        let earlier = earlier.map(|(place, _)| place.id);
        let reason = match (order % 7, earlier) {
            (_, None) => Reason::First,
            (0, Some(id)) => Reason::Rollback(id),
            (1, Some(_)) => Reason::Pin,
            (2, Some(_)) => Reason::Unpin,
            (3, Some(id)) => Reason::GoldenSet(id),
            (4, Some(id)) => Reason::GoldenApply(id),
            (5, Some(id)) => Reason::Import(id),
            (_, Some(_)) => Reason::Deviation(format!("change {at}")),
        };
        let before = line.last().map(|(place, version)| (*place, version));
        let version = next(before, made(reason, at as i64 * 1_000));
        let id = VersionId::of(&encode(&version).unwrap());
        let place = Place {
            number: version.number,
            id,
        };
        line.push((place, version));
    }
    line
}

proptest! {
    #[test]
    fn orders_of_any_kind_make_one_line(orders in proptest::collection::vec(any::<u8>(), 1..40)) {
        let line = line(&orders);
        let (mut pinned, mut golden, mut parent) = (false, None, None);
        for (at, (place, version)) in line.iter().enumerate() {
            prop_assert_eq!(version.number, at as u64 + 1);
            prop_assert_eq!(version.parent, parent);
            match &version.reason {
                Reason::Pin | Reason::Rollback(_) | Reason::GoldenApply(_) => pinned = true,
                Reason::Unpin => pinned = false,
                Reason::GoldenSet(id) => golden = Some(*id),
                Reason::First | Reason::Deviation(_) | Reason::Import(_) => {}
            }
            prop_assert_eq!((version.pinned, version.golden), (pinned, golden));
            parent = Some(place.id);
        }
        let ids: std::collections::BTreeSet<VersionId> = line.iter().map(|(place, _)| place.id).collect();
        prop_assert_eq!(ids.len(), line.len(), "each has an identity of its own");
    }

    #[test]
    fn whoever_has_them_uses_the_last_in_whatever_order_they_came(
        orders in proptest::collection::vec(any::<u8>(), 1..30),
        shuffle in proptest::collection::vec(any::<u32>(), 30),
        twice in any::<bool>(),
    ) {
        let line = line(&orders);
        let now = BootTime::from_nanos(1);
        let mut order: Vec<usize> = (0..line.len()).collect();
        order.sort_by_key(|at| shuffle[*at]);
        if twice {
            order.extend(0..line.len());
        }
        let mut replica = Replica::new(Vec::new(), [], now);
        for at in order {
            let (place, version) = &line[at];
            replica.on_version(*place, version.parent, now);
        }
        prop_assert_eq!(replica.head(), line.last().map(|(place, _)| *place));
        let all = line.iter().map(|(place, _)| *place);
        prop_assert_eq!(Replica::new(Vec::new(), all, now).head(), replica.head());
    }

    #[test]
    fn at_any_time_the_newest_version_until_then_was_in_use(
        orders in proptest::collection::vec(any::<u8>(), 1..30),
        at in 0_i64..30_000,
        missing in any::<proptest::sample::Index>(),
    ) {
        let line = line(&orders);
        let kept: BTreeMap<VersionId, Version> =
            line.iter().map(|(place, version)| (place.id, version.clone())).collect();
        let (head, version) = line.last().unwrap();
        let wanted = line.iter().rev().find(|(_, version)| version.wall_ms <= at).unwrap();
        let found = in_use_at((head.id, version), at, |id| kept.get(id).cloned());
        prop_assert_eq!(found, Past::InUse(wanted.0.id, Box::new(wanted.1.clone())));
        let early = in_use_at((head.id, version), -1, |id| kept.get(id).cloned());
        prop_assert_eq!(early, Past::Before(0));
        // Of what is not kept nothing is made up.
        let gone = missing.index(line.len());
        let found = in_use_at((head.id, version), at, |id| {
            kept.get(id).filter(|version| version.number != gone as u64 + 1).cloned()
        });
        match found {
            Past::InUse(id, _) => prop_assert_eq!(id, wanted.0.id),
            Past::NotKept(number) => prop_assert_eq!(number, gone as u64 + 2),
            Past::Before(_) => prop_assert!(false, "{:?}", found),
        }
    }
}
